"""Measurement 5: much output: a gigabyte from one task, and fifty tasks that print at full speed at once."""

import subprocess
import time
from pathlib import Path
from typing import Final

from bench import crowd
from bench.problem import BenchError
from bench.process import footprint, peak_mb, reset_peak
from bench.rivals import flags
from bench.stats import Row, median, paired_ratio, quantile, verdict
from bench.workbench import NO_POOL, Workbench, say
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub

_SECTION: Final = "Much output"
_BYTES: Final = 10**9
_GOAL_MIB: Final = 64
_GOAL_RATE: Final = 0.8
_PRINTERS: Final = 50
_EACH_BYTES: Final = 10 * 10**6
_TIMEOUT_S: Final = 300.0
_LINE: Final = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"


def _script(size: int) -> str:
    return f"yes {_LINE} | head -c {size}\n"


def measure(bench: Workbench, rounds: int, share: float = 1.0) -> list[Row]:
    """The gigabyte beside docker run, then the fifty. ``share`` of all that: to try the bench itself."""
    size = round(_BYTES * share)
    much = f"{size / 1e9:g} GB"
    settings = {"AGP_MAX_RUNNING": str(_PRINTERS), "AGP_CATALOG": str(bench.small_catalog()), **NO_POOL}
    agents: list[float] = []
    rivals: list[float] = []
    grown: list[float] = []
    with DashboardStub() as dashboard, bench.agent("output", dashboard, settings) as agent:
        for number in range(rounds):
            idle_mb = footprint(agent.process.pid).resident_mb
            reset_peak(agent.process.pid)
            task_ids, begin_s = crowd.new_ids(1), time.monotonic()
            crowd.send(agent, task_ids, _script(size))
            agents.append(size / 1e6 / (crowd.acknowledged(dashboard, task_ids) - begin_s))
            grown.append((peak_mb(agent.process.pid) - idle_mb) * 1e6 / 2**20)
            bench.wait_empty()
            rivals.append(_to_a_file(bench, size))
            say(f"  {much}, round {number + 1} of {rounds}")
        crowded = _fifty(bench, dashboard, agent, round(_EACH_BYTES * share))
    met = median(agents) >= _GOAL_RATE * median(rivals)
    beside = f"{paired_ratio(agents, rivals)} x docker run"
    return [
        Row(
            *(_SECTION, f"{much} from one task: POST to acknowledged", "MB/s", tuple(agents), beside),
            verdict(f">= {_GOAL_RATE} x docker run", met=met),
        ),
        Row(_SECTION, f"{much} by docker run, printed to a file", "MB/s", tuple(rivals)),
        Row(
            *(_SECTION, f"{much} from one task: peak of the agent's memory above idle", "MiB", tuple(grown), ""),
            verdict(f"<= {_GOAL_MIB} MiB", met=median(grown) <= _GOAL_MIB),
        ),
        *crowded,
    ]


def _to_a_file(bench: Workbench, size: int) -> float:
    """Same image, same lockdown, same log driver."""
    spec = bench.slot(bench.plan(), _script(size))
    file: Path = bench.folder / "printed"
    begin_s = time.monotonic()
    with file.open("wb") as out:
        command = ["docker", "run", "--rm", *flags(bench, spec)]
        done = subprocess.run(command, stdout=out, stdin=subprocess.DEVNULL, check=False, timeout=_TIMEOUT_S)
    taken_s = time.monotonic() - begin_s
    printed = file.stat().st_size
    file.unlink()
    if done.returncode or printed != size:
        raise BenchError(f"docker run ended with {done.returncode} and printed {printed} bytes.")
    return size / 1e6 / taken_s


def _fifty(bench: Workbench, dashboard: DashboardStub, agent: AgentProcess, size: int) -> list[Row]:
    pid = agent.process.pid
    idle_mb = footprint(pid).resident_mb
    reset_peak(pid)
    task_ids, begin_s = crowd.new_ids(_PRINTERS), time.monotonic()
    with crowd.Heartbeats(agent) as beats:
        crowd.send(agent, task_ids, _script(size))
        taken_s = crowd.acknowledged(dashboard, task_ids) - begin_s
    grown_mib = (peak_mb(pid) - idle_mb) * 1e6 / 2**20
    bench.wait_empty()
    what = f"{_PRINTERS} tasks that print {size / 1e6:g} MB each at once"
    p99 = f"p99 {quantile(beats.samples_ms, 0.99):.0f} ms"
    return [
        Row(_SECTION, f"{what}, starts and ends included", "MB/s", (_PRINTERS * size / 1e6 / taken_s,)),
        Row(_SECTION, f"{what}: peak of the agent's memory above idle", "MiB", (grown_mib,)),
        Row(_SECTION, f"{what}: a heartbeat's answer meanwhile", "ms", tuple(beats.samples_ms), p99, digits=1),
    ]
