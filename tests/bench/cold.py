"""Measurement 1: from the order to its result, cold, of a script that only says ok."""

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.problem import BenchError
from bench.rivals import OUTPUT, SCRIPT, Lap, cli_lap, sdk_lap
from bench.stats import Row, median, paired_ratio, verdict
from bench.wire import Connection, task_request
from bench.workbench import Workbench, say
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub

_SECTION: Final = "POST to result at the dashboard, cold, `echo ok`"
_WARM_UP_ROUNDS: Final = 2
_GOAL: Final = 1.15
_SETTLE_S: Final = 0.05
_SAY_EVERY: Final = 5


def measure(bench: Workbench, rounds: int) -> list[Row]:
    """Run all contenders in turn, one at a time, each beginning a round as often as the others."""
    answers: list[float] = []
    with DashboardStub() as dashboard, bench.agent("cold", dashboard) as agent:
        contenders: dict[str, Callable[[], Lap]] = {
            "agent": partial(_agent_lap, bench, agent, dashboard, answers),
            "sdk": partial(sdk_lap, bench),
            "cli": partial(cli_lap, bench),
        }
        laps: dict[str, list[Lap]] = {name: [] for name in contenders}
        for number in range(-_WARM_UP_ROUNDS, rounds):
            for name in _turn(list(contenders), number):
                lap = contenders[name]()
                if number >= 0:
                    laps[name].append(lap)
                bench.wait_empty()
                time.sleep(_SETTLE_S)
            if number >= 0 and (number + 1) % _SAY_EVERY == 0:
                say(f"  round {number + 1} of {rounds}")
    return _rows(laps, answers[_WARM_UP_ROUNDS:])


def _turn(names: list[str], number: int) -> list[str]:
    """A B C, then B C A, then C A B: whoever suffers from its predecessor does so no more than the others."""
    shift = number % len(names)
    return names[shift:] + names[:shift]


def _agent_lap(bench: Workbench, agent: AgentProcess, dashboard: DashboardStub, answers: list[float]) -> Lap:
    task_id = secrets.token_hex(8)
    order = task_request(agent.token, task_id, SCRIPT)
    with Connection(agent.port) as connection:
        wall_s, begin_s = time.time(), time.monotonic()
        connection.order(order)
        answers.append((time.monotonic() - begin_s) * 1000)
        delivery = dashboard.acknowledged(task_id)
    bench.wait_empty()
    if (delivery.result["status"], delivery.result["output"]) != ("completed", OUTPUT):
        raise BenchError(f"The agent reported {delivery.result} for a script that says ok.")
    return Lap((delivery.at_s - begin_s) * 1000, (bench.removal_s(wall_s) - wall_s) * 1000)


def _rows(laps: dict[str, list[Lap]], answers: list[float]) -> list[Row]:
    result = {name: [lap.result_ms for lap in done] for name, done in laps.items()}
    gone = {name: [lap.gone_ms for lap in done] for name, done in laps.items()}
    to_sdk = paired_ratio(result["agent"], result["sdk"])
    to_cli = paired_ratio(result["agent"], result["cli"])
    gone_to_sdk = paired_ratio(gone["agent"], gone["sdk"])
    met = median(result["agent"]) <= _GOAL * median(result["sdk"])
    goal = verdict(f"<= {_GOAL} x bare SDK", met=met)
    return [
        _row("agent: POST to result", result["agent"], f"{to_sdk} x bare SDK; {to_cli} x docker run", goal),
        _row("agent: POST to 202", answers),
        _row("bare SDK loop: create to result", result["sdk"]),
        _row("docker run --rm: to its end", result["cli"], f"{paired_ratio(result['cli'], result['sdk'])} x bare SDK"),
        _row("agent: until the container is gone", gone["agent"], f"{gone_to_sdk} x bare SDK"),
        _row("bare SDK loop: until the container is gone", gone["sdk"]),
    ]


def _row(what: str, samples: list[float], ratio: str = "", goal: str = "") -> Row:
    return Row(_SECTION, what, "ms", tuple(samples), ratio, goal, digits=1)
