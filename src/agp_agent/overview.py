"""How the agent is, in one look: for operators, behind the token."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agp_agent import __version__, planner
from agp_agent.audit import Audit
from agp_agent.catalog import Catalog, Runner
from agp_agent.engine import ContainerEngine, EngineInfo, PullPolicy
from agp_agent.errors import EngineError
from agp_agent.journal import Journal, OutboxView
from agp_agent.lacks import Lack
from agp_agent.lifecycle import State
from agp_agent.lockdown import lockdown
from agp_agent.metrics import Figures, WarmFigures
from agp_agent.planner import Limits, RunSpec
from agp_agent.pool import WarmStatus
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness

_LOOK_AGAIN_S: Final = 10.0
_PATIENCE_S: Final = 2.0
"""An engine that hangs must not hang who asks how the agent is."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine says of itself."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class FenceStatus:
    """How the last try of a network runner's fence ended. ``problem``: why the runner is refused; null: it holds."""

    problem: str | None
    checked_at_ms: int
    found: dict[str, str]
    """What was tried, and what it did."""


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """A runner's image and limits. ``image_digest``: null where the image is not on the engine, or it is not known."""

    image: str
    image_digest: str | None
    pull: PullPolicy
    network: str
    """``none``, or ``outbound``: the internet, and of what is not public only what ``allow`` names."""
    allow: list[str]
    fence: FenceStatus | None
    """What its fence was last found to do; null: it has no network, or was not tried yet."""
    memory_bytes: int
    cpus: float
    pids: int
    timeout_s: float
    max_running: int | None
    warm: WarmStatus
    lockdown: dict[str, str]
    """What confines each of its containers, by the measure's name."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Places for tasks: how many there are, and how many are free now."""

    max_running: int
    free: int


@dataclass(frozen=True, slots=True)
class Queue:
    """Tasks that have not ended, by their state."""

    queued: int
    preparing: int
    running: int
    max_queued: int


@dataclass(frozen=True, slots=True)
class Status:
    """The whole of it. ``problems`` keep tasks from starting, ``warnings`` do not; one sentence a part."""

    version: str
    agent_id: str
    ready: bool
    draining: bool
    paused: bool
    problems: dict[str, str]
    warnings: dict[str, str]
    engine: EngineStatus | None
    runners: dict[str, RunnerStatus]
    slots: Slots
    queue: Queue
    outbox: OutboxView
    audit_head: str


@dataclass(slots=True)
class _Seen:
    engine: EngineInfo | None = None
    digests: dict[str, str] = field(default_factory=dict)


class Overview:
    """Collects it. The engine is asked at most every ten seconds, whoever asks how often."""

    def __init__(
        self,
        journal: Journal,
        audit: Audit,
        readiness: Readiness,
        engine: ContainerEngine,
        catalog: Callable[[], Catalog],
        limits: Limits,
        reach: Reach,
        *,
        warm: Callable[[str], WarmStatus] = lambda _runner: WarmStatus(),
        accepted: frozenset[Lack] = frozenset(),
        agent_id: str,
        max_queued: int,
    ) -> None:
        """``catalog`` returns the one of now; ``accepted`` is what containers may lack where the engine cannot.

        ``warm`` tells how it stands with the warm containers of a runner.
        """
        self._journal = journal
        self._audit = audit
        self._readiness = readiness
        self._engine = engine
        self._catalog = catalog
        self._limits = limits
        self._reach = reach
        self._warm = warm
        self._accepted = accepted
        self._agent_id = agent_id
        self._max_queued = max_queued
        self._seen = _Seen()
        self._looking: asyncio.Task[None] | None = None
        self._looked_s = -math.inf

    async def status(self) -> Status:
        """How it is now.

        Raises:
            JournalUnavailable: the journal cannot be read.
        """
        await self._look_at_engine()
        states = await self._journal.views.states()
        readiness, engine = self._readiness, self._seen.engine
        under_way = states[State.PREPARING] + states[State.RUNNING]
        return Status(
            version=__version__,
            agent_id=self._agent_id,
            ready=readiness.ready,
            draining=readiness.draining,
            paused=readiness.paused,
            problems=dict(readiness.problems),
            warnings=dict(readiness.warnings),
            engine=EngineStatus(engine.name, engine.version) if engine else None,
            runners={name: self._runner(runner) for name, runner in self._catalog().runners.items()},
            slots=Slots(readiness.max_running, max(0, readiness.slots - under_way)),
            queue=Queue(states[State.QUEUED], states[State.PREPARING], states[State.RUNNING], self._max_queued),
            outbox=await self._journal.views.outbox(),
            audit_head=str(self._audit.head_on_disk),
        )

    async def figures(self) -> Figures:
        """What is counted, for Prometheus. Raises as ``status`` does."""
        outbox = await self._journal.views.outbox()
        return Figures(
            states=await self._journal.views.states(),
            results_pending=outbox.pending,
            dead_letters=outbox.dead_letters,
            oldest_queued_s=await self._journal.views.oldest_queued_s(),
            oldest_result_s=outbox.oldest_age_s,
            max_running=self._readiness.max_running,
            max_queued=self._max_queued,
            is_ready=self._readiness.ready,
            is_paused=self._readiness.paused,
            problems=tuple(self._readiness.problems),
            audit_events=self._audit.counts,
            warm={name: _figures(self._warm(name)) for name in self._catalog().names},
        )

    async def aclose(self) -> None:
        """Ask the engine nothing any more. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _runner(self, runner: Runner) -> RunnerStatus:
        spec = planner.plan(runner, self._limits, {})
        proof = self._reach.of(spec) if spec.outbound else None
        return RunnerStatus(
            image=runner.image,
            image_digest=self._seen.digests.get(runner.image),
            pull=runner.pull,
            network=runner.network,
            allow=[str(one) for one in spec.allow],
            fence=FenceStatus(proof.problem, proof.checked_at_ms, dict(proof.found)) if proof else None,
            memory_bytes=spec.container.memory_bytes,
            cpus=spec.container.cpus,
            pids=spec.container.pids,
            timeout_s=spec.timeout_s,
            max_running=runner.max_running,
            warm=self._warm(runner.name),
            lockdown=lockdown(spec.container, network=_network(spec), without=self._lacks()),
        )

    def _lacks(self) -> frozenset[Lack]:
        """What containers may really lack; an engine that was not seen yet may lack all that is accepted."""
        engine = self._seen.engine
        return self._accepted & engine.lacks if engine else self._accepted

    async def _look_at_engine(self) -> None:
        """Look again where the last look is old; wait for it, but not for long: then the last one is told."""
        is_over = self._looking is None or self._looking.done()
        if is_over and time.monotonic() - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = time.monotonic()
            self._looking = asyncio.create_task(self._look(), name="look at the engine")
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=_PATIENCE_S)

    async def _look(self) -> None:
        seen = _Seen()
        with contextlib.suppress(EngineError):
            seen.engine = await self._engine.describe()
            for runner in self._catalog().runners.values():
                with contextlib.suppress(EngineError):
                    seen.digests[runner.image] = (await self._engine.image(runner.image, PullPolicy.NEVER)).digest
        self._seen = seen


def _network(spec: RunSpec) -> str:
    if not spec.outbound:
        return "none"
    allowed = ", ".join(map(str, spec.allow))
    return "fenced: the internet, and of what is not public " + (f"{allowed} alone" if allowed else "nothing")


def _figures(warm: WarmStatus) -> WarmFigures:
    return WarmFigures(wanted=warm.wanted, waiting=warm.ready, hits=warm.hits, misses=warm.misses)
