"""When results may knock at the dashboard. Pure: time and chance come from outside.

All agents of a fleet have the same dashboard: what is decided here decides what it gets to see after an outage.
"""

import math
import random
from collections.abc import Callable
from typing import Final

RETRY_AFTER_MAX_S: Final = 3600.0
"""More than this is not waited for, whatever the dashboard asks."""
LONGEST_S: Final = 2 * RETRY_AFTER_MAX_S
"""No wait is longer."""

_CONCURRENCY: Final = 4
_TAKEN_A_STEP: Final = 4
_FIRST_S: Final = 1.0
_LAST_S: Final = 300.0
_HOLD_S: Final = 60.0
_DOUBLINGS: Final = 20
_DOUBTS: Final = 4
"""So many different results in a row that were not taken say something about the dashboard."""


def bound_s(failures: int) -> float:
    """It doubles from 1 s to 5 min. ``failures`` came before this one."""
    return min(_LAST_S, _FIRST_S * 2.0 ** min(failures, _DOUBLINGS))


def backoff_s(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Full jitter: anything from 0 to the bound."""
    return bound_s(failures) * draw()


def wait_s(failures: int, retry_after_s: float, draw: Callable[[], float] = random.random) -> float:
    """What the dashboard asked for, then full jitter.

    The jitter is as wide as that wait: were it narrower, all agents that were sent away in one second would be back in
    one second, and sent away together again.
    """
    asked_s = min(retry_after_s, RETRY_AFTER_MAX_S)
    return asked_s + max(asked_s, bound_s(failures)) * draw()


class Gate:
    """Decides how many deliveries may be under way, and how long one that was not taken waits.

    While the dashboard is in trouble one delivery at a time tries, after a wait that grows. Its first word about a
    result ends the trouble; from then on every fourth lets one more delivery go beside the others, up to four at once:
    a fleet that comes back with all it has would only be sent away again.
    """

    def __init__(self, now_s: Callable[[], float], draw: Callable[[], float] = random.random) -> None:
        """``now_s``: a clock that never jumps; ``draw``: numbers from 0 to 1."""
        self._now_s = now_s
        self._draw = draw
        self._width = _CONCURRENCY
        self._taken = 0
        self._failures = 0
        self._closed_until_s = -math.inf
        self._doubted: set[int] = set()

    @property
    def closed_for_s(self) -> float:
        """Seconds until the next try; 0 where it is open."""
        return max(0.0, self._closed_until_s - self._now_s())

    @property
    def failures(self) -> int:
        """How often the dashboard was in trouble, one after the other."""
        return self._failures

    def places(self, under_way: int) -> int:
        """How many more deliveries may start now."""
        return 0 if self.closed_for_s else max(0, self._width - under_way)

    def settled(self) -> None:
        """The dashboard has taken a result, or refused it for good: it is there."""
        self._doubted.clear()
        if self.closed_for_s:
            return  # sent before it was in trouble: that says nothing of now
        self._failures = 0
        self._taken += 1
        if self._taken >= _TAKEN_A_STEP:
            self._taken = 0
            self._width = min(_CONCURRENCY, self._width + 1)

    def not_taken(self, seq: int, deliveries: int, *, away: bool, retry_after_s: float = 0.0) -> float:
        """A result was not taken; return in how many seconds it may be tried again.

        Args:
            seq: which result.
            deliveries: how often it was tried before.
            away: whether the answer was about the dashboard, not about the result.
            retry_after_s: what the dashboard asked for.
        """
        if len(self._doubted) < _DOUBTS:
            self._doubted.add(seq)
        if away or self._failures or len(self._doubted) >= _DOUBTS:
            return self._close(lambda failures: wait_s(failures, retry_after_s, self._draw), retry_after_s)
        return backoff_s(deliveries, self._draw)

    def held(self) -> float:
        """The dashboard does not accept the token; return in how many seconds to look again, a minute at most."""
        return self._close(lambda failures: min(_HOLD_S, bound_s(failures)) * self._draw())

    def _close(self, draw_wait_s: Callable[[int], float], retry_after_s: float = 0.0) -> float:
        """Let nothing through for a while. What was sent together is told together: it counts once."""
        closed_for_s = self.closed_for_s
        if not closed_for_s:
            self._failures += 1
        if closed_for_s <= min(retry_after_s, RETRY_AFTER_MAX_S):
            closed_for_s = draw_wait_s(self._failures - 1)
        self._closed_until_s = self._now_s() + closed_for_s
        self._width, self._taken = 1, 0
        return closed_for_s
