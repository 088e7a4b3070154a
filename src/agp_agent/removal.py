"""Sees off containers that waited and are of no use any more."""

import asyncio
from collections.abc import Coroutine

import structlog

from agp_agent.errors import EngineError, EngineUnavailable
from agp_agent.executor import Executor
from agp_agent.warm import Warm

log = structlog.get_logger(__name__)


class Removal:
    """What is being removed, in the background. Belongs to the event loop."""

    def __init__(self, executor: Executor) -> None:
        """Nothing is."""
        self._executor = executor
        self._tasks: set[asyncio.Task[None]] = set()
        self._unremoved: set[str] = set()
        self.slots: set[str] = set()
        """Slots of what is not removed yet."""

    def begin(self, warm: Warm) -> None:
        """Let its entry end, and remove it."""
        warm.guard.cancel()
        self.slots.add(warm.slot)
        self.hold(self._see_off(warm), f"remove {warm.slot}")

    def take_over(self, slot: str) -> None:
        """See to what the engine did not remove where it was half made."""
        self.slots.add(slot)
        self._unremoved.add(slot)

    def try_again(self) -> None:
        """The engine may be back: remove what it did not remove then."""
        unremoved, self._unremoved = self._unremoved, set()
        for slot in unremoved:
            self.hold(self._remove(slot), f"remove {slot}")

    def hold(self, work: Coroutine[None, None, None], name: str) -> None:
        """See to it that something is done that nobody waits for."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Return once nothing is being removed; what the engine did not remove is the next agent's."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Break off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _see_off(self, warm: Warm) -> None:
        await warm.prepared.attachment.aclose()
        await self._remove(warm.slot)

    async def _remove(self, slot: str) -> None:
        try:
            await self._executor.discard(slot)
        except EngineUnavailable:
            self._unremoved.add(slot)
            return
        except EngineError as error:
            log.warning("warm container not removed yet", slot=slot, why=str(error))
        self.slots.discard(slot)
