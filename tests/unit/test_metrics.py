"""What Prometheus is told: parsed by Prometheus' own parser, as a scrape does."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agp_agent import __version__
from agp_agent.dashboard import Meaning
from agp_agent.lifecycle import ENDINGS, Outcome, Reason, State
from agp_agent.metrics import Figures, Metrics
from agp_agent.stages import DELIVERIES, STATUSES, Run, Stage, Stages

SERIES_MAX = 600
"""However many tasks ran. Most are buckets: 12 stages and 2 times from the order on, cold and warm."""


def scraped(metrics: Metrics, states: dict[State, int] | None = None, **more: Any) -> dict[str, float]:
    """Every sample by its name with its labels, buckets left out."""
    families = text_string_to_metric_families(metrics.text(Figures(states or {}, **more)).decode())
    samples = [sample for family in families for sample in family.samples]
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for sample in samples
        if not sample.name.endswith("_bucket")
    }


def walk(stages: Stages, run_id: str, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    """A cold run from its order to its end."""
    stages.accepted(run_id, stages.now_s())
    stages.claim(run_id, f"slot of {run_id}")
    for stage in (Stage.CREATED, Stage.ATTACHED, Stage.STARTED, Stage.RELEASED, Stage.MARKER, Stage.OUTPUT):
        stages.mark(f"slot of {run_id}", stage)
    stages.mark(f"slot of {run_id}", Stage.EXITED)
    stages.finished(Run(run_id, "t", 1, 0, outcome=outcome, reason=Reason.EXIT_CODE))
    stages.mark(f"slot of {run_id}", Stage.REMOVED)
    stages.mark(run_id, Stage.ACKNOWLEDGED)


def test_every_closed_list_is_there_at_zero() -> None:
    """A rate of a series that appears with its first event misses that event."""
    found = scraped(Metrics())
    assert set(ENDINGS) == set(Outcome)
    for outcome, reasons in ENDINGS.items():
        for reason in reasons:
            assert found[f"agp_tasks_finished_total {outcome.value} {reason.value}"] == 0
    assert {reason for reasons in ENDINGS.values() for reason in reasons} == set(Reason)
    assert (found["agp_task_starts_total cold"], found["agp_task_starts_total warm"]) == (0, 0)
    assert (found["agp_tasks queued"], found["agp_tasks running"]) == (0, 0)


def test_a_run_is_in_every_figure() -> None:
    """Each stage once, what somebody waits for from the order on, its outcome, and what the journal counts now."""
    metrics = Metrics()
    walk(metrics.stages, "a")
    walk(metrics.stages, "b", Outcome.FAILED)
    found = scraped(metrics, {State.QUEUED: 7, State.RUNNING: 2, State.FINISHED: 100})

    for stage in list(Stage)[1:]:
        assert found[f"agp_task_stage_seconds_count {stage.value} cold"] == 2, stage
    assert found["agp_task_until_seconds_count output cold"] == found["agp_task_until_seconds_count acknowledged cold"]
    assert found["agp_task_until_seconds_sum acknowledged cold"] >= found["agp_task_until_seconds_sum output cold"]
    told = {name: found[f"agp_tasks_finished_total {name} exit_code"] for name in ("succeeded", "failed")}
    assert told == {"succeeded": 1, "failed": 1}
    assert (found["agp_tasks queued"], found["agp_tasks running"], found["agp_tasks preparing"]) == (7, 2, 0)
    assert "agp_tasks finished" not in found


def test_the_number_of_series_does_not_grow_with_tasks() -> None:
    """No label is anything that a task brings."""
    metrics = Metrics()
    for number in range(50):
        walk(metrics.stages, f"run-{number}")
    series = [line for line in metrics.text(Figures()).decode().splitlines() if not line.startswith("#")]
    assert len(series) < SERIES_MAX
    assert not [line for line in series if "run-" in line]


def test_what_is_counted_elsewhere_is_told_as_it_stands() -> None:
    """The outbox, the places, what is not well, and the events of the trail; each label is there at zero."""
    found = scraped(
        Metrics(),
        results_pending=3,
        dead_letters=2,
        oldest_queued_s=12.5,
        oldest_result_s=61.5,
        max_running=8,
        is_ready=True,
        problems=("disk",),
        audit_events={"auth failed": 4},
    )
    assert (found["agp_results pending"], found["agp_results dead_letter"]) == (3, 2)
    assert (found["agp_oldest_result_seconds"], found["agp_max_running"]) == (61.5, 8)
    assert found["agp_oldest_queued_seconds"] == 12.5
    assert (found["agp_ready"], found["agp_paused"]) == (1, 0)
    assert (found["agp_problem disk"], found["agp_problem engine"]) == (1, 0)
    assert (found["agp_audit_events_total auth failed"], found["agp_audit_events_total task lost"]) == (4, 0)
    assert found[f"agp_build_info  {__version__}"] == 1


def test_attempts_to_deliver_are_told_by_their_answers() -> None:
    """In the words of the client of the dashboard; each is there at zero."""
    metrics = Metrics()
    metrics.stages.answered("retry", None)
    metrics.stages.answered("acknowledged", 200)
    metrics.stages.answered("retry", 418)
    found = scraped(metrics)
    assert {answer: found[f"agp_delivery_attempts_total {answer}"] for answer in DELIVERIES} == {
        **dict.fromkeys(DELIVERIES, 0),
        "retry": 2,
        "acknowledged": 1,
    }
    told = {status: found[f"agp_delivery_answers_total {status}"] for status in STATUSES}
    assert told == {**dict.fromkeys(STATUSES, 0), "none": 1, "200": 1, "other": 1}
    assert tuple(meaning.name.lower() for meaning in Meaning) == DELIVERIES
