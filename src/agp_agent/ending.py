"""The end of an attempt, whichever way it came: the result is written before anything is removed."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Final

import structlog

from agp_agent import clock, lifecycle
from agp_agent.audit import Audit, AuditEvent
from agp_agent.catalog import Catalogs
from agp_agent.errors import EngineError, ImageUnavailable, LockdownRefused, NotFenced
from agp_agent.executor import Executor
from agp_agent.journal import Attempt, Journal, JournalUnavailable
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.output import Output
from agp_agent.planner import RunSpec
from agp_agent.readiness import Readiness
from agp_agent.stages import Run, Stages

log = structlog.get_logger(__name__)

MAX_TRIES: Final = 3
"""Containers of one attempt that may end before the playbook starts; then the runner is at fault."""

_RETRY_S: Final = 1.0


class Ending:
    """Ends attempts, or puts them back where they certainly never started."""

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        audit: Audit,
        readiness: Readiness,
        catalogs: Catalogs,
        stages: Stages | None = None,
    ) -> None:
        """Take the parts it writes to."""
        self._journal = journal
        self._executor = executor
        self._audit = audit
        self._readiness = readiness
        self._catalogs = catalogs
        self._stages = stages or Stages()

    async def requeue(self, attempt: Attempt, slot: str, seen: State, why: str, *, failed_try: bool = False) -> None:
        """Put an attempt back into the queue that certainly never started; with its last try, end it instead.

        ``slot`` and ``seen`` are what that certainty is about: an attempt that has moved on meanwhile stays there.
        """
        if failed_try and attempt.tries + 1 >= MAX_TRIES:
            reason = f"its entry did not start the playbook in {MAX_TRIES} containers ({why})"
            await self.finish(attempt, lifecycle.image_unavailable(attempt.image or attempt.runner or "", reason))
        elif await self._journal.requeue(attempt.run_id, slot=slot, seen=seen, failed_try=failed_try):
            self._audit.record(AuditEvent.TASK_REQUEUED, **facts(attempt), why=why)
            with contextlib.suppress(OSError):  # before it is prepared again: see recovery, which compares the two
                await self._audit.flush()

    async def requeue_once_written(
        self, attempt: Attempt, slot: str, seen: State, why: str, *, failed_try: bool = False
    ) -> None:
        """The same, however long the disk refuses: what is known now, nobody can find out later."""
        while True:
            try:
                await self.requeue(attempt, slot, seen, why, failed_try=failed_try)
            except JournalUnavailable as error:
                self._readiness.report("journal", str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def verdict_of(self, error: EngineError, spec: RunSpec, attempt: Attempt) -> Verdict:
        """What it means for a task that its container could not be made."""
        if isinstance(error, LockdownRefused | NotFenced):
            self._audit.record(AuditEvent.CONTAINER_REFUSED, **facts(attempt), runner=spec.runner, why=str(error))
        if isinstance(error, ImageUnavailable):
            return lifecycle.image_unavailable(spec.container.image, error.why)
        if isinstance(error, NotFenced):
            return lifecycle.not_fenced(str(error))
        return lifecycle.engine_refused(str(error))

    async def finish(
        self, attempt: Attempt, verdict: Verdict, output: Output | None = None, ran_s: float | None = None
    ) -> None:
        """Write down how an attempt ended, with its result for the dashboard, and audit it. Idempotent.

        ``ran_s``: how long its container ran, where somebody knows better than the clock of now.
        """
        output, verdict = output or Output(), replace(verdict, error=self._executor.masked(verdict.error))
        duration_s = _since_release_s(attempt) if ran_s is None else ran_s
        done = await self._write_finish(attempt, verdict, output)
        self._catalogs.forget(attempt.run_id)
        if done:
            self._stages.finished(run_of(attempt, verdict))
            self._audit_end(attempt, verdict, output, duration_s)

    def _audit_end(self, attempt: Attempt, verdict: Verdict, output: Output, duration_s: float | None) -> None:
        is_lost = verdict.outcome is Outcome.LOST  # when it ended, nobody knows
        self._audit.record(
            AuditEvent.TASK_LOST if is_lost else AuditEvent.TASK_FINISHED,
            **facts(attempt),
            runner=attempt.runner,
            outcome=verdict.outcome.value,
            reason=verdict.reason.value,
            exit_code=verdict.exit_code,
            error=verdict.error,
            image_digest=attempt.image_digest,
            container_id=attempt.container_id,
            duration_s=None if is_lost or duration_s is None else round(duration_s, 3),
            output_bytes=output.total_bytes,
            output_omitted_bytes=output.omitted_bytes,
        )
        if verdict.reason is Reason.CANCEL_REQUESTED:
            self._audit.record(AuditEvent.TASK_CANCELLED, **facts(attempt))

    async def _write_finish(self, attempt: Attempt, verdict: Verdict, output: Output) -> bool:
        """Write the end down, however long the disk refuses: until then the container keeps what happened."""
        while True:
            try:
                done = await self._journal.finish(attempt.run_id, verdict, output)
            except JournalUnavailable as error:
                self._readiness.report("journal", str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                self._readiness.report("journal", None)
                return done

    async def discard(self, slot: str) -> None:
        """Remove container and slot; where the engine does not answer, the reconciler does it later."""
        try:
            await self._executor.discard(slot)
        except EngineError as error:
            log.warning("container not removed yet", slot=slot, error=str(error))


def _since_release_s(attempt: Attempt) -> float | None:
    """How long ago its playbook was released; None where it was not, or before this boot."""
    if attempt.released_boot_s is None or attempt.boot_id != clock.boot_id():
        return None
    return clock.boot_s() - attempt.released_boot_s


def run_of(attempt: Attempt, verdict: Verdict) -> Run:
    """What a tracer is told of an attempt that has ended."""
    return Run(
        attempt.run_id,
        attempt.task_id,
        attempt.attempt,
        attempt.accepted_at_ms,
        attempt.traceparent,
        attempt.runner,
        verdict.outcome,
        verdict.reason,
        verdict.exit_code,
    )


def facts(attempt: Attempt) -> dict[str, object]:
    """What every audit line about an attempt says; never its content."""
    return {
        "task_id": attempt.task_id,
        "attempt": attempt.attempt,
        "run_id": attempt.run_id,
        "playbook_name": attempt.playbook_name,
        "playbook_sha256": attempt.playbook_sha256,
    }
