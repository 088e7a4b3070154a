"""Runs one container at a time per call: prepare, release, watch, discard. Knows no journal and no network.

*prepare* gives a container whose entry waits; *release* hands the playbook over and lets it start; *watch* sees it to
its end. A container that was prepared ahead of time and one that was prepared just now are the same thing.
"""

import asyncio
import base64
import contextlib
import os
import secrets
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog

from agp_agent.capture import Spool, left_output
from agp_agent.engine import Attachment, ContainerEngine, ContainerSpec, Image, Mount, NameTaken
from agp_agent.errors import EngineError, EngineUnavailable, LockdownRefused, SecretUnavailable
from agp_agent.fencing import Fencing
from agp_agent.lifecycle import ContainerExit
from agp_agent.mount_rules import MountRules
from agp_agent.output import Output
from agp_agent.planner import RunSpec
from agp_agent.play import Play, read
from agp_agent.redaction import Masker, Needles
from agp_agent.secret_files import Secret, fingerprint, read_all
from agp_agent.slots import PROBE_PREFIX, Slots
from agp_agent.stages import Stage, Stages
from agp_agent.watch import LiveRun, Stop, see_to_end

log = structlog.get_logger(__name__)


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
    is_warm: bool = False
    """It has waited for whoever might come."""


NO_SECRETS: Final[Mapping[str, bytes]] = MappingProxyType({})
_NOTED: Final = "secrets_fingerprint"
_HAND_OVER_S: Final = 30.0
"""An entry reads its secrets within a second."""


def release_lines(nonce: str, secrets: Mapping[str, bytes]) -> bytes:
    """What gives the entry its secrets and lets it start the playbook: the runner contract, version 1."""
    lines = [f"agp1 secret {name} {base64.b64encode(value).decode()}\n" for name, value in secrets.items()]
    return "".join([*lines, f"agp1 release {nonce}\n"]).encode()


def _identity(path: str) -> Hashable:
    try:
        found = Path(path).stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino


def start_marker(nonce: str) -> bytes:
    """What the entry answers on its control channel before anything else."""
    return f"agp1 started {nonce}\n".encode()


class Executor:
    """Drives containers through the engine's port."""

    def __init__(
        self,
        engine: ContainerEngine,
        spools: Path,
        uids: range,
        fencing: Fencing,
        masker: Masker | None = None,
        rules: MountRules | None = None,
        stages: Stages | None = None,
    ) -> None:
        """Output is spooled under ``spools``; every prepared container gets a user of its own out of ``uids``.

        ``masker`` is told which secrets are in use; ``rules`` say what may be mounted;
        ``stages`` what happened when.
        """
        self._engine = engine
        self._fencing = fencing
        self._spools = spools
        self._uids = uids
        self._masker = masker or Masker(lambda: ())
        self._rules = rules or MountRules()
        self._stages = stages or Stages()
        self._uid_of: dict[str, int] = {}
        self._uid_freed = asyncio.Event()
        self._syncing: set[asyncio.Task[None]] = set()
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

    def masked(self, text: str | None) -> str | None:
        """The text without any secret that is in use."""
        return text and self._masker.text(text)

    # --- prepare ---------------------------------------------------------------------------------------------------

    async def prepare(self, spec: RunSpec, slot: str) -> Prepared:
        """Create, attach and start a container in ``slot``; its entry then waits for the release.

        Where it has a network, its fence stands when this returns. While all user ids are in use it waits for one.

        Raises:
            ImageUnavailable, LockdownRefused, NotFenced, EngineUnavailable, EngineError: no playbook was started; what
                may have been made is removed again as far as the engine answers.
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
        if spec.container.mounts:
            await asyncio.to_thread(self._check_mounts, spec.container.mounts)
        image = await self._engine.image(spec.container.image, spec.pull)
        mount = await self.slots.open(slot)
        # By the image's id: a tag may move between here and the creation.
        uid = await self._take_uid(slot, spec.uid)
        container = replace(spec.in_slot(slot, uid, mount), image=image.image_id)
        if spec.outbound:
            container = replace(container, network=(await self._fencing.bridge()).name)
        epoch = self._engine.epoch
        container_id = await self._engine.create(container)
        self._stages.mark(slot, Stage.CREATED)
        attachment = await self._engine.attach(container_id)
        self._stages.mark(slot, Stage.ATTACHED)
        try:
            await self._engine.start(container_id)
            if spec.outbound:
                await self._fencing.fence_in(container_id, spec, container.uid)
        except BaseException:
            await attachment.aclose()
            raise
        self._stages.mark(slot, Stage.STARTED)
        return Prepared(spec, container, container_id, image, attachment, epoch)

    def _check_mounts(self, mounts: Iterable[Mount]) -> None:
        """Look again: what a link leads to may have changed since the catalog was read."""
        for mount in mounts:
            if problem := self._rules.problem(mount.source, writable=not mount.read_only):
                raise LockdownRefused(f"the catalog mounts what may not be mounted: {problem}")

    async def _take_uid(self, slot: str, fixed: int | None) -> int:
        """A user for this slot alone, unless its runner has one for all."""
        self._uid_of[slot] = await self._free_uid(slot) if fixed is None else fixed
        return self._uid_of[slot]

    async def _free_uid(self, slot: str) -> int:
        """As soon as there is one: what has ended keeps its own until it is removed."""
        while not (free := self._free_uids()):
            log.warning("waiting for a user id: all of AGP_UID_RANGE are in use", slot=slot, uids=len(self._uids))
            self._uid_freed.clear()
            await self._uid_freed.wait()
        # By chance, so that two agents on one engine seldom meet.
        return secrets.choice(free)

    def _free_uids(self) -> list[int]:
        taken = set(self._uid_of.values())
        return [uid for uid in self._uids if uid not in taken]

    # --- release ---------------------------------------------------------------------------------------------------

    async def release(
        self,
        prepared: Prepared,
        playbook: bytes,
        note: Mapping[str, object],
        nonce: str,
        secrets: Mapping[str, bytes] = NO_SECRETS,
    ) -> LiveRun:
        """Hand playbook and secrets over and let it start. Whether it did is told by the run's end.

        Raises:
            EngineUnavailable, EngineError, OSError: the playbook could not be handed over; it has not started.
        """
        spec, slot = prepared.spec, prepared.container.name
        try:
            needles = await self._hold(slot, secrets)
            if secrets:
                note = {**note, _NOTED: await asyncio.to_thread(fingerprint, secrets, nonce)}
            await self.slots.fill(slot, prepared.image.image_id, spec.playbook_file, playbook, note)
            if prepared.is_warm and prepared.epoch != self._engine.epoch:
                raise EngineUnavailable("contact to the container engine was lost while the container waited")  # noqa: TRY301  as `fill` would
            spool = Spool.create(self._spools / slot, spec.output_limit_bytes)
        except BaseException:
            await prepared.attachment.aclose()  # its entry sees the end of stdin, and ends
            raise
        run = LiveRun(prepared.container_id, slot, start_marker(nonce), spool, prepared.epoch, secrets=needles)
        run.mark = partial(self._stages.mark, slot)
        run.was_warm = prepared.is_warm
        run.take_in(prepared.attachment)
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await prepared.attachment.send(release_lines(nonce, secrets))
            run.mark(Stage.RELEASED)
        except (EngineUnavailable, TimeoutError):
            run.interrupted = True  # the line may have arrived: the end of the container will tell
        syncing = asyncio.create_task(self._sync(slot), name=f"sync {slot}")
        self._syncing.add(syncing)
        syncing.add_done_callback(self._syncing.discard)
        return run

    async def _sync(self, slot: str) -> None:
        """Have its note on disk: only a journal that loses what it had on disk ever needs that. Never fails."""
        try:
            await self.slots.sync(slot)
        except OSError as error:
            log.warning("note not on disk", slot=slot, why=error.strerror)

    async def aclose(self) -> None:
        """Return once nothing is under way that is still to be on disk. Idempotent."""
        await asyncio.gather(*self._syncing)

    async def never_filled(self, slot: str) -> bool:
        """Whether certainly no playbook was handed over to this slot since this machine started."""
        return await self.slots.is_untouched(slot)

    def ground(self, spec: RunSpec) -> Hashable:
        """What a container of this plan would stand on now: one that waits is good as long as that is the same.

        These are the addresses of this machine that are fenced off, and the files that its mounts lead to, as far as
        they are to be seen from here.
        """
        addresses = self._fencing.own_addresses() if spec.outbound else ()
        return addresses, tuple(_identity(mount.source) for mount in spec.container.mounts)

    async def adopt(
        self,
        container_id: str,
        slot: str,
        nonce: str,
        uid: int | None,
        limit_bytes: int,
        secrets: Iterable[Secret] = (),
    ) -> LiveRun:
        """Take over a released container of an earlier agent; its output is completed from the engine's log.

        ``secrets`` are those of its runner today. Where they are not those that it was started with, the log is of no
        use: nothing would mask it.
        """
        if uid is not None:
            self._uid_of[slot] = uid
        values, is_same = await self._secrets_again(slot, nonce, secrets)
        needles = await self._hold(slot, values)
        spool = Spool.reopen(self._spools / slot, limit_bytes)
        marker = start_marker(nonce)
        return LiveRun(
            container_id, slot, marker, spool, None, interrupted=True, secrets=needles, log_is_secret=not is_same
        )

    async def _secrets_again(
        self, slot: str, nonce: str, secrets: Iterable[Secret]
    ) -> tuple[Mapping[str, bytes], bool]:
        """The values that its runner's secrets have now, and whether a run was started with the very same."""
        note = await self.slots.note(slot)
        had_none = bool(note) and _NOTED not in note
        try:
            values = await asyncio.to_thread(read_all, secrets)
        except SecretUnavailable:
            return NO_SECRETS, had_none
        if had_none or not values:
            return values, had_none  # a note that is torn or lost says neither
        return values, note.get(_NOTED) == await asyncio.to_thread(fingerprint, values, nonce)

    async def _hold(self, slot: str, secrets: Mapping[str, bytes]) -> Needles | None:
        """Mask these values from now on, in the agent's own words too."""
        if not secrets:
            return None
        needles = await asyncio.to_thread(Needles, secrets.values())
        self._masker.hold(slot, needles)
        return needles

    # --- watch -----------------------------------------------------------------------------------------------------

    async def watch(self, run: LiveRun, stop: Stop) -> ContainerExit:
        """See a released container to its end; see ``agp_agent.watch.see_to_end``."""
        return await see_to_end(self._engine, run, stop)

    def told(self, run: LiveRun) -> Play | None:
        """What the playbook's tool told of the run, without secrets; nothing where nobody could mask them."""

        def mask(text: str, is_cut: bool) -> str:  # noqa: FBT001  as ``Mask`` has it
            if run.secrets and is_cut:
                text = run.secrets.masked(text.encode(errors="replace"), is_cut=True).decode(errors="ignore")
            return self._masker.text(text)

        return None if run.log_is_secret else read(bytes(run.control), mask)

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
        if self._uid_of.pop(slot, None) is not None:
            self._uid_freed.set()
        self._masker.let_go(slot)
        self._stages.mark(slot, Stage.REMOVED)
