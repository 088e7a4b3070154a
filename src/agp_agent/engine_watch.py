"""Keeps contact with the engine: waits for it, finds out how playbooks are handed over, notices when it goes away."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from agp_agent import descriptors, lacks, pool_sizes
from agp_agent.catalog import Catalogs, Runner
from agp_agent.engine import ContainerEngine, EngineInfo, PullPolicy
from agp_agent.errors import AgentError, ConfigurationError, EngineReplaced, EngineUnavailable, ImageUnavailable
from agp_agent.executor import Executor
from agp_agent.lacks import Lack
from agp_agent.pool import Pool
from agp_agent.readiness import Readiness
from agp_agent.slots import choose_slots

log = structlog.get_logger(__name__)

TASKS_PER_CORE: Final = 4
_CHECK_S: Final = 5.0
_RETRY_S: Final = 1.0
_PATIENCE_S: Final = 3.0
"""An engine that takes longer to say who it is hangs; calls that wait for it have a patience of their own."""
LOCKDOWN: Final = "lockdown"
_PARTS: Final = ("engine", "runner images")


class EngineWatch:
    """Loop that sets the engine's part of ``Readiness``.

    ``on_contact`` is awaited after each (new) contact, before the agent becomes ready: what an earlier agent left on
    the engine must be counted before anything new is started.
    """

    def __init__(
        self,
        engine: ContainerEngine,
        executor: Executor,
        pool: Pool,
        catalogs: Catalogs,
        readiness: Readiness,
        on_contact: Callable[[], Awaitable[None]],
        *,
        slots: Path,
        engine_state_dir: Path | None,
        labels: dict[str, str],
        max_running: int | None,
        max_uids: int,
        accepted: frozenset[Lack] = frozenset(),
    ) -> None:
        """``max_running`` and ``engine_state_dir`` are the operator's, or None; ``max_uids`` bounds the former.

        ``accepted`` is what containers may lack where the engine cannot do it.
        """
        self._engine = engine
        self._executor = executor
        self._pool = pool
        self._catalogs = catalogs
        self._catalog_changed = catalogs.subscribe()
        self._readiness = readiness
        self._on_contact = on_contact
        self._slots = slots
        self._engine_state_dir = engine_state_dir
        self._labels = labels
        self._max_running = max_running
        self._max_uids = max_uids
        self._accepted = accepted
        self._epoch: int | None = None
        self._asked: asyncio.Task[EngineInfo] | None = None

    async def run(self) -> None:
        """Check again and again, quickly while something is missing."""
        while True:
            part, problem = await self._check()
            for each in _PARTS:
                self._report(each, problem if each == part else None)
            await self._pause(_RETRY_S if problem else _CHECK_S)

    async def _pause(self, timeout_s: float) -> None:
        """Sleep; shorter where contact broke or somebody doubts the engine, but never so short that it spins."""
        await asyncio.sleep(_RETRY_S)
        for _ in range(round(timeout_s / _RETRY_S) - 1):
            if self._is_news():
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await self._readiness.doubted.wait()
        self._readiness.doubted.clear()

    def _is_news(self) -> bool:
        return self._readiness.doubted.is_set() or self._catalog_changed.is_set() or self._epoch != self._engine.epoch

    async def _check(self) -> tuple[str, str | None]:
        try:
            info = await self._describe()
            if self._epoch != (epoch := self._engine.epoch) or self._catalog_changed.is_set():
                self._catalog_changed.clear()  # other images, and other limits to divide the memory by
                await self._contact(info)
                self._epoch = epoch
        except (ConfigurationError, EngineReplaced):  # nothing that goes away by itself
            raise
        except ImageUnavailable as error:
            return "runner images", str(error)
        except (AgentError, OSError) as error:  # the journal's too: it is read at each contact
            return "engine", str(error)
        return "engine", None

    async def _describe(self) -> EngineInfo:
        """Ask the engine who it is, but wait no longer than is usual; where it hangs, it is not asked twice at once."""
        if self._asked is None:
            self._asked = asyncio.create_task(self._engine.describe(), name="describe engine")
        if not (await asyncio.wait({self._asked}, timeout=_PATIENCE_S))[0]:
            raise EngineUnavailable(
                f"the engine does not answer within {_PATIENCE_S:g} s; it may be overloaded or stopped"
            )
        asked, self._asked = self._asked, None
        return await asked

    def _report(self, part: str, problem: str | None) -> None:
        if self._readiness.report(part, problem):
            if problem is None:
                log.info("available", part=part)
            else:
                log.warning("not available: tasks are accepted and wait", part=part, why=problem)

    async def _contact(self, info: EngineInfo) -> None:
        """Everything that is to be found out once the engine answers."""
        image = await self._any_image()
        slots = await choose_slots(self._engine, self._slots, image, self._labels, self._engine_state_dir)
        self._executor.use_slots(slots)
        warm = self._pool.fit(info)
        catalog = self._catalogs.current
        number, why = decide_max_running(
            info,
            catalog.largest_memory_bytes,
            self._max_running,
            max(1, self._max_uids - warm),
            max(1, descriptors.tasks_max(descriptors.limit()) - warm),
            warm_bytes=pool_sizes.memory_bytes(catalog, self._pool.wanted),
        )
        self._readiness.max_running = number
        self._readiness.warn(LOCKDOWN, describe_lacks(info.lacks, self._accepted))
        log.info(
            "engine found",
            engine=f"{info.name} {info.version}",
            cores=info.cores,
            memory_mib=info.memory_bytes // 2**20,
            playbooks_by=slots.kind,
            max_running=number,
            max_running_because=why,
            warm=self._pool.wanted,
        )
        await self._on_contact()

    async def _any_image(self) -> str:
        """An image for the probe of the slots: a runner's that is there, else the first that can be had."""
        found = [runner.image for runner in self._catalogs.current.runners.values() if await self._has(runner)]
        if found:
            return found[0]
        missing: list[str] = []
        for runner in self._catalogs.current.runners.values():
            try:
                return (await self._engine.image(runner.image, runner.pull)).name
            except ImageUnavailable as error:
                missing.append(str(error))
        raise ImageUnavailable(f"no runner's image is available ({'; '.join(missing)})")

    async def _has(self, runner: Runner) -> bool:
        try:
            await self._engine.image(runner.image, PullPolicy.NEVER)
        except ImageUnavailable as error:
            log.warning("a runner's image is not on the engine", runner=runner.name, pull=runner.pull, why=str(error))
            return False
        return True


def describe_lacks(lacking: frozenset[Lack], accepted: frozenset[Lack]) -> str | None:
    """What is missing of the lockdown on this engine, and whether tasks run all the same."""
    if refused := lacking - accepted:
        names = lacks.listed(refused)
        return f"the engine cannot do: {names}; containers are refused unless AGP_ACCEPT_DEGRADED accepts that"
    return f"missing, as AGP_ACCEPT_DEGRADED accepts: {lacks.listed(lacking)}" if lacking else None


def decide_max_running(
    info: EngineInfo,
    largest_memory_bytes: int,
    wanted: int | None,
    max_uids: int,
    max_by_files: int = sys.maxsize,
    warm_bytes: int = 0,
) -> tuple[int, str]:
    """How many tasks run at once, and why. ``warm_bytes`` are kept for containers that wait."""
    bounds = [
        (max_uids, "AGP_UID_RANGE holds no more users"),
        (max_by_files, "RLIMIT_NOFILE grants no more file descriptors"),
    ]
    if wanted is not None:
        return min([(wanted, "AGP_MAX_RUNNING"), *bounds], key=lambda candidate: candidate[0])
    cores = info.cores or os.cpu_count() or 1
    by_cores = TASKS_PER_CORE * cores
    memory_bytes = int(info.memory_bytes * pool_sizes.MEMORY_SHARE) - warm_bytes
    by_memory = max(1, memory_bytes // largest_memory_bytes)
    beside = f" beside {warm_bytes // 2**20} MiB of warm containers" if warm_bytes else ""
    candidates = [
        (by_cores, f"{TASKS_PER_CORE} x {cores} cores"),
        (by_memory, f"{largest_memory_bytes // 2**20} MiB each in 80 % of the host's memory{beside}"),
        *bounds,
    ]
    return min(candidates, key=lambda candidate: candidate[0])
