"""Measurement 3: what the agent holds, idle and with 50 tasks running."""

import secrets
import time
from typing import Final

from bench.process import Footprint, footprint
from bench.stats import Row, median, verdict
from bench.wire import Connection, request, task_request
from bench.workbench import NO_POOL, Workbench, say
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

_SECTION: Final = "What the agent holds"
_TASKS: Final = 50
_GOAL_MB: Final = 80.0
_GOAL_EACH_MB: Final = 0.3
_SETTLE_S: Final = 2.0
_SAMPLES: Final = 5
_SAMPLE_EVERY_S: Final = 0.4
_SCRIPT: Final = "exec sleep 600\n"


def measure(bench: Workbench) -> list[Row]:
    """One agent: as it starts, with all tasks running, and after they were cancelled."""
    settings = {"AGP_MAX_RUNNING": str(_TASKS), "AGP_CATALOG": str(bench.small_catalog())} | dict(NO_POOL)
    with DashboardStub() as dashboard, bench.agent("memory", dashboard, settings) as agent:
        idle = _samples(agent)
        say(f"  starting {_TASKS} tasks that sleep")
        task_ids = [secrets.token_hex(8) for _ in range(_TASKS)]
        _order(agent, task_ids)
        eventually(lambda: len(bench.containers(running=True)) == _TASKS, f"{_TASKS} running containers")
        busy = _samples(agent)
        say("  cancelling them")
        _cancel(agent, task_ids)
        for task_id in task_ids:
            dashboard.acknowledged(task_id)
        bench.wait_empty()
        after = _samples(agent)
    return [
        *_rows("idle", idle, goal=True),
        *_rows(f"{_TASKS} running", busy),
        _each(idle, busy),
        *_rows("idle again", after),
    ]


def _each(idle: list[Footprint], busy: list[Footprint]) -> Row:
    before_mb = median([sample.resident_mb for sample in idle])
    each = tuple((sample.resident_mb - before_mb) / _TASKS for sample in busy)
    said = verdict(f"<= {_GOAL_EACH_MB} MB", met=median(each) <= _GOAL_EACH_MB)
    return Row(_SECTION, "each running task: resident memory more", "MB", each, "", said, digits=2)


def _order(agent: AgentProcess, task_ids: list[str]) -> None:
    with Connection(agent.port) as connection:
        for task_id in task_ids:
            connection.order(task_request(agent.token, task_id, _SCRIPT))


def _cancel(agent: AgentProcess, task_ids: list[str]) -> None:
    with Connection(agent.port) as connection:
        for task_id in task_ids:
            connection.order(request("POST", f"/tasks/{task_id}/cancel", agent.token))


def _samples(agent: AgentProcess) -> list[Footprint]:
    """Look a few times, after a moment of rest."""
    time.sleep(_SETTLE_S)
    samples = []
    for _ in range(_SAMPLES):
        samples.append(footprint(agent.process.pid))
        time.sleep(_SAMPLE_EVERY_S)
    return samples


def _rows(when: str, samples: list[Footprint], *, goal: bool = False) -> list[Row]:
    resident = tuple(sample.resident_mb for sample in samples)
    said = verdict(f"<= {_GOAL_MB:.0f} MB", met=median(resident) <= _GOAL_MB) if goal else ""
    return [
        Row(_SECTION, f"{when}: resident memory", "MB", resident, "", said, digits=1),
        Row(_SECTION, f"{when}: threads", "", tuple(float(sample.threads) for sample in samples)),
        Row(_SECTION, f"{when}: open files", "", tuple(float(sample.files) for sample in samples)),
    ]
