"""Makes containers ahead of time: one at a time, and less and less often for a runner with which that does not work."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

import structlog

from agp_agent import slots
from agp_agent.engine import PullPolicy
from agp_agent.errors import EngineError, EngineUnavailable
from agp_agent.executor import Executor, Prepared
from agp_agent.planner import RunSpec
from agp_agent.warm import Backoff

log = structlog.get_logger(__name__)


class Filling:
    """What is being made just now, and when the next may be tried. Belongs to the event loop."""

    def __init__(
        self,
        executor: Executor,
        take_in: Callable[[Prepared, Hashable], None],
        leave_behind: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        """Nothing is made yet.

        ``take_in`` gets each container that is made, and the ground that it stands on; ``leave_behind`` the slot of one
        that the engine went away over, half made. Then ``on_end`` is called.
        """
        self._executor = executor
        self._take_in = take_in
        self._leave_behind = leave_behind
        self._on_end = on_end
        self._fills: dict[str, asyncio.Task[None]] = {}
        self._backoffs: defaultdict[str, Backoff] = defaultdict(Backoff)
        self.slots: set[str] = set()
        """Slots of what is being made."""

    def may_begin(self, spec: RunSpec) -> bool:
        """Whether nothing else is made on its lane, and enough time has passed since the last failure."""
        return _lane(spec) not in self._fills and _now_s() >= self._backoffs[spec.runner].until_s

    def begin(self, spec: RunSpec) -> None:
        """Make one."""
        lane = _lane(spec)
        self._fills[lane] = asyncio.create_task(self._fill(spec), name=f"prepare ahead for {spec.runner}")
        self._fills[lane].add_done_callback(lambda _done: self._end(lane))

    def _end(self, lane: str) -> None:
        self._fills.pop(lane, None)
        self._on_end()

    async def _fill(self, spec: RunSpec) -> None:
        slot = slots.new_name()
        self.slots.add(slot)
        try:
            ground = await asyncio.to_thread(self._executor.ground, spec)
            self._take_in(await self._executor.prepare(spec, slot), ground)
        except Exception as error:  # noqa: BLE001  best effort, whatever went wrong: it is told, and tried again
            if isinstance(error, EngineUnavailable):
                self._leave_behind(slot)
            self.failed(spec.runner, error)
        finally:
            self.slots.discard(slot)

    async def stop(self) -> None:
        """Break off what is being made, and return once nothing of it is left."""
        fills = tuple(self._fills.values())
        for fill in fills:
            fill.cancel()
        await asyncio.gather(*fills, return_exceptions=True)

    # --- failures ----------------------------------------------------------------------------------------------------

    def failed(self, runner: str, error: Exception | None) -> None:
        """One could not be made, or (None) did not wait; the next is tried later."""
        if error is not None and not isinstance(error, EngineError | OSError):
            log.error("warm container not prepared", runner=runner, exc_info=error)
        why = str(error) if error is not None else "it ended before any task came"
        wait_s = self._backoffs[runner].fail(_now_s())
        log.warning("no warm container: tasks of this runner start cold", runner=runner, why=why, again_in_s=wait_s)

    def succeeded(self, runner: str) -> None:
        """One waited until a task came: that works."""
        self._backoffs.pop(runner, None)

    def has_failed(self, runner: str) -> bool:
        """Whether the last one of this runner was none that a task got."""
        return self._backoffs[runner].failures > 0

    def next_tries_s(self) -> Iterator[float]:
        """When the runners with which it did not work may be tried again; by the loop's clock."""
        return (one.until_s for one in self._backoffs.values())


def _lane(spec: RunSpec) -> str:
    """Of each lane one container is made at a time. A pull may take minutes, and holds up nobody else."""
    return f"pull for {spec.runner}" if spec.pull is PullPolicy.ALWAYS else "ready images"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
