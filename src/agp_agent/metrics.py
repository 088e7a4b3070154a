"""What Prometheus is told. The only importer of its client; labels are of closed lists, so their number is bounded."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    exposition,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agp_agent.audit import AuditEvent
from agp_agent.build_info import BuildInfo
from agp_agent.counted_engine import CALLS, RESULTS
from agp_agent.lifecycle import ENDINGS, State
from agp_agent.readiness import PARTS
from agp_agent.stages import DELIVERIES, STATUSES, Stage, Stages, Start

CONTENT_TYPE: Final = exposition.CONTENT_TYPE_LATEST

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
_UNTIL: Final = frozenset({Stage.OUTPUT, Stage.ACKNOWLEDGED})
"""What somebody waits for: told from the order on, too."""
_WAITING: Final = (State.QUEUED, State.PREPARING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class WarmFigures:
    """A runner's containers that wait: how many there are to be, how many do, and how often a task had one, or none."""

    wanted: int
    waiting: int
    hits: int
    misses: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted elsewhere, as it stands now."""

    states: Mapping[State, int] = field(default_factory=dict)
    """Attempts in each state that is not finished."""
    results_pending: int = 0
    dead_letters: int = 0
    oldest_queued_s: float | None = None
    """How long the first of the queue has waited."""
    oldest_result_s: float | None = None
    """Age of the oldest result that the dashboard has not acknowledged and that is still tried."""
    max_running: int = 0
    max_queued: int = 0
    is_ready: bool = False
    is_paused: bool = False
    problems: Collection[str] = ()
    """The parts that keep tasks from starting."""
    audit_events: Mapping[str, int] = field(default_factory=dict)
    warm: Mapping[str, WarmFigures] = field(default_factory=dict)
    """By runner."""


class Metrics:
    """The figures of one agent."""

    def __init__(self) -> None:
        """All at zero."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each histogram that nobody reads
        self._registry = CollectorRegistry()
        self._stage = self._histogram(
            "agp_task_stage_seconds", "Time that a task took from the stage before to this one."
        )
        self._until = self._histogram("agp_task_until_seconds", "Time from an order's arrival until this stage.")
        self._commits = Histogram(
            "agp_journal_commit_seconds",
            "Time that a commit of the journal took; many writes share one.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._auth_failures = Counter(
            "agp_auth_failures", "Requests with a wrong token or of a wrong peer.", registry=self._registry
        )
        self.stages = Stages(self._took)
        self._now = _Now(self.stages)
        self._registry.register(self._now)
        ProcessCollector(registry=self._registry)

    def committed(self, took_s: float) -> None:
        """The journal has committed. May be called by any thread."""
        self._commits.observe(took_s)

    def auth_failed(self) -> None:
        """Somebody was not let in: each one counts, also those that the audit trail only sums up."""
        self._auth_failures.inc()

    def count_engine_calls(self, calls: Mapping[tuple[str, str], int]) -> None:
        """Tell these numbers, by what was asked of the engine and how that went, from now on."""
        self._now.engine_calls = calls

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(name, meaning, ("stage", "start"), buckets=_BUCKETS_S, registry=self._registry)

    def _took(self, stage: Stage, start: Start, took_s: float, after_s: float) -> None:
        self._stage.labels(stage.value, start.value).observe(took_s)
        if stage in _UNTIL:
            self._until.labels(stage.value, start.value).observe(after_s)

    def text(self, figures: Figures) -> bytes:
        """All of it in Prometheus' text format."""
        self._now.figures = figures
        return exposition.generate_latest(self._registry)


class _Now(Collector):
    """What is counted elsewhere, read when somebody asks."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.figures = Figures()
        self.engine_calls: Mapping[tuple[str, str], int] = {}
        self._build = BuildInfo.of_this()

    def collect(self) -> Iterator[Metric]:
        """Every label is there from the beginning, at zero."""
        yield from self._tasks()
        yield from self._conditions()
        yield from self._pool()
        calls = CounterMetricFamily(
            "agp_engine_calls",
            "Calls to the container engine, by what was asked and how that went.",
            labels=["call", "result"],
        )
        for call in CALLS:
            for result in RESULTS:
                calls.add_metric([call, result], self.engine_calls.get((call, result), 0))
        yield calls
        events = CounterMetricFamily("agp_audit_events", "Events of the audit trail since the start.", labels=["event"])
        for event in AuditEvent:
            events.add_metric([event.value], self.figures.audit_events.get(event.value, 0))
        yield events

    def _conditions(self) -> Iterator[Metric]:
        now = self.figures
        build = GaugeMetricFamily("agp_build_info", "What the agent was built from.", labels=["version", "commit"])
        build.add_metric([self._build.version, self._build.commit or ""], 1)
        yield build
        yield GaugeMetricFamily(
            "agp_ready", "Whether a task that is accepted now would be started.", value=now.is_ready
        )
        yield GaugeMetricFamily("agp_paused", "Whether an operator has paused it.", value=now.is_paused)
        yield GaugeMetricFamily("agp_max_running", "Places for tasks.", value=now.max_running)
        yield GaugeMetricFamily("agp_max_queued", "Tasks that may wait.", value=now.max_queued)
        problems = GaugeMetricFamily("agp_problem", "Whether a part keeps tasks from starting.", labels=["part"])
        for part in PARTS:
            problems.add_metric([part], part in now.problems)
        yield problems
        results = GaugeMetricFamily(
            "agp_results", "Results that the dashboard has not acknowledged, by their delivery.", labels=["delivery"]
        )
        results.add_metric(["pending"], now.results_pending)
        results.add_metric(["dead_letter"], now.dead_letters)
        yield results
        attempts = CounterMetricFamily(
            "agp_delivery_attempts", "Attempts to deliver a result, by what the answer meant.", labels=["answer"]
        )
        for answer in DELIVERIES:
            attempts.add_metric([answer], self._stages.deliveries.get(answer, 0))
        yield attempts
        answers = CounterMetricFamily(
            "agp_delivery_answers", "The same attempts, by the status of the answer.", labels=["status"]
        )
        for status in STATUSES:
            answers.add_metric([status], self._stages.statuses.get(status, 0))
        yield answers
        yield GaugeMetricFamily(
            "agp_oldest_queued_seconds",
            "Age of the task that has waited longest for its start; 0 where none waits.",
            value=now.oldest_queued_s or 0,
        )
        yield GaugeMetricFamily(
            "agp_oldest_result_seconds",
            "Age of the oldest result that waits for the dashboard; 0 where none waits.",
            value=now.oldest_result_s or 0,
        )

    def _pool(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "agp_warm_containers",
            "Containers that are to wait for a task, and those that do.",
            labels=["runner", "which"],
        )
        claims = CounterMetricFamily(
            "agp_warm_claims",
            "Tasks that had a container that waited, or should have had one.",
            labels=["runner", "result"],
        )
        for runner, one in self.figures.warm.items():
            waiting.add_metric([runner, "wanted"], one.wanted)
            waiting.add_metric([runner, "waiting"], one.waiting)
            claims.add_metric([runner, "hit"], one.hits)
            claims.add_metric([runner, "miss"], one.misses)
        yield waiting
        yield claims

    def _tasks(self) -> Iterator[Metric]:
        tasks = GaugeMetricFamily("agp_tasks", "Tasks that have not ended, by their state.", labels=["state"])
        for state in _WAITING:
            tasks.add_metric([state.value], self.figures.states.get(state, 0))
        yield tasks
        ended = CounterMetricFamily(
            "agp_tasks_finished", "Tasks that have ended, by outcome and reason.", labels=["outcome", "reason"]
        )
        known = {(outcome.value, reason.value): 0 for outcome, reasons in ENDINGS.items() for reason in reasons}
        for (outcome, reason), number in (known | dict(self._stages.endings)).items():
            ended.add_metric([outcome, reason], number)
        yield ended
        starts = CounterMetricFamily(
            "agp_task_starts",
            "Playbooks released: warm in a container that was waiting, cold in one made for it.",
            labels=["start"],
        )
        for start in Start:
            starts.add_metric([start.value], self._stages.starts.get(start, 0))
        yield starts
