"""What an operator sees of a running agent and of one task, on the real engine."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent import __version__
from agp_agent.stages import BEFORE, Stage, Start
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub, Reply
from support.waiting import eventually


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent with places for everything."""
    with AgentProcess(folder, dashboard.url, dashboard.token, {"AGP_MAX_RUNNING": 4}) as process:
        yield process


def test_the_status_tells_engine_runners_places_and_head(agent: AgentProcess) -> None:
    """The engine's own name, and the digest of each runner's image that is on it."""
    status = agent.request("GET", "/status").json()
    assert (status["version"], status["ready"], status["problems"]) == (__version__, True, {})
    assert status["engine"]["version"]
    assert set(status["runners"]) == {"shell", "python", "ansible"}
    for runner in status["runners"].values():
        assert runner["image_digest"].startswith("sha256:")
    assert status["slots"] == {"max_running": 4, "free": 4}
    assert status["audit_head"].partition(":")[0].isdecimal()


def test_a_task_is_told_from_its_start_to_its_acknowledgement(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """While it runs, while its result is not taken, and when it is; by its alias too."""
    dashboard.script("watched", Reply(500, b"", {"Retry-After": "5"}))
    agent.accept_task("watched", "echo begun; sleep 2; exit 3")
    path = f"/tasks/~{hashlib.sha256(b'watched').hexdigest()}"
    running = eventually(lambda: _in_state(agent, path, "running"), "it runs")
    assert (running["status"], running["exit_code"], running["delivery"]["state"]) == ("running", None, "pending")
    digest = agent.request("GET", "/status").json()["runners"]["shell"]["image_digest"]
    assert (running["image_digest"], running["runner"]) == (digest, "shell")
    assert running["container_id"] in [container.id for container in agent.engine.containers(agent.instance)]
    waiting = eventually(lambda: _delivered(agent, path, attempts=1), "it was not taken once")
    assert waiting["delivery"]["last_error"] == "the dashboard answered 500"
    assert waiting["delivery"]["next_attempt_at"] is not None
    dashboard.acknowledged("watched")
    ended = eventually(lambda: _delivered(agent, path, attempts=2), "it was taken")
    assert (ended["status"], ended["outcome"], ended["exit_code"], ended["error"]) == (
        *("failed", "failed", 3, "exit code 3"),
    )
    assert (ended["output_bytes"], ended["output_omitted_bytes"]) == (6, 0)
    assert ended["delivery"]["state"] == "acknowledged"
    assert ended["accepted_at"] < ended["started_at"] < ended["finished_at"] < ended["delivery"]["acknowledged_at"]


def test_the_metrics_tell_of_a_task(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Behind the token: its outcome, how its container started, and every stage once."""
    assert agent.http.get("/metrics").status_code == 401
    before = _metrics(agent)
    agent.accept_task("measured", "echo ok")
    dashboard.acknowledged("measured")

    def told() -> bool:
        after = _metrics(agent)
        more = {
            start: {
                stage for stage in Stage if after.get(_stage(stage, start), 0) > before.get(_stage(stage, start), 0)
            }
            for start in Start
        }
        return any(more[start] == set(BEFORE[start]) for start in Start)

    eventually(told, "every stage was told, of a cold run or of a warm one")
    name = 'agp_tasks_finished_total{outcome="succeeded",reason="exit_code"}'
    assert _metrics(agent)[name] == before[name] + 1
    assert _metrics(agent)['agp_tasks{state="running"}'] == 0


def _stage(stage: Stage, start: Start) -> str:
    return f'agp_task_stage_seconds_count{{stage="{stage}",start="{start}"}}'


def _metrics(agent: AgentProcess) -> dict[str, float]:
    answer = agent.request("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = (line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def _in_state(agent: AgentProcess, path: str, state: str) -> dict[str, Any]:
    task = agent.request("GET", path).json()
    return task if task["state"] == state else {}


def _delivered(agent: AgentProcess, path: str, *, attempts: int) -> dict[str, Any]:
    task = agent.request("GET", path).json()
    return task if task["delivery"]["attempts"] == attempts else {}
