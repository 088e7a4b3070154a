"""What ``run``, ``runners check`` and the doctor left on the engine and in a temporary folder when they were killed.

Each of them keeps its state in a folder of its own, whose lock it holds for as long as it lives. Where the lock is
free, whoever made the folder is gone, and what carries the labels that stand in it is nobody's.
"""

import asyncio
import re
import shutil
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


async def remove(engine: ContainerEngine, places: Iterable[Path]) -> None:
    """Remove it wherever it is found under ``places``; what cannot be removed now is left to the next time."""
    for place in places:
        for owner in _OWNERS:
            for folder in sorted(place.glob(f"agp-{owner}-*")):
                await _remove_one(engine, folder, owner)


async def _remove_one(engine: ContainerEngine, folder: Path, owner: str) -> None:
    try:
        if not (folder / LOCK_NAME).stat().st_size:  # it is being made
            return
        with StateDir(folder) as state:
            if state.identity.agent_id != owner or not _INSTANCE.fullmatch(state.identity.instance):
                return
            await _remove_from_engine(engine, state.identity.labels)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    except (StateDirectoryError, OSError):  # held by one that lives, or another user's
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
