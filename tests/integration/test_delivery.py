"""Results reach the dashboard, whatever it answers in between. Most tasks here have no runner: they end at once."""

import asyncio
import itertools
import secrets
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import RECEIVED, DashboardStub, Reply
from support.secret_files import write_secret
from support.waiting import eventually

NOT_TAKEN = {
    "500": Reply(500, b'{"detail":"broken"}'),
    "503": Reply(503, b""),
    "502 with HTML": Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
    "404": Reply(404, b'{"detail":"Not Found"}'),
    "405": Reply(405, b""),
    "408": Reply(408, b""),
    "409": Reply(409, b""),
    "425": Reply(425, b""),
    "429": Reply(429, b""),
    "reset": Reply(reset=True),
    "reset after a while": Reply(reset=True, delay_s=0.3),
    "200 with HTML": Reply(200, b"<html>Welcome</html>", {"Content-Type": "text/html"}),
    "200 with nothing": Reply(200, b""),
    "200 with another JSON": Reply(200, b'{"status":"ok"}'),
    "200 with a list": Reply(200, b'["message"]'),
    "200 with a message that is no string": Reply(200, b'{"message":null}'),
    "200 with an endless message": Reply(200, b'{"message":"' + b"x" * 2**20 + b'"}'),
    "201": Reply(201, RECEIVED),
    "204": Reply(204, b""),
    "302": Reply(302, b"", {"Location": "{url}/elsewhere"}),
    "307": Reply(307, b"", {"Location": "{url}/elsewhere"}),
    "401": Reply(401, b'{"detail":"no"}'),
    "403": Reply(403, b'{"detail":"no"}'),
}
REFUSED = {"400": 400, "422": 422, "410": 410}


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent."""
    with AgentProcess(folder, dashboard.url, dashboard.token) as process:
        yield process


@pytest.fixture(scope="module")
def not_taken(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """A task for each answer that is no acknowledgement, all on their way at once; each is given twice.

    Others are taken meanwhile: a dashboard that takes nothing at all counts as away, and is asked less and less often.
    """
    for about, reply in NOT_TAKEN.items():
        headers = {name: value.format(url=dashboard.url) for name, value in reply.headers.items()}
        answer = Reply(reply.status, reply.body, headers, reply.delay_s, reply.reset)
        dashboard.script(about, answer, answer)
        agent.accept_task(about, "x", "p.none")
    taken = (f"taken {number}" for number in itertools.count())
    while not all(any(one.reply.acknowledges for one in dashboard.deliveries(about)) for about in NOT_TAKEN):
        task_id = next(taken)
        agent.accept_task(task_id, "x", "p.none")
        dashboard.acknowledged(task_id)


@pytest.mark.usefixtures("not_taken")
@pytest.mark.parametrize("about", NOT_TAKEN)
def test_what_is_no_acknowledgement_is_tried_again(agent: AgentProcess, dashboard: DashboardStub, about: str) -> None:
    """The same body under the same key, until it is taken; each refusal stands in the log with its reason."""
    dashboard.acknowledged(about)
    first, second, third = dashboard.deliveries(about)
    assert first.body == second.body == third.body
    assert len({one.headers["idempotency-key"] for one in (first, second, third)}) == 1
    assert len(dashboard.deliveries(about)) == 3
    said = [line for line in agent.log_lines() if line["event"] == "result not delivered; kept"]
    whys = [line["why"] for line in said if line["task_id"] == about]
    assert len(whys) == 2
    status = str(NOT_TAKEN[about].status)
    assert all("the dashboard was not reached" in why if "reset" in about else status in why for why in whys)


@pytest.mark.usefixtures("not_taken")
def test_redirects_are_not_followed(dashboard: DashboardStub) -> None:
    """A result goes to the operator's URL and nowhere else."""
    for about in NOT_TAKEN:
        dashboard.acknowledged(about)
    assert {one.path for one in dashboard.deliveries()} == {"/api/v1/agents/report_result"}


def test_retry_after_is_honoured(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """The next attempt is not made earlier than the dashboard asked for."""
    dashboard.script("later", Reply(503, b"", {"Retry-After": "2"}))
    agent.accept_task("later", "x", "p.none")
    first, second = dashboard.wait_deliveries("later", 2)
    assert second.at_s - first.at_s >= 2
    planned = agent.wait_log("result not delivered; kept", task_id="later")
    assert planned["next_try_in_s"] >= 2


@pytest.mark.parametrize("about", REFUSED)
def test_a_refused_result_becomes_a_dead_letter(agent: AgentProcess, dashboard: DashboardStub, about: str) -> None:
    """It is not sent again by itself; it stands in the journal, and the task is still open to the dashboard."""
    dashboard.script(about, Reply(REFUSED[about], b'{"detail":"never"}'))
    agent.accept_task(about, "x", "p.none")
    line = agent.wait_audited("task dead-lettered", task_id=about)
    assert line["why"] == f"the dashboard answered {about}"
    again = agent.post_task(about, "x", "p.none")
    detail = "has finished, but the dashboard refused its result; an operator has to deliver or drop it"
    assert (again.status_code, again.json()["detail"]) == (409, f"A task with the same task_id {detail}.")
    agent.accept_task(f"behind {about}", "x", "p.none")
    dashboard.acknowledged(f"behind {about}")
    assert len(dashboard.deliveries(about)) == 1
    with sqlite3.connect(agent.state / "journal.db") as journal:
        query = "SELECT o.state, length(o.last_error) > 0 FROM outbox o JOIN attempts a USING (seq) WHERE a.task_id = ?"
        assert journal.execute(query, (about,)).fetchall() == [("dead_letter", 1)]
    journal.close()


def test_a_result_that_is_too_large_for_the_dashboard_comes_shorter(
    agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """413 once: the same result with less of its output, and a line that counts what is missing. Twice: dead letter."""
    too_large = Reply(413, b'{"detail":"too large"}')
    dashboard.script("too large", too_large)
    dashboard.script("always too large", too_large, too_large)
    for task_id in ("too large", "always too large"):
        agent.accept_task(task_id, "yes 1234567 | head -c 200000")
    cut = "1234567\n" * 4096
    assert dashboard.result("too large") == {
        "task_id": "too large",
        "status": "completed",
        "output": f"{cut}[agp-agent: {200_000 - 65_536} bytes omitted]\n{cut}",
        "error": None,
    }
    assert agent.wait_audited("task dead-lettered", task_id="always too large")["deliveries"] == 2
    lengths = [len(one.result["output"]) for one in dashboard.deliveries("always too large")]
    assert lengths[0] == 200_000 > lengths[1]


async def test_a_burst_of_results_is_delivered_once_each(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Results that are posted while others are being picked out are neither forgotten nor sent twice."""
    burst = [f"burst {number}" for number in range(100)]
    async with httpx.AsyncClient(trust_env=False, timeout=60, headers=agent.headers) as client:
        url = f"http://127.0.0.1:{agent.port}/execute_task"
        bodies = [{"task_id": task_id, "playbook": {"name": "p.none", "content": "x"}} for task_id in burst]
        answers = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {202}
    for task_id in burst:
        await asyncio.to_thread(dashboard.acknowledged, task_id)
    delivered = [one.result["task_id"] for one in dashboard.deliveries() if one.result["task_id"].startswith("burst ")]
    assert sorted(delivered) == sorted(burst)


def test_one_result_that_is_not_taken_holds_no_other_up(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """While the dashboard thinks one over, and then refuses it, others are delivered."""
    thought_over = threading.Event()
    dashboard.script("stuck", Reply(500, b"", after=thought_over))
    agent.accept_task("stuck", "x", "p.none")
    dashboard.wait_deliveries("stuck", 1)
    agent.accept_task("other", "echo other")
    assert dashboard.result("other")["output"] == "other\n"
    assert len(dashboard.deliveries("stuck")) == 1
    thought_over.set()
    dashboard.acknowledged("stuck")


def test_a_rotated_token_delivers_without_a_restart(dashboard: DashboardStub, tmp_path: Path) -> None:
    """The old token gets 401 until the file has the new one; both directions' files are read again."""
    outbound, inbound = tmp_path / "dashboard.token", tmp_path / "agent.token"
    write_secret(outbound, "an-old-token-that-is-revoked\n")
    new_inbound = secrets.token_urlsafe(32)
    settings = {"AGP_DASHBOARD_TOKEN_FILE": outbound, "AGP_TOKEN_FILE": inbound}
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings) as agent:
        agent.accept_task("rotated", "echo kept")
        dashboard.wait_unauthorized("rotated")
        line = agent.wait_log("result not delivered; kept", task_id="rotated")
        assert line["why"] == "the dashboard answered 401: it does not accept the agent's token"
        write_secret(outbound, f"{dashboard.token}\n")
        assert dashboard.result("rotated") == {
            "task_id": "rotated",
            "status": "completed",
            "output": "kept\n",
            "error": None,
        }
        write_secret(inbound, f"{new_inbound}\n{agent.token}\n")
        new = {"Authorization": f"Bearer {new_inbound}"}
        assert agent.http.post("/heartbeat", headers=new).status_code == 200
        assert agent.request("POST", "/heartbeat").status_code == 200
        write_secret(inbound, f"{new_inbound}\n")
        assert agent.http.post("/heartbeat", headers=new).status_code == 200
        eventually(lambda: agent.request("POST", "/heartbeat").status_code == 401, "the old token is out")
        for secret in ("an-old-token-that-is-revoked", dashboard.token, new_inbound, agent.token):
            assert secret not in agent.log_text()


def test_a_dashboard_that_is_not_there_yet_gets_it_later(tmp_path: Path) -> None:
    """Nobody listens at first: the result is kept, over a restart of the agent too, until it is taken."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    token = secrets.token_urlsafe(32)
    with AgentProcess(tmp_path, f"http://127.0.0.1:{port}", token) as agent:
        agent.accept_task("kept", "echo kept; exit 5")
        refused = agent.wait_log("result not delivered; kept", task_id="kept")
        assert refused["why"].startswith("the dashboard was not reached: ConnectError")
        assert agent.stop() == 0
        agent.start()
        agent.wait_log("result not delivered; kept", task_id="kept")
        with DashboardStub(port=port, token=token) as late:
            assert late.result("kept") == {
                "task_id": "kept",
                "status": "failed",
                "output": "kept\n",
                "error": "exit code 5",
            }
            (delivery,) = late.deliveries("kept")
            assert delivery.headers["idempotency-key"].endswith(f"/kept/1/{refused['run_id']}")
            agent.wait_audited("task delivered", task_id="kept")
            eventually(lambda: _is_closed(agent), "row closed")


def _is_closed(agent: AgentProcess) -> bool:
    with sqlite3.connect(agent.state / "journal.db") as journal:
        rows = journal.execute("SELECT is_open FROM attempts").fetchall()
    journal.close()
    return rows == [(0,)]
