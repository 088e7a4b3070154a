"""Containers to look at, made, released and watched by the same parts as a task's, with a state of their own."""

import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agp_agent import preflight
from agp_agent.canary import Canary
from agp_agent.catalog import Catalog, Catalogs, Runner
from agp_agent.engine import ContainerEngine
from agp_agent.errors import EngineError
from agp_agent.executor import Executor, Prepared
from agp_agent.fencing import Fencing
from agp_agent.lifecycle import ContainerExit, Reason
from agp_agent.planner import Limits, plan
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness
from agp_agent.settings import Settings
from agp_agent.slots import choose_slots
from agp_agent.state_dir import StateDir
from agp_agent.watch import LiveRun, Stop, see_to_end

_OWNER: Final = "doctor"
"""``agp.agent_id`` of these containers."""
_STOP_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Box:
    """A container in which a playbook runs, until the ``async with`` that gave it ends."""

    prepared: Prepared
    live: LiveRun
    _timeout_s: float
    _engine: ContainerEngine = field(repr=False)

    @property
    def container_id(self) -> str:
        """Its id on the engine."""
        return self.prepared.container_id

    @property
    def output(self) -> bytes:
        """What the playbook has printed so far."""
        kept = self.live.spool.output()
        return kept.head + kept.tail

    async def ended(self) -> ContainerExit:
        """See it to its end; at its deadline it is stopped as a task is."""

        async def note(_reason: Reason) -> None:
            """There is no journal."""

        return await see_to_end(self._engine, self.live, Stop(self._timeout_s, asyncio.Event(), _STOP_GRACE_S, note))

    async def playbook(self) -> bytes:
        """The playbook as the engine's host has it now."""
        spec = self.prepared.container
        return await self._engine.get_file(spec.mounts[0], spec.image, self.prepared.spec.playbook_file, spec.labels)


class Boxes:
    """Makes boxes on one engine, at most one a call at a time."""

    def __init__(
        self,
        engine: ContainerEngine,
        executor: Executor,
        canary: Canary,
        limits: Limits,
        labels: dict[str, str],
        folder: Path,
    ) -> None:
        """Use ``open_boxes``."""
        self.folder = folder
        """Where all that these boxes need lies; gone when they are closed."""
        self._engine = engine
        self._executor = executor
        self._canary = canary
        self._limits = limits
        self._labels = labels

    @contextlib.asynccontextmanager
    async def prepared(self, runner: Runner) -> AsyncIterator[Prepared]:
        """A container of this runner that waits for its release, read back from the engine; removed at the end.

        Raises:
            ImageUnavailable, LockdownRefused, EngineUnavailable, EngineError: as a task's preparation.
        """
        slot = f"agp-{_OWNER}-{secrets.token_hex(8)}"
        prepared = await self._executor.prepare(plan(runner, self._limits, self._labels), slot)
        try:
            yield prepared
        finally:
            await prepared.attachment.aclose()
            await asyncio.shield(self._executor.discard(slot))

    async def leak(self, runner: Runner) -> str | None:
        """What of its fence does not hold, as the canary finds; None where it holds, or there is no network."""
        spec = plan(runner, self._limits, self._labels)
        return (await self._canary.prove(spec)).problem if spec.outbound else None

    @contextlib.asynccontextmanager
    async def running(self, runner: Runner, playbook: str, timeout_s: float) -> AsyncIterator[Box]:
        """A box in which ``playbook`` was released just now; whatever becomes of it, it is removed at the end."""
        async with self.prepared(runner) as prepared:
            live = await self._executor.release(prepared, playbook.encode(), {}, secrets.token_hex(16))
            try:
                yield Box(prepared, live, timeout_s, self._engine)
            finally:
                live.spool.discard()


@contextlib.asynccontextmanager
async def open_boxes(settings: Settings, engine: ContainerEngine, image: str) -> AsyncIterator[Boxes]:
    """Find out how playbooks reach this engine, by means of an image that is on it; leave nothing behind.

    Raises:
        EngineUnavailable, EngineError: no playbook can be handed over.
    """
    with (
        tempfile.TemporaryDirectory(prefix=f"agp-{_OWNER}-", dir=_place(settings)) as folder,
        StateDir(Path(folder), _OWNER) as state,
    ):
        labels = state.identity.labels
        fencing = Fencing(engine, labels, image=settings.fence_image, deny=settings.outbound_denied)
        executor = Executor(engine, state.spool, settings.uids, fencing, rules=preflight.mount_rules(settings))
        executor.use_slots(await choose_slots(engine, state.slots, image, labels, None))
        limits = Limits(settings.task_timeout_s, settings.stop_grace_s, settings.output_limit_bytes)
        try:
            canary = Canary(
                engine,
                fencing,
                Catalogs(Catalog(runners={})),
                Readiness(),
                Reach(),
                limits=limits,
                labels=labels,
                uids=settings.uids,
                port=settings.port,
            )
            yield Boxes(engine, executor, canary, limits, labels, state.path)
        finally:
            for left in await engine.owned(labels):  # nothing, unless something went wrong that is told already
                with contextlib.suppress(EngineError):
                    await engine.remove(left.container_id)
            await fencing.aclose()


def _place(settings: Settings) -> Path | None:
    """Inside the state directory, where there is one: so playbooks go the same way as those of tasks."""
    return settings.state_dir if os.access(settings.state_dir, os.W_OK | os.X_OK) else None
