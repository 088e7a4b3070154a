"""Slots: how a playbook gets from the agent into a container that is already there.

Each container has a slot of its own: a folder (or a volume) mounted read-only, empty until the release. Which way works
depends on where agent and engine stand to each other, and is found by a probe at start.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog

from agp_agent import selinux
from agp_agent.engine import ContainerEngine, Mount
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable
from agp_agent.planner import PLAYBOOK_DIR

log = structlog.get_logger(__name__)

_FOLDER: Final = "playbook"
_NOTE: Final = "note.json"
_PROBE: Final = "probe"
PROBE_PREFIX: Final = "agp-probe-"


def new_name() -> str:
    """A name for a slot: random, so that nothing of a task ever becomes a name."""
    return f"agp-{secrets.token_hex(8)}"


class Slots(Protocol):
    """A way to hand over playbooks. Names are the agent's own; nothing of a task ever becomes a path."""

    kind: str
    """For people: ``same path``, ``translated path`` or ``volume``."""

    async def open(self, name: str) -> Mount:
        """Make an empty slot and say how it is mounted."""

    async def fill(self, name: str, image: str, file: str, playbook: bytes, note: Mapping[str, object]) -> None:
        """Put the note beside the slot, then the playbook in, readable by every user of the container.

        Neither need be on disk: a playbook goes with its container when the machine does. See ``sync``.
        """

    async def sync(self, name: str) -> None:
        """Have the note on disk; where slot or note are gone meanwhile, nobody needs it. Raises ``OSError``."""

    async def is_untouched(self, name: str) -> bool:
        """Whether the slot is there, and certainly nothing was put into it since this machine started."""

    async def note(self, name: str) -> Mapping[str, object]:
        """What stands in the note; nothing where there is none, or it is torn."""

    async def drop(self, name: str) -> None:
        """Remove the slot with all that is in it; a missing one is success."""

    async def names(self) -> list[str]:
        """All slots there are, those of an earlier agent included."""


class BindSlots:
    """A folder of the state directory, which the engine's host sees too, under the same path or another."""

    def __init__(
        self, slots: Path, engine_slots: Path, kind: str, share: Callable[[Path], None] = selinux.share
    ) -> None:
        """``slots`` is the folder as the agent sees it, ``engine_slots`` as the engine's host does.

        ``share`` labels what containers are to read, where the host asks for that.
        """
        self._slots = slots
        self._share = share
        self._engine_slots = engine_slots
        self.kind = kind

    async def open(self, name: str) -> Mount:
        """Make the folder."""
        await asyncio.to_thread(_make_slot, self._slots / name)
        await asyncio.to_thread(self._share, self._slots / name / _FOLDER)
        return Mount("bind", str(self._engine_slots / name / _FOLDER), PLAYBOOK_DIR)

    async def fill(self, name: str, image: str, file: str, playbook: bytes, note: Mapping[str, object]) -> None:
        """Write both files."""
        del image
        await asyncio.to_thread(self._fill, self._slots / name, file, playbook, note)

    def _fill(self, slot: Path, file: str, playbook: bytes, note: Mapping[str, object]) -> None:
        _fill_slot(slot, file, playbook, note)
        self._share(slot / _FOLDER / file)

    async def sync(self, name: str) -> None:
        """Sync the note."""
        await asyncio.to_thread(_sync_note, self._slots / name)

    async def is_untouched(self, name: str) -> bool:
        """Look for the note, which comes first."""
        return await asyncio.to_thread(_is_untouched, self._slots / name)

    async def note(self, name: str) -> Mapping[str, object]:
        """Read it."""
        return await asyncio.to_thread(_read_note, self._slots / name)

    async def drop(self, name: str) -> None:
        """Remove the folder."""
        await asyncio.to_thread(shutil.rmtree, self._slots / name, ignore_errors=True)

    async def names(self) -> list[str]:
        """List the folders."""
        return await asyncio.to_thread(os.listdir, self._slots)


class VolumeSlots:
    """A named volume each, for an engine that shares no file system with the agent; the note stays with the agent."""

    kind = "volume"

    def __init__(self, slots: Path, engine: ContainerEngine, labels: Mapping[str, str]) -> None:
        """``slots`` is the folder for the notes; ``labels`` mark the volumes as the agent's."""
        self._slots = slots
        self._engine = engine
        self._labels = labels

    async def open(self, name: str) -> Mount:
        """Make the volume, and the folder of its note."""
        await asyncio.to_thread(_make_slot, self._slots / name)
        await self._engine.create_volume(name, self._labels)
        return Mount("volume", name, PLAYBOOK_DIR)

    async def fill(self, name: str, image: str, file: str, playbook: bytes, note: Mapping[str, object]) -> None:
        """Write the note, then the playbook through a container that is never started."""
        await asyncio.to_thread(_fill_slot, self._slots / name, None, b"", note)
        mount = Mount("volume", name, PLAYBOOK_DIR)
        await self._engine.put_file(mount, image, file, playbook, {**self._labels, "agp.slot": name})

    async def sync(self, name: str) -> None:
        """Sync the note: it is in the folder."""
        await asyncio.to_thread(_sync_note, self._slots / name)

    async def is_untouched(self, name: str) -> bool:
        """Look for the note, which comes first."""
        return await asyncio.to_thread(_is_untouched, self._slots / name)

    async def note(self, name: str) -> Mapping[str, object]:
        """Read it: it is in the folder."""
        return await asyncio.to_thread(_read_note, self._slots / name)

    async def drop(self, name: str) -> None:
        """Remove the volume, then the folder: the folder's name is how a left-over volume is found."""
        await self._engine.remove_volume(name)
        await asyncio.to_thread(shutil.rmtree, self._slots / name, ignore_errors=True)

    async def names(self) -> list[str]:
        """List folders and volumes."""
        folders = await asyncio.to_thread(os.listdir, self._slots)
        return sorted({*folders, *await self._engine.owned_volumes(self._labels)})


async def choose_slots(
    engine: ContainerEngine, slots: Path, image: str, labels: Mapping[str, str], engine_state_dir: Path | None
) -> Slots:
    """Find the way that works, by handing a file over and reading it back as a container would see it.

    Args:
        engine: the engine to try.
        slots: the folder of slots as the agent sees it.
        image: any image that is on the engine; no container of it is started.
        labels: the agent's own.
        engine_state_dir: the operator's word on where the state directory is on the engine's host.

    Raises:
        EngineError: no way works, or not the one that the operator named.
    """
    for old in await asyncio.to_thread(lambda: list(slots.glob(PROBE_PREFIX + "*"))):  # of an agent that was killed
        await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
    for candidate in await _bind_candidates(engine, slots, engine_state_dir):
        if await _works(candidate, engine, image, labels):
            return candidate
    if engine_state_dir is not None:
        raise EngineError(
            f"AGP_ENGINE_STATE_DIR: containers do not see the agent's files under {engine_state_dir}; "
            "expected the path of the state directory on the engine's host."
        )
    volumes = VolumeSlots(slots, engine, labels)
    if not await _works(volumes, engine, image, labels):
        raise EngineError("no playbook can be handed to this engine: neither a bind mount nor a named volume works.")
    return volumes


async def _bind_candidates(engine: ContainerEngine, slots: Path, engine_state_dir: Path | None) -> list[Slots]:
    if engine_state_dir is not None:
        return [BindSlots(slots, engine_state_dir / slots.name, "translated path")]
    candidates: list[Slots] = [BindSlots(slots, slots, "same path")]
    if translated := await _translate(engine, slots):
        candidates.append(BindSlots(slots, translated, "translated path"))
    return candidates


async def _translate(engine: ContainerEngine, slots: Path) -> Path | None:
    """Where ``slots`` is on the engine's host, if this process runs in a container of that engine."""
    for name in _own_container_names():
        try:
            mounts = await engine.mounts(name)
        except ContainerMissing:
            continue
        holding = [mount for mount in mounts if slots.is_relative_to(mount.target)]
        if holding:
            nearest = max(holding, key=lambda mount: len(mount.target))
            return Path(nearest.source) / slots.relative_to(nearest.target)
    return None


def _own_container_names() -> list[str]:
    """What this process's container may be called: its id as the mount table shows it, or its host name."""
    names = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        parts = line.split(" ")[3].split("/")
        if "containers" in parts and parts[-1] in ("hostname", "hosts", "resolv.conf"):
            names.append(parts[-2])
    return [*dict.fromkeys(names), os.uname().nodename]


async def _works(slots: Slots, engine: ContainerEngine, image: str, labels: Mapping[str, str]) -> bool:
    name, nonce = f"{PROBE_PREFIX}{secrets.token_hex(8)}", secrets.token_bytes(16)
    try:
        mount = await slots.open(name)
        await slots.fill(name, image, _PROBE, nonce, {})
        return await engine.get_file(mount, image, _PROBE, labels) == nonce
    except EngineUnavailable:
        raise
    except EngineError as error:
        log.debug("slot probe failed", kind=slots.kind, why=str(error))
        return False
    finally:
        await slots.drop(name)


def _make_slot(slot: Path) -> None:
    slot.mkdir(mode=0o700)
    folder = slot / _FOLDER
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask: the container's user is another one


def _fill_slot(slot: Path, file: str | None, playbook: bytes, note: Mapping[str, object]) -> None:
    _write(slot / _NOTE, json.dumps(note).encode(), 0o600)
    if file is not None:
        _write(slot / _FOLDER / file, playbook, 0o444)


def _sync_note(slot: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for path in (slot / _NOTE, slot):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _is_untouched(slot: Path) -> bool:
    return slot.is_dir() and not (slot / _NOTE).exists()


def _read_note(slot: Path) -> dict[str, object]:
    try:
        note = json.loads((slot / _NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write(path: Path, data: bytes, mode: int) -> None:
    with path.open("xb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
