"""The loop that delivers results until the dashboard has acknowledged each."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import structlog

from agp_agent.audit import Audit, AuditEvent
from agp_agent.backoff import LONGEST_S, Gate
from agp_agent.dashboard import Answer, Dashboard, Headers, Meaning
from agp_agent.journal import DueResult, Journal, JournalUnavailable
from agp_agent.lifecycle import Outcome
from agp_agent.models import TaskResult, TaskStatus
from agp_agent.stages import Run, Stage, Stages

log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0
_SHRUNK_BYTES: Final = 64 * 1024
_SETTLES: Final = frozenset({Meaning.ACKNOWLEDGED, Meaning.TOO_LARGE, Meaning.REFUSED})
"""A dashboard that says one of these has looked at the result: it works."""
_HORIZON_MS: Final = int((LONGEST_S + 300) * 1000)
"""Nothing was ever postponed beyond this, with room for a clock that was corrected a little."""


class Outbox:
    """Delivers what is due, a few at once, and wakes when something is posted or due."""

    def __init__(
        self,
        journal: Journal,
        dashboard: Dashboard,
        audit: Audit,
        agent_id: str,
        draw: Callable[[], float] = random.random,
        now_s: Callable[[], float] = time.monotonic,
        stages: Stages | None = None,
    ) -> None:
        """``draw`` gives the jitter: numbers from 0 to 1; ``now_s`` is a clock that never jumps.

        ``stages`` is told of what was acknowledged.
        """
        self._journal = journal
        self._dashboard = dashboard
        self._audit = audit
        self._agent_id = agent_id
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._acknowledged: set[int] = set()
        """Acknowledged by the dashboard, and not written down yet because the disk refused."""
        self._gate = Gate(now_s, draw)
        self._newest_first = False
        self._stages = stages or Stages()

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                try:
                    await self._round()
                except JournalUnavailable as error:
                    log.warning("outbox not readable; trying again", why=str(error))
                    await asyncio.sleep(_RETRY_S)
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def flushed(self) -> None:
        """Return once nothing is due any more; what the dashboard did not take is left for later."""
        self._idle.clear()
        self._journal.outbox_changed.set()
        await self._idle.wait()

    async def _round(self) -> None:
        """Start what is due, then sleep until a delivery ends, something is posted, or something is due."""
        changed = self._journal.outbox_changed
        changed.clear()
        free = self._gate.places(len(self._under_way))
        if free:
            for seq in await self._next(free):
                self._under_way[seq] = asyncio.create_task(self._attempt(seq), name=f"deliver {seq}")
        if not self._under_way and not changed.is_set():
            self._idle.set()
        timeout_s = await self._pause_s()
        woken = asyncio.create_task(changed.wait())
        try:
            ends = {woken, *self._under_way.values()}
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        for seq in [seq for seq, task in self._under_way.items() if task.done()]:
            del self._under_way[seq]

    async def _next(self, free: int) -> list[int]:
        """What goes next: mostly it is one, so old and new ones take turns from one time to the next."""
        found = await self._journal.due(
            limit=free, skip=list(self._under_way), horizon_ms=_HORIZON_MS, newest_first=self._newest_first
        )
        self._newest_first ^= bool(found)
        return found

    async def _attempt(self, seq: int) -> None:
        """Deliver; after an error nobody foresaw, or a journal that cannot be written, wait before it is due again."""
        try:
            await self._deliver(seq)
        except Exception:
            log.exception("delivery failed; trying again", seq=seq)
            await asyncio.sleep(_RETRY_S)

    async def _pause_s(self) -> float | None:
        """How long to sleep unless something happens; None is for ever."""
        if closed_for_s := self._gate.closed_for_s:
            return closed_for_s
        if not self._gate.places(len(self._under_way)):
            return None
        return await self._journal.next_due_in_s(skip=list(self._under_way))

    async def _deliver(self, seq: int) -> None:
        due = await self._journal.due_result(seq)
        if due is None:
            return
        if seq in self._acknowledged:
            await self._settle(due, Answer(Meaning.ACKNOWLEDGED))
            return
        run = Run(due.run_id, due.task_id, due.attempt, due.accepted_at_ms, due.traceparent)
        headers = Headers(self._key(due), await self._audit_head(), self._stages.tracer.header(run))
        begun_s = self._stages.now_s()
        answer = await self._dashboard.report(_result_of(due), headers)
        self._stages.answered(answer.meaning.name.lower(), answer.status)
        self._stages.tracer.delivered(run, begun_s, answer.meaning.name.lower(), answer.why)
        if answer.meaning in _SETTLES:
            self._gate.settled()
        await self._settle(due, answer)

    async def _audit_head(self) -> str:
        """The head that the dashboard anchors: of what is on disk, for a head that a crash took back looks forged."""
        with contextlib.suppress(OSError):  # the disk's trouble is reported elsewhere; no result waits for it
            await self._audit.flush()
        return str(self._audit.head_on_disk)

    def _key(self, due: DueResult) -> str:
        """The same for every delivery of this attempt, and for no other, also over rebuilt journals."""
        return f"{self._agent_id}/{quote(due.task_id, safe='')}/{due.attempt}/{due.run_id}"

    async def _settle(self, due: DueResult, answer: Answer) -> None:
        facts = {"task_id": due.task_id, "attempt": due.attempt, "run_id": due.run_id, "deliveries": due.deliveries + 1}
        if answer.meaning is Meaning.ACKNOWLEDGED:
            self._acknowledged.add(due.seq)
            self._stages.mark(due.run_id, Stage.ACKNOWLEDGED)
            await self._journal.acknowledge(due.seq)
            self._acknowledged.discard(due.seq)
            self._audit.record(AuditEvent.TASK_DELIVERED, **facts)
        elif answer.meaning is Meaning.TOO_LARGE and await self._journal.shrink(
            due.seq, due.output.cut_to(_SHRUNK_BYTES)
        ):
            log.warning("result too large for the dashboard; its output is cut", **facts, kept_bytes=_SHRUNK_BYTES)
        elif answer.meaning in (Meaning.REFUSED, Meaning.TOO_LARGE):
            await self._journal.dead_letter(due.seq, error=answer.why)
            self._audit.record(AuditEvent.TASK_DEAD_LETTERED, **facts, why=answer.why)
        else:
            delay_s = self._delay_s(due, answer)
            log.warning("result not delivered; kept", **facts, why=answer.why, next_try_in_s=round(delay_s, 1))
            await self._journal.postpone(due.seq, delay_s=delay_s, error=answer.why)

    def _delay_s(self, due: DueResult, answer: Answer) -> float:
        if answer.meaning is Meaning.HOLD:
            return self._gate.held()
        return self._gate.not_taken(
            due.seq, due.deliveries, away=answer.away, retry_after_s=answer.retry_after_s or 0.0
        )


def _result_of(due: DueResult) -> TaskResult:
    status = TaskStatus.COMPLETED if due.outcome is Outcome.SUCCEEDED else TaskStatus.FAILED
    return TaskResult(task_id=due.task_id, status=status, output=due.output.text(), error=due.error)
