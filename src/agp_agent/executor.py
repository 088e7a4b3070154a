"""Runs one container at a time per call: prepare, release, watch, discard. Knows no journal and no network.

*prepare* gives a container whose entry waits; *release* hands the playbook over and lets it start; *watch* sees it to
its end. A container that was prepared ahead of time and one that was prepared just now are the same thing.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agp_agent.capture import Spool, left_output
from agp_agent.engine import Attachment, ContainerEngine, ContainerSpec, Image, NameTaken
from agp_agent.errors import EngineError, EngineUnavailable
from agp_agent.lifecycle import ContainerExit
from agp_agent.output import Output
from agp_agent.planner import RunSpec
from agp_agent.slots import PROBE_PREFIX, Slots
from agp_agent.watch import LiveRun, Stop, see_to_end


@dataclass(frozen=True, slots=True)
class Prepared:
    """A started container whose entry waits for its release."""

    spec: RunSpec
    container: ContainerSpec
    container_id: str
    image: Image
    attachment: Attachment
    epoch: int
    """The engine's when the container was created."""


def release_line(nonce: str) -> bytes:
    """What lets the entry start the playbook: the runner contract, version 1."""
    return f"agp1 release {nonce}\n".encode()


def start_marker(nonce: str) -> bytes:
    """What the entry answers on its control channel before anything else."""
    return f"agp1 started {nonce}\n".encode()


class Executor:
    """Drives containers through the engine's port."""

    def __init__(self, engine: ContainerEngine, spools: Path, uids: range) -> None:
        """Output is spooled under ``spools``; every prepared container gets a user of its own out of ``uids``."""
        self._engine = engine
        self._spools = spools
        self._uids = uids
        self._uid_of: dict[str, int] = {}
        self._slots: Slots | None = None

    def use_slots(self, slots: Slots) -> None:
        """Hand playbooks over in this way from now on."""
        self._slots = slots

    @property
    def slots(self) -> Slots:
        """The way playbooks are handed over. Raises ``EngineUnavailable`` while it is not known yet."""
        if self._slots is None:
            raise EngineUnavailable("the engine has not been reached yet")
        return self._slots

    # --- prepare ---------------------------------------------------------------------------------------------------

    async def prepare(self, spec: RunSpec, slot: str) -> Prepared:
        """Create, attach and start a container in ``slot``; its entry then waits for the release.

        Raises:
            ImageUnavailable, LockdownRefused, EngineUnavailable, EngineError: nothing was started; what may have been
                made is removed again as far as the engine answers.
        """
        try:
            return await self._prepare(spec, slot)
        except NameTaken:
            raise  # the container of that name is not this one
        except BaseException:
            with contextlib.suppress(EngineError):
                await asyncio.shield(self.discard(slot))
            raise

    async def _prepare(self, spec: RunSpec, slot: str) -> Prepared:
        image = await self._engine.image(spec.container.image, spec.pull)
        mount = await self.slots.open(slot)
        # By the image's id: a tag may move between here and the creation.
        container = replace(spec.in_slot(slot, self._take_uid(slot, spec.uid), mount), image=image.image_id)
        epoch = self._engine.epoch
        container_id = await self._engine.create(container)
        attachment = await self._engine.attach(container_id)
        try:
            await self._engine.start(container_id)
        except BaseException:
            await attachment.aclose()
            raise
        return Prepared(spec, container, container_id, image, attachment, epoch)

    def _take_uid(self, slot: str, fixed: int | None) -> int:
        if fixed is not None:
            self._uid_of[slot] = fixed
            return fixed
        taken = set(self._uid_of.values())
        free = [uid for uid in self._uids if uid not in taken]
        if not free:
            raise EngineError(
                f"all {len(self._uids)} user ids of AGP_UID_RANGE are in use; widen it or run fewer tasks."
            )
        # By chance, so that two agents on one engine seldom meet.
        self._uid_of[slot] = secrets.choice(free)
        return self._uid_of[slot]

    # --- release ---------------------------------------------------------------------------------------------------

    async def release(self, prepared: Prepared, playbook: bytes, note: Mapping[str, object], nonce: str) -> LiveRun:
        """Hand the playbook over and let it start. Whether it did is told by the run's end, also where this is cut off.

        Raises:
            EngineUnavailable, EngineError, OSError: the playbook could not be handed over; it has not started.
        """
        spec, slot = prepared.spec, prepared.container.name
        try:
            await self.slots.fill(slot, prepared.image.image_id, spec.playbook_file, playbook, note)
            spool = Spool.create(self._spools / slot, spec.output_limit_bytes)
        except BaseException:
            await prepared.attachment.aclose()  # its entry sees the end of stdin, and ends
            raise
        run = LiveRun(prepared.container_id, slot, start_marker(nonce), spool, prepared.epoch)
        run.take_in(prepared.attachment)
        try:
            await prepared.attachment.send(release_line(nonce))
        except EngineUnavailable:
            run.interrupted = True  # the line may have arrived: the end of the container will tell
        return run

    def adopt(self, container_id: str, slot: str, nonce: str, uid: int | None, limit_bytes: int) -> LiveRun:
        """Take over a released container of an earlier agent; its output is completed from the engine's log."""
        if uid is not None:
            self._uid_of[slot] = uid
        spool = Spool.reopen(self._spools / slot, limit_bytes)
        return LiveRun(container_id, slot, start_marker(nonce), spool, None, interrupted=True)

    # --- watch -----------------------------------------------------------------------------------------------------

    async def watch(self, run: LiveRun, stop: Stop) -> ContainerExit:
        """See a released container to its end; see ``agp_agent.watch.see_to_end``."""
        return await see_to_end(self._engine, run, stop)

    # --- discard ---------------------------------------------------------------------------------------------------

    async def leftover_slots(self) -> list[str]:
        """Names of all slots and spools there are, whoever needs them; probes come and go by themselves."""
        spools = await asyncio.to_thread(os.listdir, self._spools)
        names = {*await self.slots.names(), *spools}
        return sorted(name for name in names if not name.startswith(PROBE_PREFIX))

    def left_output(self, slot: str) -> Output:
        """What is left of the output of a run whose container is gone."""
        return left_output(self._spools / slot)

    async def discard(self, slot: str) -> None:
        """Remove a slot with its container and its spool. What is missing is success.

        Raises:
            EngineUnavailable: the container may still be there; nothing else was touched.
        """
        await self._engine.remove(slot)
        await self.slots.drop(slot)
        (self._spools / slot).unlink(missing_ok=True)
        self._uid_of.pop(slot, None)
