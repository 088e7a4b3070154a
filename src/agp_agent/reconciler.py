"""The loop that holds the journal against the engine: adopts what runs, ends what is gone, removes what is left."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import structlog

from agp_agent import clock, lifecycle
from agp_agent.audit import Audit, AuditEvent
from agp_agent.engine import ContainerEngine, OwnedContainer
from agp_agent.errors import ContainerMissing, EngineError
from agp_agent.executor import Executor
from agp_agent.journal import Attempt, Journal, JournalUnavailable
from agp_agent.lifecycle import Reason, State
from agp_agent.pool import Pool
from agp_agent.walk import Walk, log_failure

log = structlog.get_logger(__name__)

_EVERY_S: Final = 60.0
_GRACE_S: Final = 60.0
"""A container without a row may be a helper at work; older ones are left-overs."""


class Reconciler:
    """Compares journal and containers, at every contact with the engine and every minute."""

    def __init__(
        self,
        journal: Journal,
        engine: ContainerEngine,
        executor: Executor,
        walk: Walk,
        pool: Pool,
        audit: Audit,
        labels: Mapping[str, str],
        *,
        retention_s: float,
    ) -> None:
        """Only containers with ``labels`` are ever touched; acknowledged results are kept ``retention_s``."""
        self._journal = journal
        self._engine = engine
        self._executor = executor
        self._walk = walk
        self._pool = pool
        self._audit = audit
        self._labels = labels
        self._retention_s = retention_s
        self._resumed: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._grace_s = 0.0

    async def run(self) -> None:
        """Reconcile every minute."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.reconcile()
                await self._forget()
            except (EngineError, JournalUnavailable, OSError) as error:
                log.warning("not reconciled; trying again in a minute", why=str(error))

    async def _forget(self) -> None:
        """Bound what is kept; a result that nobody acknowledged is never dropped, but becomes a dead letter."""
        why = f"not acknowledged within {self._retention_s:g} s"
        while expired := await self._journal.expire(older_than_s=self._retention_s, why=why):
            for facts in expired:
                self._audit.record(AuditEvent.TASK_DEAD_LETTERED, **facts, why=why)
        try:
            await self._audit.flush()
        except OSError:  # the disk's watch says so; what the trail does not have yet would look forgotten
            return
        while await self._journal.purge(older_than_s=self._retention_s):
            pass  # some at a time: what runs writes to the journal, too

    async def reconcile(self, grace_s: float | None = None) -> None:
        """Compare once. At the first time nothing is spared: what is there was left by an earlier agent.

        Raises:
            EngineError, JournalUnavailable: what was not done is done the next time.
        """
        async with self._lock:
            # Things before rows: a row is written before its container and its slot are made, so none is missed.
            containers = {owned.name: owned for owned in await self._engine.owned(self._labels)}
            slots = await self._executor.leftover_slots()
            unfinished = [one for one in await self._journal.unfinished() if one.run_id not in self._walk.places.active]
            # Those that have a container first: taking them over writes nothing, and their deadlines run.
            for attempt in sorted(unfinished, key=lambda one: one.slot not in containers):
                await self._take_up(attempt, containers.get(attempt.slot or ""))
            await self._remove_leftovers(containers, slots, self._grace_s if grace_s is None else grace_s)
            self._grace_s = _GRACE_S

    async def idle(self) -> None:
        """Return once nothing that was taken over is on its way."""
        while self._resumed:
            await asyncio.wait(self._resumed)

    async def aclose(self) -> None:
        """Let go of everything that runs; containers stay for the next agent."""
        for task in self._resumed:
            task.cancel()
        await asyncio.gather(*self._resumed, return_exceptions=True)

    async def _take_up(self, attempt: Attempt, container: OwnedContainer | None) -> None:
        if attempt.state is State.PREPARING or await self._was_never_handed_over(attempt):
            await self._walk.start_over(attempt)
            return
        try:
            state = await self._engine.inspect(container.container_id) if container else None
        except ContainerMissing:
            state = None
        if container is None or state is None:
            verdict = lifecycle.lost(Reason.CONTAINER_MISSING, "its container is gone, and nobody saw how it ended")
            await self._walk.end_without_container(attempt, verdict)
            return
        if not state.running and not state.ended:
            await self._walk.start_over(attempt)  # created, and never started
            return
        uid = container.labels.get("agp.uid", "")
        self._walk.places.take(attempt.run_id, attempt.runner or "")
        walk = self._walk.resume(attempt, state, int(uid) if uid.isdigit() else None)
        task = asyncio.create_task(walk, name=f"walk {attempt.run_id}")
        self._resumed.add(task)
        task.add_done_callback(self._resumed.discard)
        task.add_done_callback(log_failure)

    async def _was_never_handed_over(self, attempt: Attempt) -> bool:
        """Whether the agent died between writing down that it may start, and handing its playbook over.

        Engines forget, and a container that waited for long may have been made by one that is no more. What this
        machine has in its slot is not forgotten while it is up.
        """
        slot = attempt.slot
        return slot is not None and attempt.boot_id == clock.boot_id() and await self._executor.never_filled(slot)

    async def _remove_leftovers(self, containers: dict[str, OwnedContainer], slots: list[str], grace_s: float) -> None:
        # First those of the pool: what a task claims meanwhile stands in the journal when it leaves them.
        needed = self._pool.slots | await self._journal.open_slots()
        now_s = time.time()
        for container in list(containers.values()):
            # A container of the future is as old as one of long ago: a clock was set back since.
            is_old = abs(now_s - container.created_at_s) >= grace_s
            if container.labels.get("agp.slot") not in needed and is_old:
                log.info("removing a left-over container", container=container.name)
                await self._engine.remove(container.container_id)
                del containers[container.name]
        for slot in slots:
            if slot not in needed and slot not in containers:
                await self._executor.discard(slot)
