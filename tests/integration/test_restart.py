"""A new agent on the same state directory continues where the one before it was stopped or killed."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub, Reply
from support.playbooks import WAITED, WAITING
from support.waiting import eventually


@pytest.fixture
def start(dashboard: DashboardStub, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Start agents; after a test that passed, nothing of any of them may be left."""
    agents: list[AgentProcess] = []

    def start(name: str = "agent", **settings: object) -> AgentProcess:
        agent = AgentProcess(tmp_path / name, dashboard.url, dashboard.token, settings)
        agents.append(agent)
        return agent.start()

    yield start
    ends = [agent.close() for agent in agents]
    assert ends == [(0, [])] * len(ends)


Start = Callable[..., AgentProcess]
STOPS = {"TERM": AgentProcess.stop, "KILL": AgentProcess.kill}


def _events(agent: AgentProcess, event: str, task_id: str) -> int:
    lines = map(json.loads, agent.log_text().splitlines())
    return len([line for line in lines if line["event"] == event and line.get("task_id") == task_id])


def test_sigterm_lets_running_tasks_end(start: Start, dashboard: DashboardStub) -> None:
    """New tasks are refused with 503, what waits stays for the next agent, and the exit code is 0."""
    agent = start(AGP_MAX_RUNNING=1)
    agent.accept_task("drained", WAITING)
    container = agent.container_of("drained")
    agent.accept_task("left waiting", "echo later")
    agent.signal(signal.SIGTERM)
    agent.wait_log("stopping: no new tasks; a second signal ends at once")
    eventually(lambda: agent.http.get("/readyz").status_code == 503, "not ready")
    refused = agent.post_task("refused", "echo")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    detail = "The agent is stopping and takes on no more tasks; send the task again later."
    assert refused.json() == {"detail": detail}
    assert agent.http.get("/healthz").status_code == 200
    agent.engine.let_go(container)
    assert agent.wait() == 0
    (delivery,) = dashboard.deliveries("drained")
    assert delivery.result == {"task_id": "drained", **WAITED}
    assert agent.leftovers() == []
    assert dashboard.deliveries("left waiting") == []
    agent.start()
    assert dashboard.result("left waiting")["output"] == "later\n"
    assert dashboard.deliveries("refused") == []


def test_sigterm_leaves_what_does_not_end_in_time_to_the_next_agent(start: Start, dashboard: DashboardStub) -> None:
    """The drain has an end; the container runs on and is adopted."""
    agent = start(AGP_DRAIN_TIMEOUT_S="0.2")
    agent.accept_task("long", WAITING)
    container = agent.container_of("long")
    agent.engine.wait_printed(container, b"before")
    assert agent.stop() == 0
    assert agent.engine.inspect(container)["State"]["Running"]
    agent.start()
    agent.wait_audited("task adopted", task_id="long")
    agent.engine.let_go(container)
    assert dashboard.result("long") == {"task_id": "long", **WAITED}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(start: Start, dashboard: DashboardStub, second: signal.Signals) -> None:
    """Whoever has no patience is obeyed; exit code 0, and the container is left running."""
    agent = start(AGP_DRAIN_TIMEOUT_S="3600")
    agent.accept_task("impatient", WAITING)
    container = agent.container_of("impatient")
    agent.signal(signal.SIGTERM)
    agent.wait_log("stopping: no new tasks; a second signal ends at once")
    agent.signal(second)
    assert agent.wait() == 0
    assert agent.engine.inspect(container)["State"]["Running"]
    agent.start()
    agent.engine.let_go(agent.container_of("impatient"))
    number = len([1 for one in dashboard.deliveries("impatient") if one.reply.acknowledges])
    assert dashboard.acknowledged("impatient", number=number + 1).result == {"task_id": "impatient", **WAITED}


@pytest.mark.parametrize("how", STOPS)
def test_queued_tasks_run_after_a_restart(start: Start, dashboard: DashboardStub, how: str) -> None:
    """Every 202 is kept, and so is the order."""
    agent = start(AGP_MAX_RUNNING=1, AGP_DRAIN_TIMEOUT_S="0")
    agent.accept_task(f"holder {how}", WAITING)
    container = agent.container_of(f"holder {how}")
    waiting = [f"waiting {how} {number}" for number in range(4)]
    for task_id in waiting:
        agent.accept_task(task_id, "echo ran")
    STOPS[how](agent)
    agent.start()
    agent.engine.let_go(container)
    for task_id in waiting:
        assert dashboard.result(task_id) == {
            "task_id": task_id,
            "status": "completed",
            "output": "ran\n",
            "error": None,
        }
    assert dashboard.result(f"holder {how}") == {"task_id": f"holder {how}", **WAITED}
    started = [line["task_id"] for line in agent.audit("task started")]
    assert [task_id for task_id in started if task_id in waiting] == waiting


def test_a_task_whose_agent_is_killed_at_any_moment_runs_once(start: Start, dashboard: DashboardStub) -> None:
    """The kill comes a little later each time: while it is queued, prepared, released, running or just over."""
    agent = start()
    delays_ms = [0, 10, 30, 60, 100, 150, 220, 300]
    for delay_ms in delays_ms:
        task_id = f"killed after {delay_ms} ms"
        agent.accept_task(task_id, "echo begin; sleep 0.1; echo end; exit 3")
        time.sleep(delay_ms / 1000)
        agent.kill()
        agent.start()
    for delay_ms in delays_ms:
        task_id = f"killed after {delay_ms} ms"
        assert dashboard.result(task_id) == {
            "task_id": task_id,
            "status": "failed",
            "output": "begin\nend\n",
            "error": "exit code 3",
        }
        assert len({one.headers["idempotency-key"] for one in dashboard.deliveries(task_id)}) == 1
    eventually(lambda: agent.engine.containers(agent.instance) == [], "containers removed")
    agent.audit_heads()


def test_a_running_task_is_adopted_with_its_whole_output(start: Start, dashboard: DashboardStub) -> None:
    """What it printed before, while nobody listened, and after: every byte, and the exact exit code."""
    agent = start()
    script = (
        "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\nseq 20000; touch /work/gone\n"
        "until [ -e /work/go2 ]; do sleep 0.05; done\nprintf '\\303'; sleep 0.2; printf '\\251\\n'; exit 9\n"
    )
    agent.accept_task("adopted", script)
    container = agent.container_of("adopted")
    agent.engine.wait_printed(container, b"before\n")
    agent.kill()
    agent.engine.let_go(container)
    agent.engine.wait_printed(container, b"20000\n")
    agent.start()
    agent.wait_audited("task adopted", task_id="adopted")
    assert agent.post_task("adopted", script).status_code == 409
    agent.engine.let_go(container, "/work/go2")
    numbers = "".join(f"{number}\n" for number in range(1, 20001))
    assert dashboard.result("adopted") == {
        "task_id": "adopted",
        "status": "failed",
        "output": f"before\n{numbers}é\n",
        "error": "exit code 9",
    }
    assert _events(agent, "task started", "adopted") == 1


def test_an_adopted_task_can_be_cancelled_and_times_out(start: Start, dashboard: DashboardStub) -> None:
    """The next agent has the same power over it; its time counts from its real start."""
    agent = start(AGP_TASK_TIMEOUT_S="4")
    agent.accept_task("cancelled later", "echo begin; sleep 600")
    agent.accept_task("out of time", "echo begin; sleep 600")
    for task_id in ("cancelled later", "out of time"):
        agent.engine.wait_printed(agent.container_of(task_id), b"begin")
    agent.kill()
    agent.start()
    agent.wait_audited("task adopted", task_id="cancelled later")
    assert agent.cancel("cancelled%20later").status_code == 202
    assert {dashboard.result("cancelled later")["error"]} <= {"cancelled", "timed out after 4 s"}
    assert dashboard.result("out of time") == {
        "task_id": "out of time",
        "status": "failed",
        "output": "begin\n",
        "error": "timed out after 4 s",
    }


def test_a_task_that_ended_while_no_agent_was_there_is_reported(start: Start, dashboard: DashboardStub) -> None:
    """Its exit code and its whole output are still to be had."""
    agent = start()
    agent.accept_task("unseen end", WAITING)
    agent.accept_task("killed unseen", WAITING)
    ended, killed = agent.container_of("unseen end"), agent.container_of("killed unseen")
    agent.engine.wait_printed(ended, b"before")
    agent.engine.wait_printed(killed, b"before")
    agent.kill()
    agent.engine.let_go(ended)
    agent.engine.client.api.kill(killed)
    agent.engine.wait_ended(ended)
    agent.engine.wait_ended(killed)
    agent.start()
    assert dashboard.result("unseen end") == {"task_id": "unseen end", **WAITED}
    result = dashboard.result("killed unseen")
    assert (result["output"], result["error"]) == ("before\n", "killed from outside")


def test_a_container_that_vanished_while_no_agent_was_there_is_lost(start: Start, dashboard: DashboardStub) -> None:
    """It is said, and never run again by guess."""
    agent = start()
    agent.accept_task("vanished", WAITING)
    container = agent.container_of("vanished")
    agent.engine.wait_printed(container, b"before")
    agent.kill()
    agent.engine.client.api.remove_container(container, force=True)
    agent.start()
    result = dashboard.result("vanished")
    assert (result["status"], result["error"]) == ("failed", "lost: its container is gone, and nobody saw how it ended")
    agent.wait_audited("task lost", task_id="vanished")
    assert _events(agent, "task started", "vanished") == 1


@pytest.mark.parametrize("how", STOPS)
def test_a_finished_result_is_delivered_after_a_restart(start: Start, dashboard: DashboardStub, how: str) -> None:
    """With the same key and the same bytes; the container was removed before."""
    agent, task_id = start(AGP_DRAIN_TIMEOUT_S="0"), f"undelivered {how}"
    dashboard.script(task_id, *[Reply(503, b"")] * 2)
    agent.accept_task(task_id, "echo result; exit 4")
    container = agent.container_of(task_id)
    dashboard.wait_deliveries(task_id, 1)
    agent.engine.wait_removed(container)
    STOPS[how](agent)
    agent.start()
    delivery = dashboard.acknowledged(task_id)
    assert delivery.result == {"task_id": task_id, "status": "failed", "output": "result\n", "error": "exit code 4"}
    deliveries = dashboard.deliveries(task_id)
    assert len({(one.headers["idempotency-key"], one.body) for one in deliveries}) == 1
    heads = agent.audit_heads()
    for one in deliveries:  # also what was anchored before the kill stands in the trail
        number, _, sha256 = one.headers["agp-audit-head"].partition(":")
        assert heads[int(number)] == sha256


def test_an_idempotency_key_outlives_the_agent(start: Start, dashboard: DashboardStub) -> None:
    """A sender whose first 202 got lost in the kill asks again, and nothing runs twice."""
    agent, key = start(), {"Idempotency-Key": "k-1"}
    first = agent.post_task("kept key", "echo ran", headers=key)
    agent.kill()
    agent.start()
    assert agent.post_task("kept key", "echo ran", headers=key).content == first.content
    assert dashboard.result("kept key")["output"] == "ran\n"
    agent.wait_audited("task delivered", task_id="kept key")
    assert agent.post_task("kept key", "echo ran", headers=key).content == first.content
    assert _events(agent, "task accepted", "kept key") == 1


def test_dead_letters_are_told_of_at_every_start(start: Start, dashboard: DashboardStub) -> None:
    """They are kept, and somebody has to look at them."""
    agent = start()
    dashboard.script("refused by the dashboard", Reply(422, b""))
    agent.accept_task("refused by the dashboard", "echo result")
    agent.wait_audited("task dead-lettered", task_id="refused by the dashboard")
    assert agent.audit("dead letters kept") == []
    agent.kill()
    agent.start()
    assert agent.wait_log("dead letters kept")["dead_letters"] == 1


TOLD = """\
- hosts: all
  gather_facts: false
  tasks:
  - {name: Fail early, fail: {msg: ignored}, ignore_errors: true}
  - {name: Wait, pause: {seconds: 6}}
  - {name: Render the config, fail: {msg: no template}}
"""


@pytest.mark.parametrize("how", STOPS)
def test_what_ansible_told_without_an_agent_is_told_all_the_same(
    start: Start, dashboard: DashboardStub, how: str
) -> None:
    """The next agent takes failures and recap from the engine's record, as it does with the output."""
    agent, task_id = start(AGP_DRAIN_TIMEOUT_S="0"), f"told-{how}"
    agent.accept_task(task_id, TOLD, "site.yml")
    eventually(lambda: "TASK [Wait]" in agent.request("GET", f"/tasks/{task_id}/logs").text, "it has begun")
    STOPS[how](agent)
    time.sleep(8)
    agent.start()
    why = 'exit code 2: task "Render the config" failed on localhost: no template'
    assert dashboard.acknowledged(task_id).result["error"] == why
    (recap,) = agent.request("GET", f"/tasks/{task_id}").json()["recap"]
    assert (recap["ok"], recap["failed"], recap["ignored"]) == (2, 1, 1)
