"""Tasks listed, and their output read and followed, on the real engine: what an operator sees while a task runs."""

import ast
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.playbooks import WAITED, WAITING
from support.waiting import eventually

HELD = "until [ -e /work/go ]; do sleep 0.05; done"


class Event(NamedTuple):
    """One event of a stream: its type, the position behind it, and its data."""

    kind: str
    position: int
    data: dict[str, Any]


def events(response: httpx.Response) -> Iterator[Event]:
    """The events of a stream as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields["event"], int(fields["id"].partition("@")[0]), json.loads(fields["data"]))
            fields = {}


def followed(agent: AgentProcess, path: str, start: int | str | None = None) -> list[Event]:
    """All events up to the end of the stream."""
    headers = agent.headers | ({} if start is None else {"Last-Event-ID": str(start)})
    with agent.http.stream("GET", f"{path}?follow=true", headers=headers) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        return list(events(response))


def text_of(found: list[Event]) -> str:
    """The output of a stream."""
    return "".join(one.data["text"] for one in found if one.kind == "output")


@pytest.fixture(scope="module")
def agent(folder: Path, dashboard: DashboardStub) -> Iterator[AgentProcess]:
    """One agent, which keeps little output and runs one task at a time."""
    settings = {"AGP_OUTPUT_LIMIT_BYTES": 2048, "AGP_MAX_RUNNING": 1}
    with AgentProcess(folder, dashboard.url, dashboard.token, settings) as agent:
        yield agent


def test_output_is_followed_live_and_ends_with_the_outcome(
    agent: AgentProcess, dashboard: DashboardStub, engine: EngineSide
) -> None:
    """What is printed comes before the end; one that waits in the queue is followed too, from its first byte on."""
    agent.accept_task("held", WAITING)
    agent.accept_task("queued", "echo its turn\n")
    late: list[Event] = []
    waiting = threading.Thread(target=lambda: late.extend(followed(agent, "/tasks/queued/logs")))
    waiting.start()
    with agent.http.stream("GET", "/tasks/held/logs?follow=1", headers=agent.headers) as response:
        coming = events(response)
        assert next(coming) == Event("output", 7, {"text": "before\n"})
        assert agent.request("GET", "/tasks/held/logs").text == "before\n"
        engine.let_go(agent.container_of("held"))
        rest = list(coming)
    assert text_of(rest) == "after\n"
    assert rest[-1] == Event(
        "end",
        13,
        {"state": "finished", "outcome": "failed", "reason": "exit_code", "error": "exit code 7", "exit_code": 7},
    )
    waiting.join()
    assert text_of(late) == "its turn\n"
    assert late[-1].data["outcome"] == "succeeded"
    assert dashboard.result("held") == {"task_id": "held", **WAITED}
    assert agent.request("GET", "/tasks/held/logs").text == "before\nafter\n"


def test_a_reader_that_comes_back_goes_on_where_it_was(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Ids are bytes as printed, never in the middle of a character; nothing comes twice."""
    agent.accept_task("umlauts", "printf 'äöü\\nend\\n'")
    dashboard.result("umlauts")
    whole = followed(agent, "/tasks/umlauts/logs")
    assert (text_of(whole), whole[-1].position) == ("äöü\nend\n", 11)
    assert text_of(followed(agent, "/tasks/umlauts/logs", 7)) == "end\n"
    again = followed(agent, "/tasks/umlauts/logs", 11)
    assert [one.kind for one in again] == ["end"]


def test_what_is_not_kept_is_a_gap_of_known_size(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Head, gap and tail add up to what was printed, whichever of them a reader begins in."""
    agent.accept_task("long", "seq 1 2000")
    dashboard.result("long")
    printed = "".join(f"{number}\n" for number in range(1, 2001))
    head, gap, tail, end = followed(agent, "/tasks/long/logs")
    assert (head.kind, gap.kind, tail.kind, end.kind) == ("output", "gap", "output", "end")
    assert head.data["text"] == printed[:1024]
    assert tail.data["text"] == printed[-1024:]
    assert (gap.data["omitted_bytes"], gap.position, end.position) == (
        len(printed) - 2048,
        len(printed) - 1024,
        len(printed),
    )
    inside = followed(agent, "/tasks/long/logs", 2000)
    assert (inside[0].kind, inside[0].data["omitted_bytes"]) == ("gap", len(printed) - 1024 - 2000)
    assert text_of(followed(agent, "/tasks/long/logs", len(printed) - 10)) == printed[-10:]


def test_a_follower_stays_with_its_attempt(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """The id is sent again: who goes on in the first attempt gets its rest and its end, nothing of the next one."""
    agent.accept_task("again", "echo FIRST-1; echo FIRST-2\n")
    dashboard.result("again")
    agent.wait_audited("task delivered", task_id="again")
    agent.accept_task("again", "echo second-1; echo second-2; exit 3\n")
    agent.wait_audited("task delivered", task_id="again", attempt=2)
    first = followed(agent, "/tasks/again/logs", 8)
    assert (text_of(first), first[-1].data["exit_code"]) == ("FIRST-2\n", 0)
    latest = followed(agent, "/tasks/again/logs")
    assert (text_of(latest), latest[-1].data["exit_code"]) == ("second-1\nsecond-2\n", 3)
    second = followed(agent, "/tasks/again/logs", "9@2")
    assert (text_of(second), second[-1].data["exit_code"]) == ("second-2\n", 3)
    none = agent.request("GET", "/tasks/again/logs?follow=1", headers={"Last-Event-ID": "9@3"})
    assert (none.status_code, none.json()["detail"]) == (
        400,
        "Last-Event-ID is 9@3, and attempt 3 is not kept (any more).",
    )


def test_wrong_questions_get_clear_answers(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Unknown ids, positions from the future, filters and cursors that are none."""
    agent.accept_task("short", "echo x\n")
    dashboard.result("short")
    future = agent.request("GET", "/tasks/short/logs?follow=1", headers={"Last-Event-ID": "999"})
    assert (future.status_code, future.json()["detail"]) == (
        400,
        "Last-Event-ID is 999, and this attempt has printed 2 bytes.",
    )
    nonsense = agent.request("GET", "/tasks/short/logs?follow=1", headers={"Last-Event-ID": "x"})
    assert (nonsense.status_code, "last-event-id" in nonsense.json()["detail"]) == (400, True)
    for path in ("/tasks/never/logs", "/tasks/never/logs?follow=1"):
        assert agent.request("GET", path).json() == {"detail": "There is no task with this id."}
    for query in ("state=asleep", "outcome=1", "delivery=x", "limit=0", "limit=x", "cursor=-1", "cursor=abc"):
        answer = agent.request("GET", f"/tasks?{query}")
        assert answer.status_code == 400, query
        assert answer.json()["detail"].startswith(f"Invalid query parameter {query.partition('=')[0]}: expected ")
    for path in ("/tasks?status=failed", "/tasks/short/logs?folow=true"):
        unknown = agent.request("GET", path)
        assert (unknown.status_code, unknown.json()["detail"]) == (
            400,
            "There is a query parameter that is not known here; /openapi.json has those that are.",
        )
    ended = agent.request("POST", "/tasks/short/cancel")
    assert (ended.status_code, ended.json()["detail"]) == (409, "The task has ended already: succeeded.")


def test_tasks_are_listed_newest_first_in_pages_and_by_filter(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """A page's cursor is stable: what is accepted meanwhile moves nothing."""
    for number in range(5):
        agent.accept_task(f"listed {number}", f"exit {number % 2}")
        dashboard.result(f"listed {number}")
    first = agent.request("GET", "/tasks?limit=2").json()
    agent.accept_task("listed meanwhile", "true")
    dashboard.result("listed meanwhile")
    second = agent.request("GET", f"/tasks?limit=2&cursor={first['next_cursor']}").json()
    names = [one["task_id"] for page in (first, second) for one in page["tasks"]]
    assert names == ["listed 4", "listed 3", "listed 2", "listed 1"]
    failed = agent.request("GET", "/tasks?outcome=failed&limit=200").json()["tasks"]
    assert {"listed 1", "listed 3"} <= {one["task_id"] for one in failed}
    assert {one["outcome"] for one in failed} == {"failed"}
    eventually(lambda: agent.request("GET", "/tasks?delivery=pending").json()["tasks"] == [], "all is acknowledged")
    everything, cursor = 0, ""
    while True:
        page = agent.request("GET", f"/tasks?limit=3{cursor}").json()
        everything += len(page["tasks"])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert everything == len(agent.request("GET", "/tasks?limit=200").json()["tasks"])
    assert agent.request("GET", "/tasks?state=running").json() == {"tasks": [], "next_cursor": None}


def test_followers_that_never_read_hold_nothing_up(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Fifty of them; the task prints 20 MB and ends, and whoever reads sees its end."""
    agent.accept_task(
        "flood", "until [ -e /work/go ]; do sleep 0.05; done; head -c 20000000 /dev/zero | tr '\\0' x; echo"
    )
    container = agent.container_of("flood")
    request = f"GET /tasks/flood/logs?follow=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {agent.token}\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", agent.port)) for _ in range(50)]
    try:
        for one in slow:
            one.sendall(request.encode())
        with EngineSide() as engine:
            engine.let_go(container)
        assert dashboard.result("flood")["status"] == "completed"
        assert followed(agent, "/tasks/flood/logs")[-1].position == 20000001
    finally:
        for one in slow:
            one.close()


def test_an_agent_that_stops_lets_its_followers_go(dashboard: DashboardStub, tmp_path: Path) -> None:
    """The stream ends without an end of the task; nobody holds the stop up, and the next agent goes on with it."""
    settings = {"AGP_DRAIN_TIMEOUT_S": 0}
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
        agent.accept_task("outlives", WAITING)
        seen: list[Event] = []
        started = threading.Event()

        def follow() -> None:
            with agent.http.stream("GET", "/tasks/outlives/logs?follow=1", headers=agent.headers) as response:
                for event in events(response):
                    seen.append(event)
                    started.set()

        reader = threading.Thread(target=follow)
        reader.start()
        assert started.wait(60)
        assert agent.stop() == 0
        reader.join(20)
        assert not reader.is_alive()
        assert [one.kind for one in seen] == ["output"]
        agent.start()
        with EngineSide() as engine:
            engine.let_go(agent.container_of("outlives"))
        assert text_of(followed(agent, "/tasks/outlives/logs", seen[-1].position)) == "after\n"


def test_the_documented_client_follows_to_the_end(agent: AgentProcess) -> None:
    """docs/quickstart.md, as somebody copies it; only the address and the token are this agent's."""
    page = (Path(__file__).parents[2] / "docs/quickstart.md").read_text()
    client = page.split("```python\n")[1].split("```")[0]
    client = client.replace("http://127.0.0.1:8470", f"http://127.0.0.1:{agent.port}")
    client = client.replace('Path("/tmp/try/token").read_text().strip()', repr(agent.token))
    done = subprocess.run((sys.executable, "-c", client), capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    answer, *output, end = done.stdout.splitlines()
    assert json.loads(answer)["task_id"] == "from python"
    assert "".join(ast.literal_eval(line.removeprefix("output "))["text"] for line in output) == "hello\n"
    assert "'outcome': 'succeeded'" in end
