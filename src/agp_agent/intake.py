"""Takes orders on: reads the body, chooses the runner, and answers only when the order is durable."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from agp_agent import clock, lifecycle, tracing
from agp_agent.audit import Audit, AuditEvent
from agp_agent.caller import Caller
from agp_agent.catalog import Catalogs, Runner
from agp_agent.errors import InvalidBody, Refused, TooLarge, Unavailable
from agp_agent.journal import Accepted, Admission, Journal, JournalInDoubt, JournalUnavailable, NewAttempt, Reservation
from agp_agent.models import Task, parse_task
from agp_agent.readiness import Readiness
from agp_agent.stages import Run, Stages
from agp_agent.starting import Claim
from agp_agent.tally import Tally
from agp_agent.walk import Walk

log = structlog.get_logger(__name__)

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_JSON_GROWTH: Final = 6
"""JSON may spell one byte of a playbook with six: ``\\u0000``."""
_JSON_FRAME_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class FastLane:
    """Past the queue: ``walk`` may hold a warm container for an order, and ``hold`` lets its walk go from there."""

    walk: Walk
    hold: Callable[[Coroutine[Any, Any, None], str], None]


_NEEDED_TO_ACCEPT: Final = ("disk", "journal size", "file descriptors")


class Intake:
    """The way of an order into the journal."""

    def __init__(
        self,
        journal: Journal,
        audit: Audit,
        refusals: Tally,
        readiness: Readiness,
        catalogs: Catalogs,
        *,
        max_queued: int,
        rerun_after_s: float,
        playbook_limit_bytes: int,
        stages: Stages | None = None,
        fast_lane: FastLane | None = None,
    ) -> None:
        """``refusals`` counts what is refused, ``stages`` times what is taken on; see the settings of the other names.

        ``fast_lane``: where an order may go at once into a container that waits for it; else all go into the queue.
        """
        self._journal = journal
        self._audit = audit
        self._refusals = refusals
        self._readiness = readiness
        self._catalogs = catalogs
        self._fast_lane = fast_lane
        self._max_queued = max_queued
        self._rerun_after_s = rerun_after_s
        self._playbook_limit_bytes = playbook_limit_bytes
        self._stages = stages or Stages()

    @property
    def body_limit_bytes(self) -> int:
        """The largest body that may hold a playbook within its limit."""
        return self._playbook_limit_bytes * _JSON_GROWTH + _JSON_FRAME_BYTES

    async def accept(
        self, body: bytes, idempotency_key: str | None, caller: Caller, traceparent: str | None = None
    ) -> tuple[Task, Accepted]:
        """Take an order on; when this returns, it is on disk and will be reported whatever happens.

        ``traceparent`` is the header of that name; one that is none is as if it had not come.

        Raises:
            Refused: with the status and the sentence of the answer; nothing has changed.
            JournalInDoubt: it is not taken on, unless the agent dies before its next write; no answer would be right.
        """
        task_id, received_s = None, self._stages.now_s()
        try:
            task = self._read(body)
            task_id = task.task_id
            return task, await self._accept(task, _checked(idempotency_key), caller, received_s, traceparent)
        except Refused as refused:
            more = {name: value for name, value in caller.facts.items() if name != "peer"}
            self._refusals.add(caller.peer, task_id=task_id, status=refused.status, why=refused.detail, **more)
            raise

    async def cancel(self, task_id: str, caller: Caller) -> bool:
        """Have a task stopped that has not ended. False: there is none.

        Raises:
            JournalUnavailable: it could not be noted durably.
        """
        done = await self._journal.request_cancel(task_id)
        if done:
            self._audit.record(AuditEvent.CANCEL_REQUESTED, task_id=task_id, **caller.facts)
        return done

    def _read(self, body: bytes) -> Task:
        task = parse_task(body)
        if len(task.playbook.content.encode()) > self._playbook_limit_bytes:
            raise TooLarge(f"playbook.content is larger than {self._playbook_limit_bytes} bytes.")
        return task

    async def _accept(
        self, task: Task, idempotency_key: str | None, caller: Caller, received_s: float, traceparent: str | None
    ) -> Accepted:
        if self._readiness.draining:
            raise Unavailable("The agent is stopping and takes on no more tasks; send the task again later.")
        for part in _NEEDED_TO_ACCEPT:
            if problem := self._readiness.problems.get(part):
                raise Unavailable(f"The agent takes on no more tasks: {problem}.")
        playbook = task.playbook.content.encode()
        catalog = self._catalogs.current
        runner = catalog.choose(task.playbook.name, task.playbook.content)
        new = NewAttempt(
            task_id=task.task_id,
            playbook_name=task.playbook.name,
            playbook=playbook,
            playbook_sha256=hashlib.sha256(playbook).hexdigest(),
            body_sha256=_fingerprint(task, playbook),
            runner=runner.name if runner else None,
            idempotency_key=idempotency_key,
            traceparent=traceparent if tracing.parse(traceparent) else None,
        )
        reject = None if runner else lifecycle.no_runner(task.playbook.name, catalog.names)
        lane = self._fast_lane
        if lane and runner and (claim := lane.walk.claim(runner)):
            taking_on = self._take_on_claimed(new, claim, caller, lane)
        else:
            taking_on = self._take_on(new, runner, caller, reject)
        # Shielded: once it is written down that it runs, somebody has to let it.
        accepted = await asyncio.shield(asyncio.create_task(taking_on))
        if not accepted.replayed:
            self._stages.accepted(accepted.run_id, received_s)
            await self._flush_audit()
        return accepted

    async def _take_on_claimed(self, new: NewAttempt, claim: Claim, caller: Caller, lane: FastLane) -> Accepted:
        """Write down in one commit that the order is taken on and may start, and let it start."""
        is_untouched = False
        accepted = None
        try:
            accepted = await self._take_on(new, claim.runner, caller, reservation=claim.reservation)
            is_untouched = True
        except Refused as refused:
            is_untouched = not isinstance(refused.__cause__, JournalUnavailable)
            raise
        finally:
            if accepted is None or accepted.begun is None:
                lane.walk.unclaim(claim, is_untouched=is_untouched)
        if accepted.begun is not None:
            lane.hold(lane.walk.run_claimed(claim, accepted.begun), accepted.run_id)
        return accepted

    async def _take_on(
        self,
        new: NewAttempt,
        runner: Runner | None,
        caller: Caller,
        reject: lifecycle.Verdict | None = None,
        reservation: Reservation | None = None,
    ) -> Accepted:
        accepted = await self._commit(new, reject, reservation)
        if not accepted.replayed:
            if runner:
                self._catalogs.keep(accepted.run_id, runner)
            self._audit_accepted(new, accepted, caller, reject)
        return accepted

    async def _commit(
        self, new: NewAttempt, reject: lifecycle.Verdict | None, reservation: Reservation | None
    ) -> Accepted:
        admission = Admission(self._readiness.slots, self._max_queued, self._rerun_after_s)
        try:
            accepted = await self._journal.accept(new, admission, reject, reservation)
        except JournalInDoubt as error:
            self._readiness.report("journal", str(error))
            raise
        except JournalUnavailable as error:
            self._readiness.report("journal", str(error))
            raise Unavailable("The agent cannot write durably at the moment; send the task again later.") from error
        self._readiness.report("journal", None)
        return accepted

    def _audit_accepted(
        self, new: NewAttempt, accepted: Accepted, caller: Caller, reject: lifecycle.Verdict | None
    ) -> None:
        facts = {"task_id": new.task_id, "attempt": accepted.attempt, "run_id": accepted.run_id}
        facts |= {"playbook_name": new.playbook_name, "playbook_sha256": new.playbook_sha256}
        self._audit.record(AuditEvent.TASK_ACCEPTED, **facts, runner=new.runner, **caller.facts)
        if reject is not None:
            self._stages.finished(
                Run(
                    accepted.run_id,
                    new.task_id,
                    accepted.attempt,
                    clock.wall_ms(),
                    new.traceparent,
                    outcome=reject.outcome,
                    reason=reject.reason,
                )
            )
            verdict = {"outcome": reject.outcome.value, "reason": reject.reason.value, "error": reject.error}
            self._audit.record(AuditEvent.TASK_FINISHED, **facts, **verdict)

    async def _flush_audit(self) -> None:
        try:
            await self._audit.flush()
        except OSError as error:
            # The order stands in the journal, so the answer is 202; but the agent is not ready until this is well.
            self._readiness.report("audit", f"the audit trail cannot be written: {error.strerror}")
        else:
            self._readiness.report("audit", None)


def _checked(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidBody("The Idempotency-Key header must have 1 to 255 visible ASCII characters.")
    return key


def _fingerprint(task: Task, playbook: bytes) -> str:
    """Equal for equal orders, however their JSON was spelled."""
    parts = (task.task_id.encode(), task.playbook.name.encode(), playbook)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()
