"""Where a run's time goes: the moment of each stage, for the runs that are on their way. Bounded, in memory only.

Whoever takes a run a stage further calls ``mark`` once it has happened; that costs one entry in a table. A container
that was prepared ahead of time has its own marks under the name of its slot, until ``claim`` joins them to a run.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Stage(StrEnum):
    """What can happen to a run, in the order of the cold path; on the warm one the container comes before the run."""

    RECEIVED = "received"
    """The order's body was read."""
    ACCEPTED = "accepted"
    """The order is on disk."""
    CLAIMED = "claimed"
    """It stands in the journal which slot the run has."""
    CREATED = "created"
    ATTACHED = "attached"
    STARTED = "started"
    """The container runs, and its entry waits for the release."""
    RELEASED = "released"
    """The line that lets the entry start the playbook was sent."""
    MARKER = "marker"
    """The entry said that it starts the playbook."""
    OUTPUT = "output"
    """The playbook printed something."""
    EXITED = "exited"
    """The container has ended, and inspect said how."""
    FINISHED = "finished"
    """The result is on disk."""
    REMOVED = "removed"
    """Container and slot are gone."""
    ACKNOWLEDGED = "acknowledged"
    """The dashboard has the result."""


class Start(StrEnum):
    """Whether the container had been started before its run was claimed."""

    COLD = "cold"
    WARM = "warm"


_PREPARED: Final = (Stage.CREATED, Stage.ATTACHED, Stage.STARTED)
_COLD: Final[Mapping[Stage, Stage]] = {
    Stage.ACCEPTED: Stage.RECEIVED,
    Stage.CLAIMED: Stage.ACCEPTED,
    Stage.CREATED: Stage.CLAIMED,
    Stage.ATTACHED: Stage.CREATED,
    Stage.STARTED: Stage.ATTACHED,
    Stage.RELEASED: Stage.STARTED,
    Stage.MARKER: Stage.RELEASED,
    Stage.OUTPUT: Stage.MARKER,
    Stage.EXITED: Stage.MARKER,
    Stage.FINISHED: Stage.EXITED,
    Stage.REMOVED: Stage.FINISHED,
    Stage.ACKNOWLEDGED: Stage.FINISHED,
}
_WARM: Final[Mapping[Stage, Stage]] = {
    stage: Stage.CLAIMED if stage is Stage.RELEASED else before
    for stage, before in _COLD.items()
    if stage not in _PREPARED
}
BEFORE: Final[Mapping[Start, Mapping[Stage, Stage]]] = {Start.COLD: _COLD, Start.WARM: _WARM}
"""From which stage on the time of each is counted."""
_UNTIL_FINISHED: Final = tuple(stage for stage in Stage if stage not in (Stage.REMOVED, Stage.ACKNOWLEDGED))
_BOUND: Final = 20_000
"""Runs and waiting containers that are remembered; beyond it the oldest are forgotten."""

Took = Callable[[Stage, Start, float, float], None]
"""Told how long a stage took, and how long after the order had been received it was reached, both in seconds."""


class Trace:
    """The moments of one run, by the monotonic clock, in seconds."""

    __slots__ = ("at_s", "run_id", "slot")

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.at_s: dict[Stage, float] = {}
        self.run_id: str | None = None
        self.slot: str | None = None

    @property
    def start(self) -> Start | None:
        """None where it never had a container of its own, or an earlier agent started that."""
        started_s, claimed_s = self.at_s.get(Stage.STARTED), self.at_s.get(Stage.CLAIMED)
        if started_s is None or claimed_s is None:
            return None
        return Start.WARM if started_s < claimed_s else Start.COLD

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return Stage.ACKNOWLEDGED in self.at_s and (self.slot is None or Stage.REMOVED in self.at_s)

    def document(self) -> dict[str, object]:
        """For a file: milliseconds from the moment that the order was received; those before it are negative."""
        since_s = self.at_s.get(Stage.RECEIVED, 0.0)
        stages = {stage.value: round((self.at_s[stage] - since_s) * 1000, 3) for stage in Stage if stage in self.at_s}
        return {"start": self.start, "stages_ms": stages}


@dataclass(frozen=True, slots=True)
class Run:
    """What a tracer is told of a run. ``traceparent`` came with its order, and is not checked."""

    run_id: str
    task_id: str
    attempt: int
    accepted_at_ms: int
    traceparent: str | None = None
    runner: str | None = None
    outcome: str = ""
    reason: str = ""
    exit_code: int | None = None


class Tracer:
    """Hears of what is over; this one forgets it. See ``agp_agent.tracing``."""

    def finished(self, run: Run, at_s: Mapping[Stage, float]) -> None:
        """The result of a run is on disk; ``at_s`` are the moments that were seen here, by the monotonic clock."""

    def delivered(self, run: Run, since_s: float, meaning: str, why: str) -> None:
        """An attempt to deliver, begun at ``since_s``, was answered; ``why`` is empty where it was acknowledged."""

    def header(self, run: Run) -> str | None:  # noqa: ARG002  nothing goes along
        """The ``traceparent`` that goes along with a delivery."""
        return None

    def close(self) -> None:
        """Nothing more comes."""


DELIVERIES: Final = ("acknowledged", "retry", "hold", "too_large", "refused")
"""What the dashboard's answers mean, in the words of ``agp_agent.dashboard.Meaning``."""
STATUSES: Final = (
    *("200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "502", "503", "504"),
    *("other", "none"),
)
"""What its answers have for a status; ``none``: no answer came."""


class Stages:
    """The traces of all runs on their way, and how many there were of which kind."""

    def __init__(
        self,
        took: Took = lambda _stage, _start, _took_s, _after_s: None,
        now_s: Callable[[], float] = time.monotonic,
        bound: int = _BOUND,
    ) -> None:
        """``took`` is told of every stage once its run is finished; ``now_s`` is a clock that never jumps."""
        self._took = took
        self._now_s = now_s
        self._bound = bound
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._starts: Counter[Start] = Counter()
        self._endings: Counter[tuple[str, str]] = Counter()
        self._deliveries: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self.last_over: Trace | None = None
        """The run that was over last."""
        self.tracer = Tracer()
        """Told of runs by those who see to their end, with all that they know of them."""

    @property
    def starts(self) -> Mapping[Start, int]:
        """How many playbooks were released, in containers of which kind."""
        return MappingProxyType(self._starts)

    @property
    def endings(self) -> Mapping[tuple[str, str], int]:
        """How many runs were finished with which outcome, for which reason."""
        return MappingProxyType(self._endings)

    @property
    def deliveries(self) -> Mapping[str, int]:
        """How many attempts to deliver got which answer."""
        return MappingProxyType(self._deliveries)

    @property
    def statuses(self) -> Mapping[str, int]:
        """How many attempts to deliver got which of ``STATUSES``."""
        return MappingProxyType(self._statuses)

    def answered(self, meaning: str, status: int | None) -> None:
        """The dashboard answered an attempt to deliver, one of ``DELIVERIES``, or (status None) no answer came."""
        self._deliveries[meaning] += 1
        name = "none" if status is None else str(status)
        self._statuses[name if name in STATUSES else "other"] += 1

    def now_s(self) -> float:
        """The moment it is, by the clock of the traces."""
        return self._now_s()

    def accepted(self, run_id: str, received_s: float) -> None:
        """An order is on disk; its trace begins, unless it was claimed already."""
        trace = self._traces.get(run_id) or self._begin(run_id)
        trace.run_id = run_id
        trace.at_s |= {Stage.RECEIVED: received_s, Stage.ACCEPTED: self._now_s()}

    def claim(self, run_id: str, slot: str) -> None:
        """The run has this slot. What was known of an earlier try of the run is forgotten, all but its acceptance."""
        now_s, before = self._now_s(), self._traces.get(run_id)
        accepted = _only(before, (Stage.RECEIVED, Stage.ACCEPTED))
        if before is not None and before.slot is not None:
            self._traces.pop(before.slot, None)
        trace = self._begin(run_id)
        trace.run_id, trace.slot = run_id, slot
        trace.at_s = accepted | {Stage.CLAIMED: now_s} | _only(self._traces.get(slot), _PREPARED)
        self._traces[slot] = trace

    def mark(self, name: str, stage: Stage) -> None:
        """A run, or a slot, has reached a stage; only the first time counts. A name that is not known is let pass."""
        trace = self._traces.get(name)
        if trace is None:
            if stage is not Stage.CREATED:
                return
            trace = self._begin(name)
        if stage in trace.at_s:
            return
        trace.at_s[stage] = self._now_s()
        if stage is Stage.RELEASED and trace.start is not None:
            self._starts[trace.start] += 1
        elif stage in (Stage.REMOVED, Stage.ACKNOWLEDGED):
            self._after_the_end(name, trace, stage)

    def finished(self, run: Run) -> None:
        """The result of a run is on disk."""
        self._endings[run.outcome, run.reason] += 1
        self.mark(run.run_id, Stage.FINISHED)
        trace = self._traces.get(run.run_id)
        if trace is not None:
            for stage in _UNTIL_FINISHED:
                self._tell(trace, stage)
        self.tracer.finished(run, trace.at_s if trace is not None else {})

    def found_ended(self, outcome: str, reason: str, number: int) -> None:
        """So many runs of an earlier agent turned out to have ended so; of their stages nothing is known."""
        self._endings[outcome, reason] += number

    def _after_the_end(self, name: str, trace: Trace, stage: Stage) -> None:
        self._tell(trace, stage)
        if trace.run_id is None:  # a container that no run has claimed
            self._traces.pop(name, None)
        elif trace.is_over:
            self._traces.pop(trace.run_id, None)
            self._traces.pop(trace.slot or "", None)
            self.last_over = trace

    def _tell(self, trace: Trace, stage: Stage) -> None:
        """Nothing is told of what has no beginning here: an earlier agent did it."""
        start, at_s = trace.start, trace.at_s
        if start is None or stage not in at_s:
            return
        before = BEFORE[start].get(stage)
        if before in at_s and Stage.RECEIVED in at_s:
            self._took(stage, start, max(0.0, at_s[stage] - at_s[before]), at_s[stage] - at_s[Stage.RECEIVED])

    def _begin(self, name: str) -> Trace:
        while len(self._traces) >= self._bound:
            self._traces.popitem(last=False)
        trace = self._traces[name] = Trace()
        return trace


def _only(trace: Trace | None, stages: tuple[Stage, ...]) -> dict[Stage, float]:
    return {stage: trace.at_s[stage] for stage in stages if stage in trace.at_s} if trace is not None else {}
