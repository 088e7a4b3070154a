"""Measurement 1: one task at a time, from the order to its result, of a script that only says ok."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench import peers
from bench.lanes import Lane, Script
from bench.page import SINGLE, STAGES
from bench.rivals import OUTPUT, SCRIPT, Lap, cli_lap, sdk_lap
from bench.stats import Row, median, paired_ratio, verdict
from bench.workbench import HAS_POOL, NO_POOL, RUNNER, Workbench, say
from support.dashboard_stub import DashboardStub

COLD: Final = "agent, cold"
WARM: Final = "agent, warm"
SDK: Final = "bare SDK loop"
CLI: Final = "docker run --rm"
_WARM_UP_ROUNDS: Final = 2
_GOAL_COLD: Final = 1.15
_GOAL_WARM: Final = 0.2
_GOAL_WARM_MS: Final = 80
_GOAL_OUTPUT_MS: Final = 10
_SETTLE_S: Final = 0.05
_SAY_EVERY: Final = 5
_ECHO: Final = Script("bench.sh", SCRIPT, OUTPUT)
Laps = dict[str, list[Lap]]


def measure(bench: Workbench, rounds: int) -> list[Row]:
    """Run all contenders in turn, one at a time, each beginning a round as often as the others."""
    with contextlib.ExitStack() as stack:
        lanes = _lanes(bench, stack, _ECHO)
        contenders: dict[str, Callable[[], Lap]] = {name: lane.lap for name, lane in lanes.items()}
        contenders |= {SDK: partial(sdk_lap, bench), CLI: partial(cli_lap, bench)}
        contenders |= stack.enter_context(peers.peers(bench, peers.RUNS, RUNNER))
        laps = run_in_turn(bench, contenders, rounds, list(lanes.values()))
    rows = [*_agent_rows(lanes, laps), *_rival_rows(laps)]
    return rows + [row for lane in lanes.values() for row in _stage_rows(lane)]


def _lanes(bench: Workbench, stack: contextlib.ExitStack, script: Script) -> dict[str, Lane]:
    """A cold agent, and a warm one where there is such a thing."""
    return {COLD: lane(bench, stack, script)} | ({WARM: lane(bench, stack, script, warm=True)} if HAS_POOL else {})


def lane(
    bench: Workbench, stack: contextlib.ExitStack, script: Script, *, warm: bool = False, runner: str = RUNNER
) -> Lane:
    """An agent for as long as ``stack`` lives; ``warm``: one container of ``runner`` waits, and none of the others."""
    dashboard = stack.enter_context(DashboardStub())
    settings = dict(NO_POOL)
    if warm:
        settings |= {"AGP_CATALOG": str(bench.warm_catalog(runner)), "AGP_AGENT_ID": bench.warm_id()}
    agent = stack.enter_context(bench.agent(f"{runner}-{'warm' if warm else 'cold'}", dashboard, settings))
    return Lane(bench, agent, dashboard, script, waiting=1 if warm else 0)


def run_in_turn(
    bench: Workbench,
    contenders: dict[str, Callable[[], Lap]],
    rounds: int,
    lanes: list[Lane],
    warm_up: int | None = None,
) -> Laps:
    """Every contender's laps, the first rounds left out."""
    laps: Laps = {name: [] for name in contenders}
    for number in range(-(_WARM_UP_ROUNDS if warm_up is None else warm_up), rounds):
        if number == 0:
            for one in lanes:
                one.forget()
        for name in _turn(list(contenders), number):
            lap = contenders[name]()
            if number >= 0:
                laps[name].append(lap)
            bench.wait_empty()
            for one in lanes:
                one.rest()
            time.sleep(_SETTLE_S)
        if number >= 0 and (number + 1) % _SAY_EVERY == 0:
            say(f"  round {number + 1} of {rounds}")
    return laps


def _turn(names: list[str], number: int) -> list[str]:
    """A B C, then B C A, then C A B: whoever suffers from its predecessor does so no more than the others."""
    shift = number % len(names)
    return names[shift:] + names[:shift]


def _agent_rows(lanes: dict[str, Lane], laps: Laps) -> list[Row]:
    result = {name: [lap.result_ms for lap in done] for name, done in laps.items()}
    to_sdk = paired_ratio(result[COLD], result[SDK])
    met = median(result[COLD]) <= _GOAL_COLD * median(result[SDK])
    beside = f"{to_sdk} x bare SDK; {paired_ratio(result[COLD], result[CLI])} x docker run"
    rows = [
        _row(f"{COLD}: POST to acknowledged", result[COLD], beside, verdict(f"<= {_GOAL_COLD} x bare SDK", met=met))
    ]
    if WARM in lanes:
        rows += _warm_rows(lanes[WARM], result)
    return [
        *rows,
        _row(f"{COLD}: POST to first live output", lanes[COLD].output_ms),
        _row("agent: POST to 202", [ms for lane in lanes.values() for ms in lane.answers_ms]),
    ]


def _warm_rows(lane: Lane, result: dict[str, list[float]]) -> list[Row]:
    ms, share = median(result[WARM]), median(result[WARM]) / median(result[CLI])
    goal = verdict(
        f"<= {_GOAL_WARM_MS} ms and <= {_GOAL_WARM} x docker run", met=ms <= _GOAL_WARM_MS and share <= _GOAL_WARM
    )
    beside = (
        f"{paired_ratio(result[WARM], result[CLI])} x docker run; {paired_ratio(result[WARM], result[COLD])} x cold"
    )
    met = median(lane.output_ms) <= _GOAL_OUTPUT_MS
    warm = sum(told.start == "warm" for told in lane.told)
    return [
        _row(f"{WARM}: POST to acknowledged", result[WARM], beside, goal),
        _row(
            f"{WARM}: POST to first live output",
            lane.output_ms,
            f"{warm} of {len(lane.told)} found a container waiting",
            verdict(f"<= {_GOAL_OUTPUT_MS} ms", met=met),
        ),
    ]


def _rival_rows(laps: Laps) -> list[Row]:
    result = {name: [lap.result_ms for lap in done] for name, done in laps.items()}
    rows = [
        _row(f"{name}: to its result", ms, f"{paired_ratio(ms, result[SDK])} x bare SDK")
        for name, ms in result.items()
        if name not in {COLD, WARM}
    ]
    gone = {name: [lap.gone_ms for lap in laps[name]] for name in (COLD, SDK)}
    beside = f"{paired_ratio(gone[COLD], gone[SDK])} x bare SDK"
    return [
        *rows,
        _row(f"{COLD}: until the container is gone", gone[COLD], beside),
        _row(f"{SDK}: until the container is gone", gone[SDK]),
    ]


def _stage_rows(lane: Lane) -> list[Row]:
    section = STAGES.format(start="warm" if lane.waiting else "cold")
    return [
        Row(section, stage, "ms", tuple(samples), digits=1) for stage, samples in lane.stages_ms().items() if samples
    ]


def _row(what: str, samples: list[float], ratio: str = "", goal: str = "") -> Row:
    return Row(SINGLE, what, "ms", tuple(samples), ratio, goal, digits=1)
