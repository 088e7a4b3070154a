"""Measurement 2: durable accepts a second, without an engine, so that nothing but the accept path is measured.

Every cell has a fresh agent and an empty queue, and fills it with as many tasks as an agent's queue holds by default.
"""

import json
import os
import subprocess
import sys
from typing import Any, Final

from bench.problem import BenchError
from bench.stats import Row, median, quantile, verdict
from bench.workbench import Workbench, say
from bench.yardsticks import fdatasyncs_per_s, sqlite_commits_per_s

_SECTION: Final = "Durable accepts, keep-alive, engine absent"
_CONNECTIONS: Final = (1, 4, 16)
_TASKS: Final = 1000
_GOAL_PER_S: Final = 1000
_TIMEOUT_S: Final = 180.0
_SETTINGS: Final = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "AGP_MAX_QUEUED": "1000000"}


def measure(bench: Workbench, rounds: int) -> list[Row]:
    """Every number of connections in turn, then the yardsticks, and again."""
    cells: dict[int, list[dict[str, Any]]] = {connections: [] for connections in _CONNECTIONS}
    commits: list[float] = []
    syncs: list[float] = []
    for number in range(rounds):
        for connections, reports in cells.items():
            reports.append(_cell(bench, connections, f"accepts-{number}-{connections}"))
        commits.append(sqlite_commits_per_s(bench.folder))
        syncs.append(fdatasyncs_per_s(bench.folder))
        say(f"  round {number + 1} of {rounds}")
    rows = [row for connections, reports in cells.items() for row in _rows(connections, reports, commits)]
    return [
        *rows,
        Row(_SECTION, "yardstick: single SQLite commits (WAL, FULL)", "/s", tuple(commits)),
        Row(_SECTION, "yardstick: appends with fdatasync", "/s", tuple(syncs)),
    ]


def _cell(bench: Workbench, connections: int, name: str) -> dict[str, Any]:
    with bench.agent(name, None, _SETTINGS, ready=False) as agent:
        figures = {"port": agent.port, "agent-pid": agent.process.pid, "connections": connections, "tasks": _TASKS}
        arguments = [f"--{name}={value}" for name, value in figures.items()]
        # The token travels in the environment: AGP_TEST_ is nobody's setting.
        done = subprocess.run(
            [sys.executable, "-m", "bench.load", *arguments],
            env=os.environ | {"AGP_TEST_TOKEN": agent.token},
            stdout=subprocess.PIPE,
            check=False,
            timeout=_TIMEOUT_S,
            start_new_session=True,  # Ctrl-C is for the bench, which then ends it
        )
    if done.returncode:
        raise BenchError(f"The load generator ended with exit code {done.returncode}; what it wrote stands above.")
    report: dict[str, Any] = json.loads(done.stdout)
    if report["refused"]:
        raise BenchError(f"The agent refused {report['refused']} of {_TASKS} tasks; its figures would mean nothing.")
    return report


def _rows(connections: int, reports: list[dict[str, Any]], commits: list[float]) -> list[Row]:
    rates = tuple(report["rate"] for report in reports)
    latencies = tuple(latency for report in reports for latency in report["latencies_ms"])
    rate, p99_ms = median(rates), quantile(latencies, 0.99)
    who = f"{connections} connection{'s' if connections > 1 else ''}"
    ratio = f"{rate / median(commits):.2f} x single commits"
    cpu = "; ".join(
        f"{name} {median([report[key] for report in reports]):.0%}"
        for name, key in (("agent", "agent_cpu"), ("generator", "own_cpu"))
    )
    goal = verdict(f">= {_GOAL_PER_S}/s", met=rate >= _GOAL_PER_S) if connections == max(_CONNECTIONS) else ""
    return [
        Row(_SECTION, f"{who}: accepts", "/s", rates, ratio, goal),
        Row(_SECTION, f"{who}: latency", "ms", latencies, f"p99 {p99_ms:.1f} ms; CPU: {cpu}", digits=1),
    ]
