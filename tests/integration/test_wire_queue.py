"""What the contract says of tasks that wait, come again, or come at a bad time."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub, Reply
from support.namespaces import with_tmpfs
from support.playbooks import WAITED, WAITING
from support.waiting import eventually

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent with one place, and room for three tasks that wait for it."""
    settings = {"AGP_MAX_RUNNING": 1, "AGP_MAX_QUEUED": 3}
    with AgentProcess(folder, dashboard.url, dashboard.token, settings) as process:
        yield process


@pytest.fixture(scope="module")
def engineless(dashboard: DashboardStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that never finds an engine, gives up waiting soon, and holds identical tasks off."""
    settings = NO_ENGINE | {"AGP_QUEUE_TIMEOUT_S": "0.5", "AGP_RERUN_AFTER_S": "3600"}
    folder = tmp_path_factory.mktemp("engineless")
    with AgentProcess(folder, dashboard.url, dashboard.token, settings, ready=False) as process:
        yield process


def _detail(answer: httpx.Response, status: int) -> str:
    document = answer.json()
    assert (answer.status_code, list(document)) == (status, ["detail"])
    return str(document["detail"])


def test_tasks_wait_their_turn_and_a_full_queue_is_503(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """One runs, three wait as ``pending``, the next is refused; then they run in the order they came in."""
    agent.accept_task("first", WAITING)
    container = agent.container_of("first")
    waiting = ["second", "third", "fourth"]
    for task_id in waiting:
        answer = agent.post_task(task_id, "echo $0")
        text = f'{{"message":"Task accepted; it waits for a free place","task_id":"{task_id}","status":"pending"}}'
        assert (answer.status_code, answer.text) == (202, text)
    refused = agent.post_task("fifth", "echo")
    assert _detail(refused, 503) == "The queue is full (3 tasks are waiting); send the task again later."
    assert refused.headers["retry-after"] == "5"
    assert _detail(agent.post_task("first", "x"), 409) == "A task with the same task_id is already running."
    assert _detail(agent.post_task("third", "x"), 409) == "A task with the same task_id is already queued."
    agent.engine.let_go(container)
    assert dashboard.result("first") == {"task_id": "first", **WAITED}
    assert [dashboard.result(task_id)["status"] for task_id in waiting] == ["completed"] * 3
    started = [line["task_id"] for line in map(json.loads, agent.log_text().splitlines()) if _is_start(line)]
    assert started[:4] == ["first", *waiting]
    assert dashboard.deliveries("fifth") == []
    assert agent.post_task("fifth", "true").json()["status"] == "running"
    dashboard.result("fifth")


def _is_start(line: dict[str, object]) -> bool:
    return line["event"] == "task started"


def test_a_finished_task_is_refused_until_the_dashboard_has_its_result(
    agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """To the dashboard it runs until then; afterwards the same id runs again, as a new attempt."""
    dashboard.script("again", Reply(503, headers={"Retry-After": "2"}))
    agent.accept_task("again", "echo one")
    dashboard.wait_deliveries("again", 1)
    detail = _detail(agent.post_task("again", "echo two"), 409)
    assert detail == (
        "A task with the same task_id has finished, but the dashboard has not acknowledged its result yet."
    )
    assert dashboard.result("again")["output"] == "one\n"
    agent.wait_audited("task delivered", task_id="again")
    agent.accept_task("again", "echo two")
    second = dashboard.acknowledged("again", number=2)
    assert second.result["output"] == "two\n"
    keys = [one.headers["idempotency-key"].split("/")[1:3] for one in dashboard.deliveries("again")]
    assert keys == [["again", "1"], ["again", "1"], ["again", "2"]]


def test_an_idempotency_key_never_causes_a_second_run(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """The same key gets the same 202 while the task runs and after its acknowledgement; another body under it 409."""
    key = {"Idempotency-Key": "key-of-the-sender/1"}
    first = agent.post_task("keyed", WAITING, headers=key)
    container = agent.container_of("keyed")
    assert agent.post_task("keyed", WAITING, headers=key).content == first.content
    agent.engine.let_go(container)
    dashboard.result("keyed")
    agent.wait_audited("task delivered", task_id="keyed")
    replay = agent.post_task("keyed", WAITING, headers=key)
    assert (replay.status_code, replay.content) == (202, first.content)
    assert replay.json() == {"message": "Task execution started", "task_id": "keyed", "status": "running"}
    used = "This Idempotency-Key was used for another task within the last 24 h."
    assert _detail(agent.post_task("keyed", "echo other", headers=key), 409) == used
    assert _detail(agent.post_task("keyed-2", WAITING, headers=key), 409) == used
    assert _detail(agent.post_task("keyed", WAITING, "other.sh", headers=key), 409) == used
    agent.accept_task("behind", "true")
    dashboard.result("behind")
    assert len(dashboard.deliveries("keyed")) == 1
    assert (
        len(
            [
                1
                for line in map(json.loads, agent.log_text().splitlines())
                if _is_start(line) and line["task_id"] == "keyed"
            ]
        )
        == 1
    )


async def test_simultaneous_posts_with_one_key_all_get_the_one_202(
    agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """A sender that retries too early learns the same as the first time, and one playbook runs."""
    body = {"task_id": "keyed-at-once", "playbook": {"name": "p.sh", "content": "echo ran"}}
    headers = agent.headers | {"Idempotency-Key": "x" * 255}
    async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as client:
        url = f"http://127.0.0.1:{agent.port}/execute_task"
        answers = await asyncio.gather(*(client.post(url, json=body) for _ in range(20)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    result = await asyncio.to_thread(dashboard.result, "keyed-at-once")
    assert result["output"] == "ran\n"
    assert len(dashboard.deliveries("keyed-at-once")) == 1


def test_identical_tasks_are_held_off_where_the_operator_says_so(
    engineless: AgentProcess, dashboard: DashboardStub
) -> None:
    """Within AGP_RERUN_AFTER_S of its acknowledgement an identical task is 409; one with other content is taken."""
    engineless.accept_task("same", "one", "p.none")
    dashboard.result("same")
    engineless.wait_audited("task delivered", task_id="same")
    detail = _detail(engineless.post_task("same", "one", "p.none"), 409)
    assert detail == "An identical task was acknowledged less than 3600 s ago; it is not run again."
    engineless.accept_task("same", "two", "p.none")
    assert dashboard.acknowledged("same", number=2).result["status"] == "failed"


def test_a_task_that_waits_too_long_ends_so(engineless: AgentProcess, dashboard: DashboardStub) -> None:
    """It is accepted as pending without an engine, and its end says that it never started."""
    assert engineless.http.get("/readyz").status_code == 503
    assert engineless.post_task("late", "echo").json()["status"] == "pending"
    assert dashboard.result("late") == {
        "task_id": "late",
        "status": "failed",
        "output": "",
        "error": "timed out after 0.5 s in the queue; it never started",
    }


def test_a_full_disk_is_503_until_there_is_room_again(tmp_path: Path, dashboard: DashboardStub) -> None:
    """No 202 without a durable order; the agent says that it is not ready, and recovers by itself."""
    state = tmp_path / "state"
    state.mkdir()
    wrapper = with_tmpfs(state, "128m")
    agent = AgentProcess(tmp_path, dashboard.url, dashboard.token, NO_ENGINE, wrapper=wrapper, ready=False)
    with agent:
        fill = agent.state_inside / "fill"
        with pytest.raises(OSError, match="No space left"):
            fill.write_bytes(b"\0" * 128 * 2**20)
        refused = agent.post_task("unlucky", "#" * 500_000)
        why = _detail(refused, 503)
        assert why.startswith(
            ("The agent cannot write durably", "The agent takes on no more tasks: the state directory")
        )
        assert refused.headers["retry-after"] == "5"
        assert agent.http.get("/healthz").status_code == 200
        assert agent.http.get("/readyz").status_code == 503
        fill.unlink()
        eventually(lambda: agent.post_task("unlucky", "#" * 500_000, "p.none").status_code == 202, "room again")
        assert dashboard.result("unlucky")["error"].startswith("no runner for 'p.none'")
        agent.wait_audited("task delivered", task_id="unlucky")
