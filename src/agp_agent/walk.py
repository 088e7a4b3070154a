"""The walk of one attempt, from the queue to its result: write first, act second, remove last.

Each step stands in the journal before it is taken, so that whoever comes after a crash knows what may have happened.
The dispatcher starts walks, the reconciler resumes those of an earlier agent; both end in the same ``finish``.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from agp_agent import clock, descriptors, lifecycle, planner, secret_files, slots, starting
from agp_agent.audit import Audit, AuditEvent
from agp_agent.catalog import Catalogs, Runner
from agp_agent.ending import Ending, facts
from agp_agent.engine import ContainerState, Image
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, SecretUnavailable
from agp_agent.executor import NO_SECRETS, Executor, Prepared
from agp_agent.journal import Attempt, Journal, JournalUnavailable, Release, Reservation
from agp_agent.lifecycle import Reason, State, Verdict
from agp_agent.places import Places
from agp_agent.planner import Limits, RunSpec
from agp_agent.pool import Pool
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness
from agp_agent.stages import Stages
from agp_agent.starting import Claim
from agp_agent.watch import LiveRun, NeverStarted, StartUnknown, Stop

log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0

Observer = Callable[[str, LiveRun], None]
"""Called with run_id and run as soon as output may come."""


class Walk:
    """Takes attempts through their life. One instance serves all; ``places`` says who is on the way."""

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        pool: Pool,
        audit: Audit,
        *,
        catalogs: Catalogs,
        readiness: Readiness,
        reach: Reach,
        limits: Limits,
        labels: dict[str, str],
        observer: Observer = lambda _run_id, _run: None,
        stages: Stages | None = None,
    ) -> None:
        """``labels`` are the agent's own; ``observer`` may follow a run's output; ``stages`` keeps the time."""
        self._journal = journal
        self._executor = executor
        self._pool = pool
        self._audit = audit
        self._catalogs = catalogs
        self._readiness = readiness
        self._reach = reach
        self._limits = limits
        self._labels = labels
        self._stages = stages or Stages()
        self._ending = Ending(journal, executor, audit, readiness, catalogs, self._stages)
        self._observer = observer
        self._digests: dict[str, str] = {}
        self.places = Places(journal, catalogs)

    # --- an order that finds a warm container -------------------------------------------------------------------------

    def claim(self, runner: Runner) -> Claim | None:
        """Hold a place and a warm container for an order of this runner, where there are both.

        It is ended by ``run_claimed`` or by ``unclaim``.
        """
        full = self.places.full_runners()
        if len(self.places.active) >= self._readiness.slots or runner.name in full:
            return None
        spec = planner.plan(runner, self._limits, self._labels)
        if (prepared := self._pool.claim(spec)) is None:
            return None
        run_id = uuid.uuid4().hex
        self.places.take(run_id, runner.name, is_decided=False)
        return Claim(runner, prepared, Reservation(run_id, starting.start_of(prepared), tuple(full)))

    def unclaim(self, claim: Claim, *, is_untouched: bool) -> None:
        """The order was not taken on, or has to wait; where the journal is in doubt, nobody else gets the container."""
        run_id = claim.reservation.run_id
        self.places.decide(run_id)
        (self._pool.give_back if is_untouched else self._pool.abandon)(claim.prepared)
        self.places.leave(run_id)

    async def run_claimed(self, claim: Claim, attempt: Attempt) -> None:
        """Take an order to its end that was written down as running, in the container that was claimed for it."""
        self.places.decide(attempt.run_id)
        with self.places.held(attempt.run_id, claim.runner.name):
            self._stages.claim(attempt.run_id, claim.prepared.container.name)
            try:
                await self._release_started(attempt, claim.prepared)
            except JournalUnavailable as error:
                self._readiness.report("journal", str(error))

    # --- a queued attempt ------------------------------------------------------------------------------------------

    async def run(self, run_id: str, runner_name: str) -> None:
        """Take a queued attempt to its end, or back into the queue where the engine went away before its start."""
        with self.places.held(run_id, runner_name):
            attempt = await self._journal.attempt(run_id)
            if attempt is None:
                return
            runner = self._catalogs.runner_of(run_id, runner_name)
            if runner is None:  # an earlier agent chose it, of a catalog that had it
                await self._ending.finish(
                    attempt, lifecycle.no_runner(attempt.playbook_name, self._catalogs.current.names)
                )
                return
            try:
                await self._run(attempt, runner)
            except JournalUnavailable as error:
                self._readiness.report("journal", str(error))
                await self._start_over_once_written(run_id, str(error))

    async def _start_over_once_written(self, run_id: str, why: str) -> None:
        """Put back what was being prepared, as soon as the journal takes it; meanwhile it keeps its place."""
        while True:
            await asyncio.sleep(_RETRY_S)
            try:
                attempt = await self._journal.attempt(run_id)
                if attempt is not None and attempt.state is State.PREPARING:
                    await self.start_over(attempt, why)
            except JournalUnavailable:
                continue
            return

    async def _run(self, attempt: Attempt, runner: Runner) -> None:
        spec = planner.plan(runner, self._limits, self._labels)
        if (problem := await self._reach.problem(spec)) is not None:
            await self._ending.finish(attempt, lifecycle.not_fenced(problem))
            return
        # One that was given a container before had no luck with it: it gets one that was made for it.
        if attempt.image is None and (prepared := self._pool.claim(spec)) is not None:
            await self._run_warm(attempt, prepared)
            return
        self._pool.missed(spec.runner)
        await self._run_cold(attempt, spec)

    async def _run_warm(self, attempt: Attempt, prepared: Prepared) -> None:
        start, is_written = starting.start_of(prepared), False
        try:
            is_written = await self._journal.start(attempt.run_id, start)
        finally:
            if not is_written:
                self._pool.abandon(prepared)
        if is_written:
            self._stages.claim(attempt.run_id, start.slot)
            await self._release_started(starting.started(attempt, start), prepared)
        else:
            await self._ending.finish(attempt, lifecycle.cancelled_before_start())
            await self._ending.discard(start.slot)

    async def _release_started(self, attempt: Attempt, prepared: Prepared) -> None:
        """Release a warm container that the journal has as running."""
        values = await self._secrets_for(attempt, prepared, State.RUNNING)
        if values is not None:
            await self._release_and_watch(attempt, prepared, values)

    async def _run_cold(self, attempt: Attempt, spec: RunSpec) -> None:
        slot = slots.new_name()
        if not await self._note_preparing(attempt, spec, slot):
            await self._ending.finish(attempt, lifecycle.cancelled_before_start())
            return
        self._stages.claim(attempt.run_id, slot)
        try:
            with self._pool.yielding():
                prepared = await self._prepared_unless_cancelled(attempt, spec, slot)
        except (EngineUnavailable, OSError) as error:
            self._doubt(error)
            await self._ending.requeue(attempt, slot, State.PREPARING, str(error))
        except EngineError as error:
            await self._ending.finish(attempt, self._ending.verdict_of(error, spec, attempt))
        else:
            if prepared is None:
                await self._ending.finish(attempt, lifecycle.cancelled_before_start())
            else:
                await self._release_prepared(attempt, prepared)

    async def _prepared_unless_cancelled(self, attempt: Attempt, spec: RunSpec, slot: str) -> Prepared | None:
        """Prepare, but no longer than until the attempt is cancelled (None): pulling an image may take minutes."""
        preparing = asyncio.create_task(self._executor.prepare(spec, slot), name=f"prepare {slot}")
        cancelled = asyncio.create_task(self._journal.cancel_event(attempt.run_id).wait())
        try:
            await asyncio.wait({preparing, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
            preparing.cancel()  # one that is done is not changed by it
            await asyncio.wait({preparing})
        return None if preparing.cancelled() else preparing.result()

    async def _note_preparing(self, attempt: Attempt, spec: RunSpec, slot: str) -> bool:
        container = spec.container
        return await self._journal.preparing(
            attempt.run_id,
            slot=slot,
            image=container.image,
            timeout_s=spec.timeout_s,
            memory_bytes=container.memory_bytes,
        )

    async def _release_prepared(self, attempt: Attempt, prepared: Prepared) -> None:
        """Read the secrets, write down that the playbook may start, and let it."""
        values = await self._secrets_for(attempt, prepared, State.PREPARING)
        if values is None:
            return
        release = starting.release_of(prepared)
        if not await self._note_running(attempt, prepared, release):
            await self._ending.finish(attempt, lifecycle.cancelled_before_start())
            await self._ending.discard(prepared.container.name)
            return
        await self._release_and_watch(starting.released(attempt, release), prepared, values)

    async def _secrets_for(self, attempt: Attempt, prepared: Prepared, seen: State) -> Mapping[str, bytes] | None:
        """The runner's secrets as they are now; without them (None) nothing is released, and the attempt is seen to."""
        if not prepared.spec.secrets:
            return NO_SECRETS
        try:
            return await asyncio.to_thread(secret_files.read_all, prepared.spec.secrets)
        except SecretUnavailable as error:
            await prepared.attachment.aclose()
            await self._ending.finish(attempt, lifecycle.secret_unavailable(str(error)))
        except OSError as error:  # no file descriptors: that says nothing of the secrets
            await prepared.attachment.aclose()
            self._doubt(error)
            await self._ending.requeue_once_written(attempt, prepared.container.name, seen, str(error))
        self._pool.let_go(prepared)
        await self._ending.discard(prepared.container.name)
        return None

    async def _release_and_watch(self, attempt: Attempt, prepared: Prepared, values: Mapping[str, bytes]) -> None:
        """``attempt`` stands in the journal as running, with its nonce."""
        spec, slot = prepared.spec, prepared.container.name
        self._note_image(prepared.image)
        self._audit.record(
            AuditEvent.TASK_STARTED,
            **facts(attempt),
            runner=spec.runner,
            image=prepared.image.name,
            image_digest=prepared.image.digest,
            container_id=prepared.container_id,
        )
        try:
            if not self._pool.let_go(prepared):
                await prepared.attachment.aclose()
                raise EngineError("its container was disturbed while it waited")  # noqa: TRY301  as the release would
            run = await self._executor.release(prepared, attempt.playbook, _note(attempt), attempt.nonce or "", values)
            if prepared.is_warm:
                self._pool.served(spec.runner)
        except (EngineError, OSError) as error:
            is_refusal = isinstance(error, EngineError) and not isinstance(error, EngineUnavailable)
            runner_is_at_fault = is_refusal and not prepared.is_warm
            self._doubt(error)
            await self._ending.requeue_once_written(
                attempt, slot, State.RUNNING, str(error), failed_try=runner_is_at_fault
            )
            await self._ending.discard(slot)
            return
        await self._watch(
            attempt, run, timeout_s=spec.timeout_s, left_s=spec.timeout_s, memory_bytes=spec.container.memory_bytes
        )

    async def _note_running(self, attempt: Attempt, prepared: Prepared, release: Release) -> bool:
        """Write down that the playbook may start; where that is not to be, let its entry go."""
        may_start = False
        try:
            may_start = await self._journal.running(attempt.run_id, release)
        finally:
            if not may_start:
                await prepared.attachment.aclose()
        return may_start

    def _doubt(self, error: Exception) -> None:
        """Start nothing more until somebody has looked: the engine is away, or this machine's disk is full."""
        if isinstance(error, OSError):
            part = "file descriptors" if error.errno in descriptors.NONE_LEFT else "disk"
            self._readiness.report(part, f"a playbook cannot be handed over: {error.strerror}")
        elif isinstance(error, EngineUnavailable):
            self._readiness.doubt("engine", str(error))

    def _note_image(self, image: Image) -> None:
        if self._digests.get(image.name) != image.digest:
            self._digests[image.name] = image.digest
            self._audit.record(AuditEvent.IMAGE_RESOLVED, image=image.name, image_digest=image.digest)

    # --- an attempt of an earlier agent ----------------------------------------------------------------------------

    async def resume(self, attempt: Attempt, state: ContainerState, uid: int | None) -> None:
        """Take over a released container, running or ended, and see it to its end."""
        with self.places.held(attempt.run_id, attempt.runner or ""):
            attempt = await self._journal.attempt(attempt.run_id) or attempt
            if attempt.state is not State.RUNNING:  # it has ended, or was put back, since the reconciler looked
                return
            self._audit.record(AuditEvent.TASK_ADOPTED, **facts(attempt), container_id=state.container_id)
            timeout_s = attempt.timeout_s or self._limits.task_timeout_s
            same_boot = attempt.boot_id == clock.boot_id()
            elapsed_s = clock.boot_s() - (attempt.released_boot_s or 0.0) if same_boot else 0.0
            slot, limit = attempt.slot or "", self._limits.output_limit_bytes
            runner = self._catalogs.runner_of(attempt.run_id, attempt.runner or "")
            secrets = runner.secret_files if runner else ()
            run = await self._executor.adopt(state.container_id, slot, attempt.nonce or "", uid, limit, secrets)
            left_s = timeout_s if state.ended else max(0.0, timeout_s - elapsed_s)
            memory_bytes = attempt.memory_bytes or 0
            ran_s = state.ran_s if state.ended else None
            await self._watch(attempt, run, timeout_s=timeout_s, left_s=left_s, memory_bytes=memory_bytes, ran_s=ran_s)

    async def end_without_container(self, attempt: Attempt, verdict: Verdict) -> None:
        """End an attempt that has no container: it never got one, or an earlier agent's is gone."""
        output = self._executor.left_output(attempt.slot) if attempt.slot else None
        await self._ending.finish(attempt, verdict, output)
        self._journal.forget_cancel(attempt.run_id)

    async def start_over(self, attempt: Attempt, why: str = "the agent stopped before its release") -> None:
        """Put back an attempt that certainly never started; remove what was prepared for it."""
        slot = attempt.slot or ""
        await self._ending.requeue(attempt, slot, attempt.state, why)
        if slot:
            await self._ending.discard(slot)

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _watch(
        self,
        attempt: Attempt,
        run: LiveRun,
        *,
        timeout_s: float,
        left_s: float,
        memory_bytes: int,
        ran_s: float | None = None,
    ) -> None:
        """``ran_s``: how long it ran, where it had ended before it was taken over."""
        self._observer(attempt.run_id, run)

        async def note(reason: Reason) -> None:
            try:
                await self._journal.asked(attempt.run_id, reason)
            except JournalUnavailable as error:  # a full disk must not keep a container alive
                self._readiness.report("journal", str(error))

        cancelled, asked_before = self._journal.cancel_event(attempt.run_id), attempt.asked
        if attempt.cancel_requested:
            cancelled.set()
            # An earlier agent may have stopped it without being able to note that: its disk was full.
            asked_before = asked_before or Reason.CANCEL_REQUESTED
        stop = Stop(left_s, cancelled, self._limits.stop_grace_s, note, asked_before)
        try:
            ended = await self._executor.watch(run, stop)
            verdict = lifecycle.judge(ended, timeout_s=timeout_s, memory_bytes=memory_bytes)
        except ContainerMissing:
            verdict = lifecycle.lost(Reason.CONTAINER_MISSING, "the container was removed from outside")
        except NeverStarted as error:
            await self._never_started(attempt, run, str(error), cancelled=cancelled.is_set())
            return
        except StartUnknown as error:
            verdict = lifecycle.lost(Reason.ENGINE_LOST, str(error))
        except EngineError as error:  # a refusal nobody foresaw: asking again would end the same way
            verdict = lifecycle.lost(Reason.ENGINE_LOST, f"the container engine refused to tell how it ended: {error}")
        await self._ending.finish(attempt, replace(verdict, play=self._executor.told(run)), run.spool.output(), ran_s)
        self._pool.ended(run.slot)
        await self._ending.discard(run.slot)
        run.spool.discard()

    async def _never_started(self, attempt: Attempt, run: LiveRun, why: str, *, cancelled: bool) -> None:
        if cancelled:
            await self._ending.finish(attempt, lifecycle.cancelled_before_start())
        else:
            # A container that an earlier agent had released ended with that agent: that says nothing of its runner.
            is_own = run.epoch is not None and not run.was_warm
            await self._ending.requeue_once_written(attempt, run.slot, State.RUNNING, why, failed_try=is_own)
        await self._ending.discard(run.slot)
        run.spool.discard()


def log_failure(task: asyncio.Task[None]) -> None:
    """Say that a walk ended in an error nobody foresaw; the attempt stands in the journal, and is taken up again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("walk failed", task=task.get_name(), exc_info=error)


def _note(attempt: Attempt) -> dict[str, object]:
    """What stands beside the slot: enough to report the task if the journal is lost."""
    return facts(attempt) | {"runner": attempt.runner, "accepted_at_ms": attempt.accepted_at_ms}
