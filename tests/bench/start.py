"""Measurement 6: from the command to an agent that is ready."""

import time
from typing import Final

from bench.stats import Row, median, verdict
from bench.workbench import NO_POOL, Workbench

_SECTION: Final = "Start of the agent"
_GOAL_S: Final = 1.5


def measure(bench: Workbench, rounds: int) -> list[Row]:
    """On a fresh state directory, and again on the same."""
    first: list[float] = []
    again: list[float] = []
    for number in range(rounds):
        agent = bench.agent(f"start-{number}", None, NO_POOL)
        begin_s = time.monotonic()
        with agent:
            first.append(time.monotonic() - begin_s)
            agent.stop()
            begin_s = time.monotonic()
            agent.start()
            again.append(time.monotonic() - begin_s)
    goal = verdict(f"<= {_GOAL_S} s", met=median(first) <= _GOAL_S)
    looked = "looked for every 20 to 100 ms"
    return [
        Row(_SECTION, "serve to /readyz, new state directory", "s", tuple(first), looked, goal, digits=2),
        Row(_SECTION, "serve to /readyz, same state directory", "s", tuple(again), looked, digits=2),
    ]
