"""What the canary last found out about each network runner. Written by the canary, read by walks, doctor and status."""

import asyncio
from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass, field

from agp_agent.planner import RunSpec


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of one try."""

    runner: str
    problem: str | None
    """Why the runner is refused, one sentence; None: its fence holds."""
    checked_at_ms: int
    """Wall clock, milliseconds since 1970."""
    found: Mapping[str, str] = field(default_factory=dict)
    """What was tried → what it did: answered, fenced, silent."""


class Reach:
    """Holds the proofs. What decides a runner's reach is its name, its ``allow`` and its runtime."""

    def __init__(self) -> None:
        """Nothing is proven yet."""
        self._proofs: dict[Hashable, Proof] = {}
        self._wanted: dict[Hashable, RunSpec] = {}
        self._news = asyncio.Condition()
        self.asked = asyncio.Event()
        """Somebody waits for a runner that was never tried."""

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """The latest of every runner that was tried."""
        return tuple(self._proofs.values())

    async def problem(self, spec: RunSpec) -> str | None:
        """Why nothing of this plan may run; None: it may. Waits for the first try; tells at once where it has none."""
        if not spec.outbound:
            return None
        key = subject_of(spec)
        async with self._news:
            while key not in self._proofs:
                self._wanted[key] = spec
                self.asked.set()
                await self._news.wait()
            return self._proofs[key].problem

    @property
    def wanted(self) -> tuple[RunSpec, ...]:
        """Plans that somebody waits for."""
        return tuple(self._wanted.values())

    def of(self, spec: RunSpec) -> Proof | None:
        """The latest proof of this plan."""
        return self._proofs.get(subject_of(spec))

    async def set(self, spec: RunSpec, proof: Proof) -> None:
        """Write down how a try ended, and let those go on that wait for it."""
        async with self._news:
            self._proofs[subject_of(spec)] = proof
            self._wanted.pop(subject_of(spec), None)
            self._news.notify_all()

    def keep(self, subjects: Container[Hashable]) -> tuple[Proof, ...]:
        """Forget the proofs of all others, of runners that are in the catalog no more; return those."""
        gone = {subject: proof for subject, proof in self._proofs.items() if subject not in subjects}
        for subject in gone:
            del self._proofs[subject]
        return tuple(gone.values())


def subject_of(spec: RunSpec) -> Hashable:
    """What a proof is about: two plans of one subject have the same reach."""
    return spec.runner, spec.allow, spec.container.runtime
