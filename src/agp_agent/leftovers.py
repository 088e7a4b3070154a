"""What ``run``, ``runners check`` and the doctor left on the engine and in a temporary folder when they were killed.

Each of them keeps its state in a folder of its own, whose lock it holds for as long as it lives. Where the lock is
free, whoever made the folder is gone, and what carries the labels that stand in it is nobody's.
"""

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import structlog

from agp_agent.engine import ContainerEngine
from agp_agent.errors import EngineError, StateDirectoryError
from agp_agent.fencing import bridge_name
from agp_agent.state_dir import LOCK_NAME, StateDir

log = structlog.get_logger(__name__)

_OWNERS: Final = ("run", "check", "doctor")
"""Their ``agp.agent_id``; their folders are called ``agp-<owner>-…``."""
_INSTANCE: Final = re.compile(r"[0-9a-f]{12}")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


async def remove(engine: ContainerEngine, places: Iterable[Path]) -> None:
    """Remove it wherever it is found under ``places``; what cannot be removed now is left to the next time."""
    for folder, owner in await asyncio.to_thread(_found_under, tuple(places)):  # others may have made thousands
        await _remove_one(engine, folder, owner)


def _found_under(places: Iterable[Path]) -> list[tuple[Path, str]]:
    found = ((path, owner) for place in places for owner in _OWNERS for path in sorted(place.glob(f"agp-{owner}-*")))
    return [(path, owner) for path, owner in found if _is_own(path)]


def _is_own(path: Path) -> bool:
    """Whether this user made the folder, and nobody else can put anything into it: in /tmp any name may be a trap."""
    try:
        found = path.lstat()
        is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE
        return is_private and (path / LOCK_NAME).lstat().st_size > 0  # without a word in it, it is being made
    except OSError:
        return False


async def _remove_one(engine: ContainerEngine, folder: Path, owner: str) -> None:
    try:
        with StateDir(folder) as state:
            if state.identity.agent_id != owner or not _INSTANCE.fullmatch(state.identity.instance):
                return
            await _remove_from_engine(engine, state.identity.labels)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    except (StateDirectoryError, OSError):  # held by one that lives
        return
    except EngineError as error:
        log.warning("what a killed command left is still there", folder=str(folder), why=str(error))
    else:
        log.info("removed what a killed command had left", folder=str(folder))


async def _remove_from_engine(engine: ContainerEngine, labels: Mapping[str, str]) -> None:
    for container in await engine.owned(labels):
        await engine.remove(container.container_id)
    for volume in await engine.owned_volumes(labels):
        await engine.remove_volume(volume)
    await engine.remove_bridge(bridge_name(labels))
