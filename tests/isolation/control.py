"""The control arm: the container that a task would get, with one hole in it, made without the product's engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker

from agp_agent import catalog
from agp_agent.docker_engine.translate import creation
from agp_agent.engine import Mount
from agp_agent.planner import Limits, plan
from images.box import TASK_UID, Box, playbook_folder

LABEL: Final = "agp.isolation"
ROOT: Final = 0
_PATIENCE_S: Final = 60
NO_SECCOMP: Final = {"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]}
UNMASKED: Final[dict[str, Any]] = {"MaskedPaths": [], "ReadonlyPaths": []}


@dataclass(frozen=True, slots=True)
class Hole:
    """What a control container has, or lacks, beside the lockdown. ``name`` says it for the table."""

    name: str
    uid: int = TASK_UID
    host: dict[str, Any] = field(default_factory=dict)
    """Laid over the lockdown's HostConfig."""
    config: dict[str, Any] = field(default_factory=dict)
    """Laid over the rest of it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Told to the program in this arm alone: where it finds what only such a container has."""
    mounts: list[dict[str, Any]] = field(default_factory=list)


def bind(source: Path | str, target: str, *, propagation: str = "rprivate", read_only: bool = False) -> dict[str, Any]:
    """A bind mount in the words of Docker's API."""
    options = {"Propagation": propagation}
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": options,
    }


@dataclass(frozen=True, slots=True)
class ControlBox:
    """A running control container, as a judge sees it."""

    box: Box
    file: Path

    @property
    def container_id(self) -> str:
        """Its id on the engine."""
        return self.box.id

    @property
    def output(self) -> bytes:
        """What the program printed until now, as far as it was read."""
        return self.box.output

    async def printed(self, text: bytes) -> None:
        """Return once the program has printed this. Raises ``AssertionError`` where it ends before."""

        def read() -> None:
            try:
                self.box.wait_for_output(text)
            except StopIteration:
                raise AssertionError(f"it ended: {self.box.printed_so_far()!r}") from None

        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.to_thread(read)

    async def playbook(self) -> bytes:
        """The playbook as it lies on the host."""
        return await asyncio.to_thread(self.file.read_bytes)


@contextlib.asynccontextmanager
async def control(client: docker.DockerClient, folder: Path, playbook: str, hole: Hole) -> AsyncIterator[ControlBox]:
    """A container like a task's but for the hole, released; removed at the end."""
    slot = playbook_folder(folder, ".py", playbook)
    runner = catalog.load().runners["python"]
    spec = plan(runner, Limits(60, 1, 2**22), {LABEL: "control"})
    body = creation(spec.in_slot(slot.name, hole.uid, Mount("bind", str(slot), "/playbook")))
    host = body["HostConfig"] | hole.host
    host["Mounts"] = [*body["HostConfig"]["Mounts"], *hole.mounts]
    box = await asyncio.to_thread(Box, client, {**body, **hole.config, "HostConfig": host})
    try:
        box.release()
        yield ControlBox(box, slot / spec.playbook_file)
    finally:
        await asyncio.to_thread(box.__exit__, None, None, None)
