"""Traces for OpenTelemetry, by OTLP: one for each task, from its order to its delivery. The only importer of its SDK.

A task's trace is the one that its order came with (``traceparent``, W3C Trace Context), or one of its own. Ids of spans
follow from the run's: so a delivery long after, by another process, still stands below the task that it belongs to.
"""

import hashlib
import importlib
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from agp_agent import __version__
from agp_agent.errors import ConfigurationError
from agp_agent.lifecycle import Outcome
from agp_agent.stages import Run, Stage, Tracer

_VERSION: Final = re.compile(r"00-.{52}\Z|(?!00|ff)[0-9a-f]{2}-.{52}(?:-|\Z)")
"""Of a later version more may follow."""
_FIELDS: Final = re.compile(r"(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_V0_CHARS: Final = 55
_TRACEPARENT_MAX_CHARS: Final = 512
_PACKAGES: Final = ("opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
_SAMPLED: Final = 1
_EXPORT_TIMEOUT_S: Final = 5.0
_NS: Final = 10**9
_SPANS: Final = (
    ("accept", (Stage.RECEIVED,), Stage.ACCEPTED),
    ("queue", (Stage.ACCEPTED,), Stage.CLAIMED),
    ("prepare", (Stage.CLAIMED,), Stage.STARTED),
    ("release", (Stage.STARTED, Stage.CLAIMED), Stage.RELEASED),
    ("run", (Stage.RELEASED,), Stage.EXITED),
    ("finish", (Stage.EXITED,), Stage.FINISHED),
)
"""Each part of a task: its name, the stages of which the last one reached begins it, and the one that ends it.

A warm container was prepared before its task came: then there is no ``prepare``.
"""
_GOOD: Final = frozenset({Outcome.SUCCEEDED, Outcome.CANCELLED})


class Parent(NamedTuple):
    """What a ``traceparent`` says."""

    trace_id: int
    span_id: int
    sampled: bool


def parse(traceparent: str | None) -> Parent | None:
    """Read a ``traceparent``; None where it is none that can be followed, as the specification has it."""
    text = traceparent if traceparent and len(traceparent) <= _TRACEPARENT_MAX_CHARS else ""
    match = _FIELDS.fullmatch(text[3:_V0_CHARS]) if _VERSION.match(text) else None
    if match is None:
        return None
    return Parent(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & _SAMPLED))


def check_installed() -> None:
    """Raise ``ConfigurationError`` where the packages of the extra ``otel`` are not there."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise ConfigurationError(
                f"AGP_OTLP_ENDPOINT: this agent is installed without OpenTelemetry ({name} is missing); install "
                "agp-enterprise-agent[otel], or build its image by `make images REQUIREMENTS=requirements-otel.lock`."
            ) from None


class OtlpTracer(Tracer):
    """Sends traces to a collector, from a thread of its own. Never fails, and keeps nobody waiting."""

    def __init__(self, endpoint: str, agent_id: str) -> None:
        """``endpoint`` is the collector's address for OTLP over HTTP, as ``http://127.0.0.1:4318``.

        Raises:
            ConfigurationError: the packages of the extra ``otel`` are not installed.
        """
        check_installed()
        from opentelemetry import trace  # noqa: PLC0415  an extra: most agents are installed without it
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._api, self._span = trace, ReadableSpan
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        self._processor = BatchSpanProcessor(exporter)
        self._resource = Resource.create(
            {
                "service.name": "agp-agent",
                "service.version": __version__,
                "service.instance.id": agent_id,
                "host.name": socket.gethostname(),
            }
        )

    def finished(self, run: Run, at_s: Mapping[Stage, float]) -> None:
        """Send the task's span, and one for each part of which both ends were seen."""
        now_ns, now_s = time.time_ns(), time.monotonic()

        def wall_ns(stage: Stage) -> int:
            return now_ns - int((now_s - at_s[stage]) * _NS)

        begun_ns = wall_ns(Stage.RECEIVED) if Stage.RECEIVED in at_s else run.accepted_at_ms * 10**6
        for name, beginnings, end in _SPANS:
            begin = next((stage for stage in beginnings if stage in at_s), None)
            if begin is not None and end in at_s and at_s[end] >= at_s[begin]:
                self._send(run, name, wall_ns(begin), wall_ns(end))
        parent, why = parse(run.traceparent), "" if run.outcome in _GOOD else run.outcome
        self._send(run, "task", begun_ns, now_ns, _of_task(run), why, parent.span_id if parent else None, is_task=True)

    def delivered(self, run: Run, since_s: float, meaning: str, why: str) -> None:
        """Send the span of one attempt to deliver."""
        now_ns = time.time_ns()
        begun_ns = now_ns - int((time.monotonic() - since_s) * _NS)
        self._send(run, "deliver", begun_ns, now_ns, {"agp.answer": meaning}, why, is_client=True)

    def header(self, run: Run) -> str | None:
        """The ``traceparent`` that goes to the dashboard with a result."""
        parent = parse(run.traceparent)
        sampled = parent.sampled if parent else True
        return f"00-{_trace_id(run):032x}-{_task_span_id(run):016x}-{int(sampled):02x}"

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocks."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _send(
        self,
        run: Run,
        name: str,
        begun_ns: int,
        ended_ns: int,
        attributes: Mapping[str, Any] | None = None,
        why: str = "",
        parent_id: int | None = None,
        *,
        is_task: bool = False,
        is_client: bool = False,
    ) -> None:
        """A span of the task, or below it; one whose trace nobody records is none."""
        parent = parse(run.traceparent)
        if parent is not None and not parent.sampled:
            return
        above = parent_id if is_task else _task_span_id(run)
        kinds = self._api.SpanKind
        kind = kinds.SERVER if is_task else kinds.CLIENT if is_client else kinds.INTERNAL
        span_id = _task_span_id(run) if is_task else _span_id(run, f"{name} {begun_ns}")
        code = self._api.StatusCode.ERROR if why else self._api.StatusCode.UNSET
        self._processor.on_end(
            self._span(
                name=name,
                context=self._context(run, span_id),
                parent=None if above is None else self._context(run, above, is_remote=is_task),
                resource=self._resource,
                attributes={"agp.run_id": run.run_id, **(attributes or {})},
                kind=kind,
                status=self._api.Status(code, why or None),
                start_time=begun_ns,
                end_time=ended_ns,
            )
        )

    def _context(self, run: Run, span_id: int, *, is_remote: bool = False) -> Any:
        return self._api.SpanContext(_trace_id(run), span_id, is_remote, self._api.TraceFlags(_SAMPLED))


def _of_task(run: Run) -> dict[str, Any]:
    known = {
        "agp.task_id": run.task_id,
        "agp.attempt": run.attempt,
        "agp.runner": run.runner,
        "agp.outcome": run.outcome,
        "agp.reason": run.reason,
        "agp.exit_code": run.exit_code,
    }
    return {name: value for name, value in known.items() if value not in (None, "")}


def _trace_id(run: Run) -> int:
    parent = parse(run.traceparent)
    return parent.trace_id if parent else _number(f"trace {run.run_id}", 16)


def _task_span_id(run: Run) -> int:
    return _span_id(run, "task")


def _span_id(run: Run, what: str) -> int:
    return _number(f"span {run.run_id} {what}", 8)


def _number(seed: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:size]) or 1
