"""The loop that starts queued attempts, first come first served, as places become free."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from agp_agent import lifecycle
from agp_agent.catalog import Catalogs
from agp_agent.journal import Journal, JournalUnavailable, Waiting
from agp_agent.readiness import Readiness
from agp_agent.walk import Walk, log_failure

log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0
_EXPIRY_CHECK_S: Final = 1.0


class Dispatcher:
    """Takes attempts out of the queue. What it starts it holds until the end; ``aclose`` leaves containers running."""

    def __init__(
        self, journal: Journal, walk: Walk, catalogs: Catalogs, readiness: Readiness, *, queue_timeout_s: float
    ) -> None:
        """``queue_timeout_s``: longest wait in the queue; 0 is no limit."""
        self._journal = journal
        self._walk = walk
        self._places = walk.places
        self._catalog_changed = catalogs.subscribe()
        self._readiness = readiness
        self._queue_timeout_s = queue_timeout_s
        self._walks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start what fits, then sleep until the queue, the places, the agent's condition or the catalog change."""
        wakers = (self._journal.queue_changed, self._places.ended, self._readiness.changed, self._catalog_changed)
        while True:
            for waker in wakers:
                waker.clear()
            try:
                await self._end_what_need_not_start()
                await self._start_what_fits()
            except JournalUnavailable as error:
                log.warning("queue not readable; trying again", why=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            await _any_set(*wakers, timeout_s=_EXPIRY_CHECK_S if self._queue_timeout_s else None)

    async def idle(self) -> None:
        """Return once nothing is on its way that was started here, or is just being taken on with its container."""
        while self._walks or not self._places.decided.is_set():
            await self._places.decided.wait()
            if self._walks:
                await asyncio.wait(self._walks)

    async def aclose(self) -> None:
        """Let go of everything that runs; containers stay for the next agent."""
        for task in self._walks:
            task.cancel()
        await asyncio.gather(*self._walks, return_exceptions=True)

    async def _end_what_need_not_start(self) -> None:
        for waiting in await self._journal.not_to_start(queue_timeout_s=self._queue_timeout_s):
            attempt = await self._journal.attempt(waiting.run_id)
            if attempt is None or waiting.run_id in self._places.active:
                continue
            if waiting.cancel_requested:
                verdict = lifecycle.cancelled_before_start()
            else:
                verdict = lifecycle.queue_timeout(self._queue_timeout_s)
            await self._walk.end_without_container(attempt, verdict)

    async def _start_what_fits(self) -> None:
        while (free := self._readiness.slots - len(self._places.active)) > 0:
            # Those on their way are still queued until their first step is written: they must not hide the others.
            limit = free + len(self._places.active)
            batch = await self._journal.next_queued(limit=limit, skip=self._places.full_runners())
            started = [waiting for waiting in batch if self._start(waiting)]
            if not started:
                return

    def _start(self, waiting: Waiting) -> bool:
        runner = waiting.runner or ""
        if len(self._places.active) >= self._readiness.slots:
            return False
        if waiting.run_id in self._places.active or runner in self._places.full_runners():
            return False
        self._places.take(waiting.run_id, runner)
        self.hold(self._walk.run(waiting.run_id, runner), waiting.run_id)
        return True

    def hold(self, walk: Coroutine[Any, Any, None], run_id: str) -> None:
        """Let a walk go, and hold it to its end; its place is taken already."""
        task = asyncio.create_task(walk, name=f"walk {run_id}")
        self._walks.add(task)
        task.add_done_callback(self._walks.discard)
        task.add_done_callback(log_failure)


async def _any_set(*events: asyncio.Event, timeout_s: float | None) -> None:
    """Return once any of the events is set."""
    waiters = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
