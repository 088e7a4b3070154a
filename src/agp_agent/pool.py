"""Warm containers: ordinary prepared containers that no task has claimed yet.

The pool prepares them in the background and hands each to one task. Nothing of a task is ever on one. It is best
effort: where there is none, or none that is as good as one prepared now, a task runs cold and nobody sees more of it
than the time.

Refilling gives way to tasks: one container is made at a time, none while one is prepared for a task that waits for it,
none right after a claim, when that task just starts, none in the first second of a burst that is not over yet, and none
while the machine is short of memory or something is the matter with the agent. A runner that pulls its image each time
has a lane of its own: a slow registry holds up no other.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Final

import structlog

from agp_agent import free_memory, planner, pool_sizes
from agp_agent.catalog import Catalogs
from agp_agent.engine import ContainerEngine, EngineInfo, PullPolicy
from agp_agent.errors import ConfigurationError
from agp_agent.executor import Executor, Prepared
from agp_agent.filling import Filling
from agp_agent.freshness import Freshness
from agp_agent.planner import Limits, RunSpec
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness
from agp_agent.removal import Removal
from agp_agent.warm import PoolRules, Warm, WarmStatus

__all__ = ["PART", "Pool", "PoolRules", "WarmStatus"]

log = structlog.get_logger(__name__)

PART: Final = "warm containers"
MEMORY: Final = "memory"
_SHORT: Final = (
    f"less than {free_memory.SHORT_BELOW:.0%} of this machine's memory is available; no container is prepared ahead "
    f"until it is {free_memory.ENOUGH_ABOVE:.0%} again"
)
_LOOK_S: Final = 5.0
"""So late is it seen at the latest that a mount leads to another file, or that memory is short."""
_SETTLE_S: Final = 0.1
"""After a claim: a task that just starts is not to share the machine with the making of the next container."""
_LIVED_S: Final = 60.0
"""One that ends later than that did not end because it cannot wait."""


class Pool:
    """Prepares, keeps and hands out. Belongs to the event loop; ``claim`` never waits for anything."""

    def __init__(
        self,
        engine: ContainerEngine,
        executor: Executor,
        catalogs: Catalogs,
        readiness: Readiness,
        reach: Reach,
        *,
        limits: Limits,
        labels: dict[str, str],
        rules: PoolRules,
        memory_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Nothing moves yet, and nothing is wanted before ``fit``.

        ``memory_left``: the share of the memory of the engine's host that is available; None: nobody knows.
        """
        self._engine = engine
        self._executor = executor
        self._catalogs = catalogs
        self._readiness = readiness
        self._reach = reach
        self._limits = limits
        self._labels = labels
        self._rules = rules
        self._memory_left = memory_left
        self._freshness = Freshness(engine, executor)
        self._images_moved = engine.image_news()
        self._news = asyncio.Event()
        self._wakers = (self._news, self._images_moved, catalogs.subscribe(), readiness.subscribe())
        self._ready: defaultdict[str, list[Warm]] = defaultdict(list)
        self._claimed: dict[str, Warm] = {}
        self._slots: set[str] = set()
        self._removal = Removal(executor)
        self._filling = Filling(executor, self._take_in, self._removal.take_over, self._news.set)
        self._looked_s = float("-inf")
        self._not_before_s = 0.0
        self._preparing = 0
        self._young: dict[str, float] = {}
        self._is_short = False
        self._closed = False
        self.wanted: dict[str, int] = {}
        """How many each runner is to have."""
        self.hits: Counter[str] = Counter()
        """How many tasks of each runner had a warm container."""
        self.misses: Counter[str] = Counter()
        """How many ran cold although their runner is to have warm ones."""
        if rules.before_ready:
            readiness.problems[PART] = "they are being prepared"

    # --- how many ----------------------------------------------------------------------------------------------------

    def fit(self, info: EngineInfo) -> int:
        """Decide how many there are to be on this engine, and return their sum.

        Raises:
            ConfigurationError: the operator wants more than it holds. Not while some are there: then it is a warning.
        """
        catalog, rules = self._catalogs.current, self._rules
        rooms = (
            pool_sizes.room_of_users(rules.uids),
            pool_sizes.room_of_memory(info.memory_bytes, catalog.largest_memory_bytes),
        )
        problem = None
        for room in rooms:
            try:
                room.check(catalog, rules.wish)
            except ConfigurationError as error:
                if not self.wanted:
                    raise
                problem = str(error)
        self._readiness.warn(PART, problem)
        self.wanted = pool_sizes.sizes(catalog, rules.wish, *rooms)
        self._news.set()
        return sum(self.wanted.values())

    def status(self, runner: str) -> WarmStatus:
        """How it stands."""
        return WarmStatus(self.wanted.get(runner, 0), self.ready(runner), self.hits[runner], self.misses[runner])

    def ready(self, runner: str) -> int:
        """How many wait for a task of this runner."""
        return len(self._ready[runner])

    @property
    def slots(self) -> frozenset[str]:
        """Slots that are the pool's, or were claimed so lately that the journal need not have them."""
        return frozenset(self._slots | self._filling.slots | self._removal.slots)

    # --- handing out -------------------------------------------------------------------------------------------------

    def claim(self, spec: RunSpec) -> Prepared | None:
        """A container that is as good as one that was prepared by this plan now; None: there is none.

        Whoever has claimed it says what became of it: ``let_go`` before its release, else ``give_back`` or ``abandon``.
        """
        self._drop_what_is_not_good(spec.runner)
        for warm in self._ready[spec.runner] if self._is_allowed(spec) else ():
            if warm.prepared.spec == spec:
                self._ready[spec.runner].remove(warm)
                self._claimed[warm.slot] = warm
                return warm.prepared
        return None

    def let_go(self, prepared: Prepared) -> bool:
        """It is the task's now: the journal has its slot. False: it is of no use any more, and not to be released."""
        slot = prepared.container.name
        self._slots.discard(slot)
        warm = self._claimed.pop(slot, None)
        if warm is None:  # prepared for that task alone
            return True
        self._filling.succeeded(prepared.spec.runner)
        self._not_before_s = self._now_s() + _SETTLE_S
        self._young[slot] = self._now_s() + self._rules.young_s
        self._news.set()
        is_well = not warm.guard.done()
        warm.guard.cancel()
        return is_well

    def ended(self, slot: str) -> None:
        """The task in this slot is at its end, whether or not the container had waited for it."""
        if self._young.pop(slot, None) is not None:
            self._news.set()

    def served(self, runner: str) -> None:
        """A task of this runner has its warm container."""
        self.hits[runner] += 1

    def missed(self, runner: str) -> None:
        """A task of this runner runs cold."""
        if self.wanted.get(runner):
            self.misses[runner] += 1

    def give_back(self, prepared: Prepared) -> None:
        """It was not used: the next task may have it."""
        warm = self._claimed.pop(prepared.container.name)
        if self._closed:
            self._remove(warm)
        else:
            self._ready[prepared.spec.runner].insert(0, warm)
            self._news.set()

    def abandon(self, prepared: Prepared) -> None:
        """It is not to be released, and nobody is to have it; it ends by itself, and whoever looks finds it so.

        It is not removed: where a journal in doubt has it all the same, its end proves that nothing was started.
        """
        self.let_go(prepared)
        self._removal.hold(prepared.attachment.aclose(), f"close {prepared.container.name}")

    @contextlib.contextmanager
    def yielding(self) -> Iterator[None]:
        """While a container is prepared for a task, none is prepared ahead: somebody waits for that one."""
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1
            self._news.set()

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fill up what is missing, and sleep until that may be otherwise."""
        while True:
            try:
                await self._round()
            except Exception:
                # Best effort, whatever went wrong: tasks run cold, and the agent lives.
                log.exception("warm containers not looked after; trying again", again_in_s=_LOOK_S)
                await asyncio.sleep(_LOOK_S)

    async def _round(self) -> None:
        for waker in self._wakers:
            if waker.is_set() and waker is self._images_moved:
                self._looked_s = float("-inf")
            waker.clear()
        await self._look()
        while (spec := self._next()) is not None:
            self._filling.begin(spec)
        self._tell_filled()
        await self._pause()

    async def _pause(self) -> None:
        now_s = self._now_s()
        moments = [self._looked_s + _LOOK_S, self._not_before_s, *self._filling.next_tries_s(), *self._young.values()]
        wait_s = min((moment for moment in moments if moment > now_s), default=now_s + _LOOK_S) - now_s
        waiters = [asyncio.create_task(waker.wait()) for waker in self._wakers]
        try:
            await asyncio.wait(waiters, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    async def _look(self) -> None:
        """See now and then how it stands with memory and images, and drop what is not good any more."""
        specs = self._specs()
        names = {spec.container.image for spec in specs.values()}
        is_due = self._now_s() - self._looked_s >= _LOOK_S or not self._freshness.is_known(names)
        if is_due and "engine" not in self._readiness.problems:
            self._looked_s = self._now_s()
            self._removal.try_again()
            self._look_at_memory()
            await self._freshness.look_at_images(names)
            for warm in [warm for waiting in self._ready.values() for warm in waiting]:
                if await self._freshness.has_new_ground(warm) and warm in self._ready[warm.prepared.spec.runner]:
                    self._drop(warm, "what it stands on has changed")
            specs = self._specs()  # the catalog may be another one by now
        for runner in list(self._ready):
            self._drop_what_is_not_good(runner, specs)

    def _look_at_memory(self) -> None:
        """What nobody needs yet is the first to go where memory is short, and comes back by itself."""
        share = self._memory_left()
        limit = free_memory.ENOUGH_ABOVE if self._is_short else free_memory.SHORT_BELOW
        self._is_short = share is not None and share < limit
        self._readiness.warn(MEMORY, _SHORT if self._is_short and self.wanted else None)

    def _specs(self) -> dict[str, RunSpec]:
        runners = self._catalogs.current.runners
        return {
            name: planner.plan(runners[name], self._limits, self._labels)
            for name, number in self.wanted.items()
            if number and name in runners and not self._is_short
        }

    def _drop_what_is_not_good(self, runner: str, specs: dict[str, RunSpec] | None = None) -> None:
        waiting, epoch = self._ready[runner], self._engine.epoch
        for warm in tuple(waiting):
            if why := self._fault(warm, epoch):
                self._drop(warm, why)
        if specs is None:  # whoever claims compares by itself
            return
        for warm in tuple(waiting):
            if self._closed or warm.prepared.spec != specs.get(runner) or len(waiting) > self.wanted.get(runner, 0):
                self._drop(warm, "it is not wanted any more")

    def _fault(self, warm: Warm, epoch: int) -> str | None:
        """Why it is not as good as one that is prepared now; None: it is."""
        if warm.prepared.epoch != epoch:
            return "contact to the engine was interrupted"
        if warm.guard.done():
            return "it has ended, was paused, or is gone"
        if self._now_s() - warm.since_s >= self._rules.max_age_s:
            return "it is old"
        if not self._freshness.is_of_today(warm.prepared):
            return "its image has changed"
        return None

    # --- filling -----------------------------------------------------------------------------------------------------

    def _next(self) -> RunSpec | None:
        """What is to be prepared now; None: nothing, or this is not the time."""
        if self._closed or self._readiness.draining or self._readiness.problems.keys() - {PART} or self._gives_way():
            return None
        missing = [spec for name, spec in self._specs().items() if len(self._ready[name]) < self.wanted[name]]
        return next((spec for spec in missing if self._can_prepare(spec)), None)

    def _gives_way(self) -> bool:
        """Whether some task needs the machine more: one that is being prepared, that just starts, or a burst."""
        now_s = self._now_s()
        self._young = {slot: until_s for slot, until_s in self._young.items() if until_s > now_s}
        return bool(self._preparing) or now_s < self._not_before_s or len(self._young) > 1

    def _can_prepare(self, spec: RunSpec) -> bool:
        is_there = spec.pull is PullPolicy.ALWAYS or self._freshness.is_there(spec.container.image)
        return is_there and self._is_allowed(spec) and self._filling.may_begin(spec)

    def _is_allowed(self, spec: RunSpec) -> bool:
        proof = self._reach.of(spec)
        return not spec.outbound or (proof is not None and proof.problem is None)

    def _take_in(self, prepared: Prepared, ground: Hashable) -> None:
        self._slots.add(prepared.container.name)
        guard = asyncio.create_task(self._engine.spoiled(prepared.container_id), name="guard a warm container")
        warm = Warm(replace(prepared, is_warm=True), self._now_s(), ground, guard)
        guard.add_done_callback(lambda done: self._on_spoiled(warm, done))
        self._freshness.note(prepared)
        self._ready[prepared.spec.runner].append(warm)
        self._news.set()

    def _on_spoiled(self, warm: Warm, guard: asyncio.Task[None]) -> None:
        runner = warm.prepared.spec.runner
        if guard.cancelled() or warm not in self._ready[runner]:
            return
        if self._now_s() - warm.since_s < _LIVED_S and warm.prepared.epoch == self._engine.epoch:
            self._filling.failed(runner, None)
        self._news.set()

    def _tell_filled(self) -> None:
        """All are there, or were tried: that is all that the agent's being ready waits for."""
        specs = self._specs()
        if PART not in self._readiness.problems or self._readiness.problems.keys() != {PART} or not self.wanted:
            return
        done = (self.ready(name) >= self.wanted[name] or self._was_tried(spec) for name, spec in specs.items())
        if all(done):
            self._readiness.report(PART, None)

    def _was_tried(self, spec: RunSpec) -> bool:
        is_refused = spec.outbound and (proof := self._reach.of(spec)) is not None and proof.problem is not None
        has_no_image = self._freshness.is_missing(spec.container.image)
        return is_refused or has_no_image or self._filling.has_failed(spec.runner)

    # --- removing ----------------------------------------------------------------------------------------------------

    def _drop(self, warm: Warm, why: str) -> None:
        log.debug("warm container dropped", slot=warm.slot, runner=warm.prepared.spec.runner, why=why)
        self._ready[warm.prepared.spec.runner].remove(warm)
        self._remove(warm)

    def _remove(self, warm: Warm) -> None:
        self._removal.begin(warm)
        self._slots.discard(warm.slot)
        self._news.set()

    async def drain(self) -> None:
        """Prepare none any more, and return once all that waited are removed."""
        self._closed = True
        await self._filling.stop()
        for warm in [warm for waiting in self._ready.values() for warm in waiting]:
            self._drop(warm, "the agent stops")
        await self._removal.idle()

    async def aclose(self) -> None:
        """Let go of all: they end by themselves, and the next agent removes what is left. Idempotent."""
        self._closed = True
        left = [*self._claimed.values(), *(warm for waiting in self._ready.values() for warm in waiting)]
        guards = [warm.guard for warm in left]
        for guard in guards:
            guard.cancel()
        closing = (warm.prepared.attachment.aclose() for warm in left)
        await asyncio.gather(self._filling.stop(), self._removal.stop(), *guards, *closing, return_exceptions=True)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
