"""Measurement 7: does anything grow with the number of tasks that run, that wait, or that have ended?

At every load the same is looked at: how long accepts take, one at a time, and what the agent holds.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from bench import crowd
from bench.journal_of import add_finished
from bench.process import footprint
from bench.stats import Row, quantile
from bench.wire import Connection, named_request
from bench.workbench import NO_POOL, PARKED, Workbench, say
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

_RUNNING: Final = "Scale: tasks running at once"
_QUEUED: Final = "Scale: tasks in the queue"
_FINISHED: Final = "Scale: finished tasks in the journal"
_LOADS: Final = {_RUNNING: (0, 50, 100, 200), _QUEUED: (0, 1000, 10_000), _FINISHED: (1, 10_000, 100_000)}
_ACCEPTS: Final = 100
_SETTLE_S: Final = 2.0
_SLEEP: Final = "exec sleep 600\n"
_ABSENT: Final = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "AGP_MAX_QUEUED": "1000000"}
_PATIENCE_S: Final = 180.0


def measure(bench: Workbench, share: float) -> list[Row]:
    """All three. ``share`` (0 to 1) makes every load smaller, to try the bench itself."""
    loads = {section: tuple(round(load * share) or load % 2 for load in levels) for section, levels in _LOADS.items()}
    return [
        *_running(bench, loads[_RUNNING]),
        *_queued(bench, loads[_QUEUED]),
        *_finished(bench, loads[_FINISHED]),
    ]


def _running(bench: Workbench, loads: tuple[int, ...]) -> list[Row]:
    """Tasks that sleep; accepted beside them are tasks of a runner whose only place is taken: they wait."""
    rows: list[Row] = []
    settings = {"AGP_MAX_RUNNING": str(max(loads) + 1), "AGP_CATALOG": str(bench.small_catalog()), **NO_POOL}
    with DashboardStub() as dashboard, bench.agent("scale-running", dashboard, settings) as agent:
        sleeping = crowd.new_ids(1)
        crowd.send(agent, sleeping, _SLEEP, f"bench{PARKED}")
        parked: list[str] = []
        for load in loads:
            more = crowd.new_ids(load - (len(sleeping) - 1))
            crowd.send(agent, more, _SLEEP)
            sleeping += more
            there = len(sleeping)
            eventually(
                lambda there=there: len(bench.containers(running=True)) == there,  # type: ignore[misc]  # a default
                f"{there} running containers",
                patience_s=_PATIENCE_S,
            )
            rows += _rows(_RUNNING, load, agent, parked)
            say(f"  {load} running")
        crowd.cancel(agent, parked + sleeping)
        crowd.acknowledged(dashboard, parked + sleeping, "failed")
        bench.wait_empty()
    return rows


def _queued(bench: Workbench, loads: tuple[int, ...]) -> list[Row]:
    """Without an engine, so that nothing leaves the queue."""
    rows: list[Row] = []
    with bench.agent("scale-queued", None, _ABSENT, ready=False) as agent:
        there = 0
        for load in loads:
            if load > there:
                fill(agent, load - there, f"fill-{load}")
            parked: list[str] = []
            rows += _rows(_QUEUED, load, agent, parked)
            there = load + len(parked)
            say(f"  {load:,} queued")
    return rows


def fill(agent: AgentProcess, tasks: int, prefix: str) -> dict[str, Any]:
    """Send so many tasks as fast as the agent takes them."""
    figures = {"port": agent.port, "agent-pid": agent.process.pid, "connections": 16, "tasks": tasks, "prefix": prefix}
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", *(f"--{name}={value}" for name, value in figures.items())],
        env=os.environ | {"AGP_TEST_TOKEN": agent.token},
        stdout=subprocess.PIPE,
        check=True,
        timeout=_PATIENCE_S,
        start_new_session=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _finished(bench: Workbench, loads: tuple[int, ...]) -> list[Row]:
    """One task that ran for real; its copies are put into the journal while the agent is stopped."""
    rows: list[Row] = []
    with DashboardStub() as dashboard, bench.agent("scale-finished", dashboard, dict(NO_POOL)) as agent:
        task_ids = crowd.new_ids(1)
        crowd.send(agent, task_ids, "echo ok\n")
        crowd.acknowledged(dashboard, task_ids)
        bench.wait_empty()
        agent.stop()
        there = 1
        agent.environment |= _ABSENT  # what is accepted from here on waits, and is taken away with the folder
        for load in loads:
            if load > there:
                add_finished(agent.state / "journal.db", load - there)
            begin_s = time.monotonic()
            agent.start(ready=False)
            start = Row(
                *(_FINISHED, f"{load:,}: serve to listening", "s", (time.monotonic() - begin_s,)),
                digits=2,
                of="serve to listening",
                at=load,
            )
            there = load
            rows += [*_rows(_FINISHED, load, agent, []), start]
            agent.stop()
            say(f"  {load:,} finished")
        agent.start(ready=False)  # whoever closes it expects it to run
    return rows


def _rows(section: str, load: int, agent: AgentProcess, parked: list[str]) -> list[Row]:
    """Accept tasks one after the other, add them to ``parked``, then look at the agent after a moment of rest."""
    task_ids, latencies_ms = crowd.new_ids(_ACCEPTS), []
    with Connection(agent.port) as connection:
        for task_id in task_ids:
            order = named_request(agent.token, task_id, f"bench{PARKED if section == _RUNNING else '.sh'}", _SLEEP)
            begin_s = time.perf_counter()
            connection.order(order)
            latencies_ms.append((time.perf_counter() - begin_s) * 1000)
    parked += task_ids
    time.sleep(_SETTLE_S)
    held = footprint(agent.process.pid)

    def row(of: str, unit: str, samples: tuple[float, ...], digits: int = 0) -> Row:
        return Row(section, f"{load:,}: {of}", unit, samples, digits=digits, of=of, at=load)

    return [
        row("accept, median", "ms", tuple(latencies_ms), 1),
        row("accept, p99", "ms", (quantile(latencies_ms, 0.99),), 1),
        row("resident memory", "MB", (held.resident_mb,), 1),
        row("threads", "", (float(held.threads),)),
        row("open files", "", (float(held.files),)),
    ]
