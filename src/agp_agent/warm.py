"""What the pool knows of its containers, and what is asked of it."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from agp_agent.executor import Prepared
from agp_agent.pool_sizes import Wish

_FAILURES_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class PoolRules:
    """What the settings say, and how long a start is.

    ``uids``: how many users there are for containers; ``max_age_s``: none waits longer.
    """

    wish: Wish
    uids: int
    max_age_s: float = 3600.0
    before_ready: bool = False
    young_s: float = 1.0
    """So long a task that got a warm container counts as one that just starts; see ``Pool``."""


@dataclass(frozen=True, slots=True)
class WarmStatus:
    """A runner's containers that are prepared ahead: how many there are to be, how many wait, and who had one."""

    wanted: int = 0
    ready: int = 0
    hits: int = 0
    """Tasks that had one, since the agent started."""
    misses: int = 0
    """Tasks that ran cold although there are to be some."""


@dataclass(slots=True, eq=False)
class Warm:
    """A container that waits, or was claimed just now."""

    prepared: Prepared
    since_s: float
    ground: Hashable
    guard: asyncio.Task[None]
    """Ends when the container is of no use any more."""

    @property
    def slot(self) -> str:
        """Its name."""
        return self.prepared.container.name


@dataclass(slots=True)
class Backoff:
    """How long nothing is prepared for a runner whose containers cannot be prepared, or do not wait."""

    failures: int = 0
    until_s: float = 0.0

    def fail(self, now_s: float) -> float:
        """Wait longer each time, up to some minutes; return how long."""
        wait_s = 2.0 ** min(self.failures, _FAILURES_MAX) / 2
        self.failures += 1
        self.until_s = now_s + wait_s
        return wait_s
