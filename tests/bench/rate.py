"""Measurement 3: whole tasks a second, cold beside the bare SDK loop, and a burst into waiting containers."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from docker import APIClient
from docker.utils import kwargs_from_env

from bench import crowd
from bench.rivals import SCRIPT, sdk_lap
from bench.stats import Row, median, paired_ratio, verdict
from bench.workbench import HAS_POOL, NO_POOL, Workbench, say
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

_SECTION: Final = "Whole tasks a second, `echo ok`"
_AT_ONCE: Final = (8, 16)
_TASKS: Final = 48
_BURST: Final = 40
_GOAL: Final = 0.95
_GOAL_BURST: Final = 40


def measure(bench: Workbench, rounds: int) -> list[Row]:
    """Each number at once in turn, the agent and the SDK loop beside each other; then the bursts."""
    rows: list[Row] = []
    for at_once in _AT_ONCE:
        rows += _sustained(bench, at_once, rounds)
    return rows + (_bursts(bench, rounds) if HAS_POOL else [])


def _sustained(bench: Workbench, at_once: int, rounds: int) -> list[Row]:
    agents: list[float] = []
    loops: list[float] = []
    settings = {"AGP_MAX_RUNNING": str(at_once), "AGP_CATALOG": str(bench.small_catalog()), **NO_POOL}
    with DashboardStub() as dashboard, bench.agent(f"rate-{at_once}", dashboard, settings) as agent:
        for number in range(rounds):
            pair = [lambda: agents.append(_agent(bench, agent, dashboard)), lambda: loops.append(_loop(bench, at_once))]
            for contender in pair if number % 2 else pair[::-1]:
                contender()  # type: ignore[no-untyped-call]  # untyped in the stubs
            say(f"  {at_once} at once, round {number + 1} of {rounds}")
    met = median(agents) >= _GOAL * median(loops)
    beside = f"{paired_ratio(agents, loops)} x bare SDK loop"
    goal = verdict(f">= {_GOAL} x bare SDK", met=met)
    return [
        Row(_SECTION, f"agent, cold, {at_once} at once, {_TASKS} tasks", "/s", tuple(agents), beside, goal, digits=1),
        Row(_SECTION, f"bare SDK loop, {at_once} threads, {_TASKS} tasks", "/s", tuple(loops), digits=1),
    ]


def _agent(bench: Workbench, agent: AgentProcess, dashboard: DashboardStub) -> float:
    """From the first order until every result is at the dashboard and every container is gone."""
    task_ids, begin_s = crowd.new_ids(_TASKS), time.monotonic()
    crowd.send(agent, task_ids, SCRIPT)
    crowd.acknowledged(dashboard, task_ids)
    bench.wait_empty()
    return _TASKS / (time.monotonic() - begin_s)


def _loop(bench: Workbench, threads: int) -> float:
    """The same without an agent: every thread has a client, and takes the next when its last is done."""
    clients = [APIClient(version="auto", **kwargs_from_env()) for _ in range(threads)]
    free = list(clients)

    def lap(_number: int) -> None:
        client = free.pop()
        sdk_lap(bench, client)
        free.append(client)

    begin_s = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lap, range(_TASKS)))
    taken_s = time.monotonic() - begin_s
    for client in clients:
        client.close()
    return _TASKS / taken_s


def _bursts(bench: Workbench, rounds: int) -> list[Row]:
    """So many at once as containers wait; the agent refills meanwhile, as it does."""
    rates: list[float] = []
    catalog = bench.small_catalog(warm=_BURST)
    settings = {"AGP_MAX_RUNNING": str(_BURST), "AGP_CATALOG": str(catalog), "AGP_AGENT_ID": bench.warm_id(), **NO_POOL}
    with DashboardStub() as dashboard, bench.agent("burst", dashboard, settings) as agent:
        for number in range(rounds):
            eventually(lambda: _waiting(bench) == _BURST, f"{_BURST} containers waiting")
            task_ids, begin_s = crowd.new_ids(_BURST), time.monotonic()
            crowd.send(agent, task_ids, SCRIPT)
            rates.append(_BURST / (crowd.acknowledged(dashboard, task_ids) - begin_s))
            say(f"  burst {number + 1} of {rounds}")
    goal = verdict(f">= {_GOAL_BURST}/s", met=median(rates) >= _GOAL_BURST)
    return [Row(_SECTION, f"agent, warm, a burst of {_BURST}", "/s", tuple(rates), "", goal, digits=1)]


def _waiting(bench: Workbench) -> int:
    """How many run where nothing is on its way; 0 while one is being made or removed."""
    there, running = bench.containers(bench.warm_id()), bench.containers(bench.warm_id(), running=True)
    return len(running) if len(there) == len(running) else 0
