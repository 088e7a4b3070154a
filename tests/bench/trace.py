"""What the agent's own trace says of one task: its histograms, read before and after it.

A histogram of one observation more has that observation, exactly, as the difference of its sums.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.wire import Connection, request
from support.agent_process import AgentProcess
from support.waiting import eventually

_SAMPLE: Final = re.compile(r'agp_task_(stage|until)_seconds_(sum|count)\{stage="(\w+)",start="(\w+)"\} (\S+)')
_LAST: Final = frozenset({"removed", "acknowledged"})
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """What one task took."""

    start: str
    """cold or warm."""
    stages_ms: Mapping[str, float]
    """From the stage before to this one."""
    until_ms: Mapping[str, float]
    """From the order's arrival to this stage."""


class Trace:
    """Reads an agent's trace, one task after the other."""

    def __init__(self, agent: AgentProcess) -> None:
        """Of an agent on which no other task runs meanwhile."""
        self._agent = agent
        self._before = self._read()

    def of_one(self) -> Told:
        """What the one task took that ran since the last look, as soon as it is over."""
        before = self._before

        def look() -> Told | None:
            after = self._read()
            told = between(before, after)
            return told if told and told.stages_ms.keys() >= _LAST else None

        told = eventually(look, "the whole trace of one task")
        assert told is not None
        self._before = self._read()
        return told

    def _read(self) -> dict[tuple[str, str, str, str], float]:
        with Connection(self._agent.port) as connection:
            status, body = connection.ask(request("GET", "/metrics", self._agent.token))
        assert status == _OK, body
        return parsed(body.decode())


Samples = Mapping[tuple[str, str, str, str], float]
"""By kind (stage, until), part (sum, count), stage and start."""


def parsed(text: str) -> dict[tuple[str, str, str, str], float]:
    """The sums and counts of the two histograms, in seconds."""
    found = (_SAMPLE.match(line) for line in text.splitlines())
    return {(one[1], one[2], one[3], one[4]): float(one[5]) for one in found if one}


def between(before: Samples, after: Samples) -> Told | None:
    """What was observed exactly once between two readings; None where nothing was."""
    took: dict[str, dict[str, float]] = {"stage": {}, "until": {}}
    starts = set()
    for (kind, part, stage, start), count in after.items():
        if part != "count" or count - before.get((kind, part, stage, start), 0.0) != 1:
            continue
        key = (kind, "sum", stage, start)
        took[kind][stage] = (after[key] - before.get(key, 0.0)) * 1000
        starts.add(start)
    return Told(starts.pop(), took["stage"], took["until"]) if len(starts) == 1 else None
