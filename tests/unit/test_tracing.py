"""What a trace is made of: ids that follow from the run, the parts of which both ends were seen, a caller's wish."""

import sys
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from agp_agent.errors import ConfigurationError
from agp_agent.stages import Run, Stage
from agp_agent.tracing import OtlpTracer, Parent, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
RUN = Run("r1", "deploy 42", 2, 1_700_000_000_000, PARENT, "shell", "failed", "exit_code", 3)


class Kept:
    """Takes the place of what sends spans away."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it."""
        self.spans.append(span)


@pytest.fixture
def tracer() -> OtlpTracer:
    """One whose spans go nowhere."""
    made = OtlpTracer("http://127.0.0.1:1", "agent-7")
    made.close()
    made._processor = Kept()  # type: ignore[assignment]
    return made


def spans(tracer: OtlpTracer) -> dict[str, Any]:
    """What was sent, by name."""
    return {span.name: span for span in tracer._processor.spans}  # type: ignore[attr-defined]


def stages(*reached: Stage) -> dict[Stage, float]:
    """One each second, the last one now."""
    now_s = time.monotonic()
    return {stage: now_s - len(reached) + 1 + number for number, stage in enumerate(reached)}


def cold() -> dict[Stage, float]:
    """All stages of a cold run, the last one just now."""
    return stages(
        *(Stage.RECEIVED, Stage.ACCEPTED, Stage.CLAIMED, Stage.CREATED, Stage.STARTED, Stage.RELEASED, Stage.EXITED),
        Stage.FINISHED,
    )


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (PARENT, Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)),
        (f"00-{TRACE}-{SPAN}-00", Parent(int(TRACE, 16), int(SPAN, 16), sampled=False)),
        (f"42-{TRACE}-{SPAN}-01-more", Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)),
        (f"{PARENT}-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"42-{TRACE}-{SPAN}-01-{'x' * 500}", None),
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_read_as_the_specification_has_it(header: str | None, expected: Parent | None) -> None:
    """Whatever is none begins a trace of its own."""
    assert parse(header) == expected


def test_a_task_is_a_span_of_its_caller_and_its_parts_are_below_it(tracer: OtlpTracer) -> None:
    """Each as long as it took, by the wall clock."""
    tracer.finished(RUN, cold())
    found = spans(tracer)
    assert list(found) == ["accept", "queue", "prepare", "release", "run", "finish", "task"]
    task = found.pop("task")
    assert (f"{task.context.trace_id:032x}", f"{task.parent.span_id:016x}") == (TRACE, SPAN)
    assert (task.kind, task.status.status_code, task.status.description) == (
        SpanKind.SERVER,
        StatusCode.ERROR,
        "failed",
    )
    assert dict(task.attributes) == {
        "agp.run_id": "r1",
        "agp.task_id": "deploy 42",
        "agp.attempt": 2,
        "agp.runner": "shell",
        "agp.outcome": "failed",
        "agp.reason": "exit_code",
        "agp.exit_code": 3,
    }
    assert {span.parent.span_id for span in found.values()} == {task.context.span_id}
    assert len({span.context.span_id for span in found.values()}) == 6
    assert task.start_time == pytest.approx(found["accept"].start_time, abs=1e6)
    assert found["prepare"].end_time - found["prepare"].start_time == pytest.approx(2e9, abs=1e6)
    assert abs(time.time_ns() - found["finish"].end_time) < 60e9


def test_a_warm_run_has_no_preparation_and_an_adopted_one_no_parts(tracer: OtlpTracer) -> None:
    """Nothing is told that nobody saw."""
    tracer.finished(RUN, stages(Stage.STARTED, Stage.RECEIVED, Stage.ACCEPTED, Stage.CLAIMED, Stage.RELEASED))
    assert list(spans(tracer)) == ["accept", "queue", "release", "task"]
    tracer._processor.spans.clear()  # type: ignore[attr-defined]
    tracer.finished(RUN, {})
    assert list(spans(tracer)) == ["task"]
    assert spans(tracer)["task"].start_time == RUN.accepted_at_ms * 10**6


def test_a_delivery_stands_below_its_task_whoever_makes_it(tracer: OtlpTracer) -> None:
    """Also where another process does, long after."""
    tracer.finished(RUN, {})
    other = OtlpTracer("http://127.0.0.1:1", "agent-7")
    other.close()
    other._processor = tracer._processor
    other.delivered(RUN, time.monotonic() - 1, "retry", "the dashboard answered 503")
    found = spans(tracer)
    assert found["deliver"].parent.span_id == found["task"].context.span_id
    assert found["deliver"].kind is SpanKind.CLIENT
    assert found["deliver"].status.description == "the dashboard answered 503"
    assert other.header(RUN) == f"00-{TRACE}-{found['task'].context.span_id:016x}-01"


def test_without_a_caller_there_is_a_trace_of_its_own(tracer: OtlpTracer) -> None:
    """The same for all of the run, and without a parent."""
    run = Run("r2", "t", 1, 0, outcome="succeeded")
    tracer.finished(run, cold())
    found = spans(tracer)
    assert found["task"].parent is None
    assert found["task"].status.status_code is StatusCode.UNSET
    assert len({span.context.trace_id for span in found.values()}) == 1
    assert tracer.header(run) == f"00-{found['task'].context.trace_id:032x}-{found['task'].context.span_id:016x}-01"


def test_who_does_not_record_is_not_recorded(tracer: OtlpTracer) -> None:
    """And the dashboard is told the same."""
    run = Run("r3", "t", 1, 0, f"00-{TRACE}-{SPAN}-00")
    tracer.finished(run, cold())
    tracer.delivered(run, time.monotonic(), "acknowledged", "")
    assert spans(tracer) == {}
    assert str(tracer.header(run)).endswith("-00")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, not at the first task."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigurationError, match=r"install agp-enterprise-agent\[otel\]"):
        OtlpTracer("http://127.0.0.1:1", "agent-7")
