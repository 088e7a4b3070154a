"""What Prometheus is told. The only importer of its client; labels are of closed lists, so their number is bounded."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agp_agent.lifecycle import Outcome, State
from agp_agent.stages import Stage, Stages, Start

CONTENT_TYPE: Final = exposition.CONTENT_TYPE_LATEST

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
_UNTIL: Final = frozenset({Stage.OUTPUT, Stage.ACKNOWLEDGED})
"""What somebody waits for: told from the order on, too."""
_WAITING: Final = (State.QUEUED, State.PREPARING, State.RUNNING)


class Metrics:
    """The figures of one agent."""

    def __init__(self) -> None:
        """All at zero."""
        self._registry = CollectorRegistry()
        self._stage = self._histogram(
            "agp_task_stage_seconds", "Time that a task took from the stage before to this one."
        )
        self._until = self._histogram("agp_task_until_seconds", "Time from an order's arrival until this stage.")
        self.stages = Stages(self._took)
        self._now = _Now(self.stages)
        self._registry.register(self._now)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(name, meaning, ("stage", "start"), buckets=_BUCKETS_S, registry=self._registry)

    def _took(self, stage: Stage, start: Start, took_s: float, after_s: float) -> None:
        self._stage.labels(stage.value, start.value).observe(took_s)
        if stage in _UNTIL:
            self._until.labels(stage.value, start.value).observe(after_s)

    def text(self, states: Mapping[State, int]) -> bytes:
        """All of it in Prometheus' text format. ``states``: how many tasks are in each now."""
        self._now.states = states
        return exposition.generate_latest(self._registry)


class _Now(Collector):
    """What is counted elsewhere, read when somebody asks."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.states: Mapping[State, int] = {}

    def collect(self) -> Iterator[Metric]:
        """Every label is there from the beginning, at zero."""
        tasks = GaugeMetricFamily("agp_tasks", "Tasks that have not ended, by their state.", labels=["state"])
        for state in _WAITING:
            tasks.add_metric([state.value], self.states.get(state, 0))
        yield tasks
        ended = CounterMetricFamily("agp_tasks_finished", "Tasks that have ended, by outcome.", labels=["outcome"])
        for outcome in Outcome:
            ended.add_metric([outcome.value], self._stages.outcomes.get(outcome.value, 0))
        yield ended
        starts = CounterMetricFamily(
            "agp_task_starts",
            "Playbooks released: warm in a container that was waiting, cold in one made for it.",
            labels=["start"],
        )
        for start in Start:
            starts.add_metric([start.value], self._stages.starts.get(start, 0))
        yield starts
