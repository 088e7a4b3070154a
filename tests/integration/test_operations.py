"""What operators do by hand, on a running agent: pause for maintenance, deliver again, give a result up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub, Reply
from support.waiting import eventually

REFUSED = Reply(400, b'{"detail":"no"}')


def done(agent: AgentProcess, path: str, status: int = 200) -> str:
    """What an operation answers."""
    answer = agent.request("POST", path)
    assert answer.status_code == status, answer.text
    return str(answer.json()["message"] if status < 300 else answer.json()["detail"])


def delivery_is(agent: AgentProcess, task_id: str, state: str) -> Callable[[], Any]:
    """Whether a task's delivery stands so."""
    return lambda: agent.request("GET", f"/tasks/{task_id}").json()["delivery"]["state"] == state


def test_a_paused_agent_takes_tasks_on_and_starts_none_also_after_a_restart(
    dashboard: DashboardStub, tmp_path: Path
) -> None:
    """What runs goes on; what comes waits; the trail names who asked."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token) as agent:
        assert done(agent, "/pause") == "Paused: tasks are taken on and wait"
        assert agent.http.get("/readyz").status_code == 503
        answer = agent.post_task("waits", "echo at last\n")
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        assert agent.stop() == 0
        agent.start(ready=False)
        eventually(lambda: agent.request("GET", "/status").json()["engine"], "the engine is found")
        found = agent.request("GET", "/status").json()
        assert (found["paused"], found["ready"], found["queue"]["queued"]) == (True, False, 1)
        assert agent.log_lines("task started") == []
        assert done(agent, "/resume") == "Tasks are started again"
        assert dashboard.result("waits")["output"] == "at last\n"
        assert agent.wait_audited("agent paused")["peer"] == "127.0.0.1"
        agent.wait_audited("agent resumed")
        agent.wait_ready()


def test_a_dead_letter_is_delivered_again_or_given_up(dashboard: DashboardStub, tmp_path: Path) -> None:
    """One by one or all; what is given up is forgotten, its id is free again, and the trail keeps that it was there."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token) as agent:
        for task_id in ("one", "two", "three"):
            dashboard.script(task_id, REFUSED)
            agent.accept_task(task_id, f"echo {task_id}\n")
            eventually(delivery_is(agent, task_id, "dead_letter"), "a dead letter")
        listed = agent.request("GET", "/tasks?delivery=dead_letter").json()["tasks"]
        assert [one["task_id"] for one in listed] == ["three", "two", "one"]

        assert done(agent, "/tasks/one/delivery/retry", 202) == "The result is being delivered"
        assert dashboard.acknowledged("one").result["output"] == "one\n"
        eventually(delivery_is(agent, "one", "acknowledged"), "acknowledged")
        assert "no task with this id whose result waits" in done(agent, "/tasks/one/delivery/retry", 404)

        assert done(agent, "/tasks/two/delivery/drop") == "The result is forgotten"
        assert agent.request("GET", "/tasks/two").status_code == 404
        assert agent.wait_audited("task dropped", task_id="two")["peer"] == "127.0.0.1"
        assert "whose result is a dead letter" in done(agent, "/tasks/two/delivery/drop", 404)
        assert "whose result is a dead letter" in done(agent, "/tasks/one/delivery/drop", 404)

        assert done(agent, "/outbox/retry", 202) == "1 dead letters are being delivered"
        assert dashboard.acknowledged("three").result["output"] == "three\n"
        agent.stop()
        agent.start()
        agent.accept_task("two", "echo again\n")
        assert dashboard.acknowledged("two").result["output"] == "again\n"


def test_operations_need_the_token_and_a_task(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Like everything else."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token) as agent:
        for path in ("/pause", "/resume", "/outbox/retry", "/tasks/x/delivery/retry", "/tasks/x/delivery/drop"):
            assert agent.http.post(path).status_code == 401
        for path in ("/tasks/x/delivery/retry", "/tasks/x/delivery/drop"):
            assert agent.request("POST", path).status_code == 404
