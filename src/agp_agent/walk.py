"""The walk of one attempt, from the queue to its result: write first, act second, remove last.

Each step stands in the journal before it is taken, so that whoever comes after a crash knows what may have happened.
The dispatcher starts walks, the reconciler resumes those of an earlier agent; both end in the same ``finish``.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from agp_agent import clock, lifecycle, planner
from agp_agent.audit import Audit, AuditEvent
from agp_agent.catalog import Catalog, Runner
from agp_agent.engine import ContainerState, Image
from agp_agent.errors import (
    ContainerMissing,
    EngineError,
    EngineUnavailable,
    ImageUnavailable,
    LockdownRefused,
)
from agp_agent.executor import Executor, LiveRun, NeverStarted, Prepared, StartUnknown, Stop
from agp_agent.journal import Attempt, Journal, JournalUnavailable, Release
from agp_agent.lifecycle import Reason, Verdict
from agp_agent.output import Output
from agp_agent.planner import Limits, RunSpec
from agp_agent.readiness import Readiness

log = structlog.get_logger(__name__)

MAX_TRIES: Final = 3
"""Containers of one attempt that may end before the playbook starts; then the runner is at fault."""

_RETRY_S: Final = 1.0

Observer = Callable[[str, LiveRun], None]
"""Called with run_id and run as soon as output may come."""


def new_slot_name() -> str:
    """Random, so that nothing of a task ever becomes a name."""
    return f"agp-{secrets.token_hex(8)}"


class Walk:
    """Takes attempts through their life. One instance serves all; ``active`` says who is on the way."""

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        audit: Audit,
        *,
        catalog: Catalog,
        readiness: Readiness,
        limits: Limits,
        labels: dict[str, str],
        observer: Observer = lambda _run_id, _run: None,
    ) -> None:
        """``labels`` are the agent's own; ``observer`` may follow a run's output."""
        self._journal = journal
        self._executor = executor
        self._audit = audit
        self._catalog = catalog
        self._readiness = readiness
        self._limits = limits
        self._labels = labels
        self._observer = observer
        self._digests: dict[str, str] = {}
        self.active: dict[str, str] = {}
        """run_id → runner of every attempt that holds a place."""
        self.ended = asyncio.Event()
        """Set whenever a place becomes free."""

    def running_of(self) -> Counter[str]:
        """How many places each runner holds."""
        return Counter(self.active.values())

    @contextlib.asynccontextmanager
    async def _place(self, run_id: str, runner: str) -> AsyncIterator[None]:
        self.active[run_id] = runner
        try:
            yield
        finally:
            self.active.pop(run_id, None)
            self._journal.forget_cancel(run_id)
            self.ended.set()

    # --- a queued attempt ------------------------------------------------------------------------------------------

    async def run(self, run_id: str, runner_name: str) -> None:
        """Take a queued attempt to its end, or back into the queue where the engine went away before its start."""
        async with self._place(run_id, runner_name):
            attempt = await self._journal.attempt(run_id)
            if attempt is None:
                return
            runner = self._catalog.runners.get(runner_name)
            if runner is None:  # an earlier agent chose it, of a catalog that had it
                await self._finish(attempt, lifecycle.no_runner(attempt.playbook_name, self._catalog.names))
                return
            try:
                await self._run(attempt, runner)
            except JournalUnavailable as error:
                self._readiness.report("journal", str(error))
                await asyncio.sleep(_RETRY_S)

    async def _run(self, attempt: Attempt, runner: Runner) -> None:
        spec = planner.plan(runner, self._limits, self._labels)
        slot = new_slot_name()
        if not await self._note_preparing(attempt, spec, slot):
            await self._finish(attempt, lifecycle.cancelled_before_start())
            return
        try:
            prepared = await self._executor.prepare(spec, slot)
        except EngineUnavailable as error:
            self._readiness.doubt("engine", str(error))
            await self._requeue(attempt, str(error), failed_try=False)
        except EngineError as error:
            await self._finish(attempt, self._verdict_of(error, spec))
        else:
            await self._release_and_watch(attempt, spec, prepared)

    async def _note_preparing(self, attempt: Attempt, spec: RunSpec, slot: str) -> bool:
        container = spec.container
        return await self._journal.preparing(
            attempt.run_id,
            slot=slot,
            image=container.image,
            timeout_s=spec.timeout_s,
            memory_bytes=container.memory_bytes,
        )

    async def _release_and_watch(self, attempt: Attempt, spec: RunSpec, prepared: Prepared) -> None:
        slot, nonce = prepared.container.name, secrets.token_hex(16)
        release = Release(
            container_id=prepared.container_id,
            image_digest=prepared.image.digest,
            nonce=nonce,
            boot_id=clock.boot_id(),
            released_boot_s=clock.boot_s(),
            started_at_ms=clock.wall_ms(),
        )
        if not await self._journal.running(attempt.run_id, release):
            await prepared.attachment.aclose()
            await self._finish(attempt, lifecycle.cancelled_before_start())
            await self._discard(slot)
            return
        self._note_image(prepared.image)
        self._audit.record(
            AuditEvent.TASK_STARTED,
            **_facts(attempt),
            runner=spec.runner,
            image=prepared.image.name,
            image_digest=prepared.image.digest,
            container_id=prepared.container_id,
        )
        try:
            run = await self._executor.release(prepared, attempt.playbook, _note(attempt), nonce)
        except (EngineError, OSError) as error:
            if isinstance(error, EngineUnavailable):
                self._readiness.doubt("engine", str(error))
            await self._discard(slot)
            await self._requeue(attempt, str(error), failed_try=not isinstance(error, EngineUnavailable))
            return
        await self._watch(
            attempt, run, timeout_s=spec.timeout_s, left_s=spec.timeout_s, memory_bytes=spec.container.memory_bytes
        )

    def _note_image(self, image: Image) -> None:
        if self._digests.get(image.name) != image.digest:
            self._digests[image.name] = image.digest
            self._audit.record(AuditEvent.IMAGE_RESOLVED, image=image.name, image_digest=image.digest)

    # --- an attempt of an earlier agent ----------------------------------------------------------------------------

    async def resume(self, attempt: Attempt, state: ContainerState, uid: int | None) -> None:
        """Take over a released container, running or ended, and see it to its end."""
        async with self._place(attempt.run_id, attempt.runner or ""):
            self._audit.record(AuditEvent.TASK_ADOPTED, **_facts(attempt), container_id=state.container_id)
            timeout_s = attempt.timeout_s or self._limits.task_timeout_s
            same_boot = attempt.boot_id == clock.boot_id()
            elapsed_s = clock.boot_s() - (attempt.released_boot_s or 0.0) if same_boot else 0.0
            slot, limit = attempt.slot or "", self._limits.output_limit_bytes
            run = self._executor.adopt(state.container_id, slot, attempt.nonce or "", uid, limit)
            left_s = max(0.0, timeout_s - elapsed_s)
            memory_bytes = attempt.memory_bytes or 0
            await self._watch(attempt, run, timeout_s=timeout_s, left_s=left_s, memory_bytes=memory_bytes)

    async def give_up(self, attempt: Attempt, verdict: Verdict, output: Output | None = None) -> None:
        """End an attempt of an earlier agent whose container is gone."""
        await self._finish(attempt, verdict, output or Output())
        self._journal.forget_cancel(attempt.run_id)

    async def start_over(self, attempt: Attempt) -> None:
        """Put back an attempt of an earlier agent that certainly never started; remove what was prepared for it."""
        if attempt.slot:
            await self._executor.discard(attempt.slot)
        await self._requeue(attempt, "the agent stopped before its release", failed_try=False)

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _watch(
        self, attempt: Attempt, run: LiveRun, *, timeout_s: float, left_s: float, memory_bytes: int
    ) -> None:
        self._observer(attempt.run_id, run)

        async def note(reason: Reason) -> None:
            await self._journal.asked(attempt.run_id, reason)

        cancelled = self._journal.cancel_event(attempt.run_id)
        if attempt.cancel_requested:
            cancelled.set()
        stop = Stop(left_s, cancelled, self._limits.stop_grace_s, note, attempt.asked)
        try:
            ended = await self._executor.watch(run, stop)
            verdict = lifecycle.judge(ended, timeout_s=timeout_s, memory_bytes=memory_bytes)
        except ContainerMissing:
            verdict = lifecycle.lost(Reason.CONTAINER_MISSING, "the container was removed from outside")
        except StartUnknown as error:
            verdict = lifecycle.lost(Reason.ENGINE_LOST, str(error))
        except NeverStarted as error:
            await self._never_started(attempt, run, str(error), cancelled=cancelled.is_set())
            return
        await self._finish(attempt, verdict, run.spool.output())
        await self._discard(run.slot)
        run.spool.discard()

    async def _never_started(self, attempt: Attempt, run: LiveRun, why: str, *, cancelled: bool) -> None:
        run.spool.discard()
        await self._discard(run.slot)
        if cancelled:
            await self._finish(attempt, lifecycle.cancelled_before_start())
        else:
            await self._requeue(attempt, why, failed_try=True)

    async def _requeue(self, attempt: Attempt, why: str, *, failed_try: bool) -> None:
        if failed_try and attempt.tries + 1 >= MAX_TRIES:
            reason = f"its entry did not start the playbook in {MAX_TRIES} containers ({why})"
            await self._finish(attempt, lifecycle.image_unavailable(attempt.image or attempt.runner or "", reason))
        elif await self._journal.requeue(attempt.run_id, failed_try=failed_try):
            self._audit.record(AuditEvent.TASK_REQUEUED, **_facts(attempt), why=why)

    def _verdict_of(self, error: EngineError, spec: RunSpec) -> Verdict:
        if isinstance(error, LockdownRefused):
            self._audit.record(AuditEvent.CONTAINER_REFUSED, runner=spec.runner, why=str(error))
        if isinstance(error, ImageUnavailable):
            return lifecycle.image_unavailable(spec.container.image, str(error))
        return lifecycle.engine_refused(str(error))

    async def _finish(self, attempt: Attempt, verdict: Verdict, output: Output | None = None) -> None:
        output = output or Output()
        if not await self._write_finish(attempt, verdict, output):
            return
        event = AuditEvent.TASK_LOST if verdict.outcome is lifecycle.Outcome.LOST else AuditEvent.TASK_FINISHED
        self._audit.record(
            event,
            **_facts(attempt),
            runner=attempt.runner,
            outcome=verdict.outcome.value,
            reason=verdict.reason.value,
            exit_code=verdict.exit_code,
            error=verdict.error,
            output_bytes=output.total_bytes,
            output_omitted_bytes=output.omitted_bytes,
        )
        if verdict.reason is Reason.CANCEL_REQUESTED:
            self._audit.record(AuditEvent.TASK_CANCELLED, **_facts(attempt))

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

    async def _discard(self, slot: str) -> None:
        """Remove container and slot; where the engine does not answer, the reconciler does it later."""
        try:
            await self._executor.discard(slot)
        except EngineError as error:
            log.warning("container not removed yet", slot=slot, error=str(error))


def log_failure(task: asyncio.Task[None]) -> None:
    """Say that a walk ended in an error nobody foresaw; the attempt stands in the journal, and is taken up again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("walk failed", task=task.get_name(), exc_info=error)


def _facts(attempt: Attempt) -> dict[str, object]:
    """What every audit line about an attempt says; never its content."""
    return {
        "task_id": attempt.task_id,
        "attempt": attempt.attempt,
        "run_id": attempt.run_id,
        "playbook_name": attempt.playbook_name,
        "playbook_sha256": attempt.playbook_sha256,
    }


def _note(attempt: Attempt) -> dict[str, object]:
    """What stands beside the slot: enough to report the task if the journal is lost."""
    return _facts(attempt) | {"runner": attempt.runner, "accepted_at_ms": attempt.accepted_at_ms}
