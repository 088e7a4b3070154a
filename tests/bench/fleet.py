"""Measurement 4: what a dashboard gets to see of a whole fleet when it returns after a day; simulated, in virtual time.

Every agent is the product's own ``Gate``, and nothing else of an agent. Beside it the same agents with simpler rules.
All of them are told the same by the same dashboard, which takes so many requests a second and answers the others with
503 and a Retry-After that gives each agent one turn: agents / Retry-After = its capacity.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from agp_agent.backoff import Gate, bound_s
from bench.stats import Row, median, verdict
from bench.workbench import say

SEED: Final = 20240

_SECTION: Final = (
    "{agents:,} agents, {results} results each; the dashboard is back after 24 h, takes {steady:.0f}/s, "
    "and says Retry-After {retry_after_s:.0f} s"
)
_FLEETS: Final = ((1_000, 3), (10_000, 1))
"""Agents, and how often they are simulated, each time with a seed of its own."""
_RESULTS: Final = 10
_RETRY_AFTER_S: Final = 30.0
_GOAL: Final = 2.0

_OUTAGE_S: Final = 24 * 3600.0
_NOTICED_WITHIN_S: Final = 10.0
"""A busy fleet: each agent had something to deliver so soon after the outage began."""
_TRIES_OF_THE_BEGINNING: Final = 20
"""After so many no wait grows any more, and nothing else is remembered: most hours of the outage are left out."""
_END_S: Final = 3600.0
"""So much of the outage's end is lived through again."""
_ANSWER_S: Final = (0.02, 0.08)
_BURST_S: Final = 0.1
"""The dashboard never takes more at once than its capacity in so much time."""
_BIN_S: Final = 0.1
_FIXED_S: Final = 5.0
_AT_ONCE: Final = 4


class Policy(Protocol):
    """When one agent may knock. The product's ``Gate`` is one."""

    @property
    def closed_for_s(self) -> float:
        """Seconds until the next try; 0 where it is open."""

    def places(self, under_way: int) -> int:
        """How many more deliveries may start now."""

    def settled(self) -> None:
        """A result was taken."""

    def not_taken(self, seq: int, deliveries: int, *, away: bool, retry_after_s: float = 0.0) -> float:
        """One was not; return for how long the agent waits."""


class Clock:
    """Virtual time in seconds: 0 is the dashboard's return."""

    now_s = -_OUTAGE_S

    def __call__(self) -> float:
        """The time it is set to."""
        return self.now_s


class Simple:
    """A rule without jitter: ``wait_s`` of the number of failures in a row and of Retry-After."""

    def __init__(self, clock: Clock, wait_s: Callable[[int, float], float]) -> None:
        """Of one agent."""
        self._clock = clock
        self._wait_s = wait_s
        self._failures = 0
        self._closed_until_s = -_OUTAGE_S

    @property
    def closed_for_s(self) -> float:
        """Seconds until the next try; 0 where it is open."""
        return max(0.0, self._closed_until_s - self._clock.now_s)

    def places(self, under_way: int) -> int:
        """One while the dashboard is in trouble, as the product has it, so that only the rules differ."""
        return 0 if self.closed_for_s else max(0, (1 if self._failures else _AT_ONCE) - under_way)

    def settled(self) -> None:
        """A result was taken."""
        if not self.closed_for_s:
            self._failures = 0

    def not_taken(self, seq: int, deliveries: int, *, away: bool, retry_after_s: float = 0.0) -> float:  # noqa: ARG002
        """One was not; what was sent together counts once."""
        if not self.closed_for_s:
            self._closed_until_s = self._clock.now_s + self._wait_s(self._failures, retry_after_s)
            self._failures += 1
        return self.closed_for_s


def _fixed(_failures: int, _retry_after_s: float) -> float:
    return _FIXED_S


def _exponential(failures: int, _retry_after_s: float) -> float:
    return bound_s(failures)


def _obedient(failures: int, retry_after_s: float) -> float:
    return max(retry_after_s, bound_s(failures))


OURS: Final = "ours"
_RULES: Final[dict[str, Callable[[int, float], float]]] = {
    "fixed 5 s": _fixed,
    "exponential": _exponential,
    "exponential, obeys Retry-After": _obedient,
}


@dataclass
class Fleet:
    """So many agents with results waiting, and their dashboard."""

    agents: int
    policy: str
    seed: int
    results: int = _RESULTS
    retry_after_s: float = _RETRY_AFTER_S
    knocks: int = 0
    """In the last hour of the outage."""
    refused: int = 0
    drained_at_s: float = 0.0
    seen: Counter[int] = field(default_factory=Counter)
    """Requests after the return, by tenths of a second."""

    def __post_init__(self) -> None:
        """Put everything in its place."""
        self._chance = random.Random(self.seed)  # noqa: S311  a simulation
        self._clock = Clock()
        self._policies = [self._make() for _ in range(self.agents)]
        self._left = [self.results] * self.agents
        self._under_way = [0] * self.agents
        self._events: list[tuple[float, int, bool | None]] = []
        self._capacity = self.agents / self.retry_after_s
        self._tokens, self._filled_at_s = 0.0, 0.0

    def _make(self) -> Policy:
        if self.policy == OURS:
            return Gate(self._clock, self._chance.random)
        return Simple(self._clock, _RULES[self.policy])

    def run(self) -> "Fleet":
        """Live through the outage, then until everything is delivered."""
        for agent in range(self.agents):
            heapq.heappush(self._events, (self._through_the_outage(agent), agent, None))
        while self._events:
            self._clock.now_s, agent, taken = heapq.heappop(self._events)
            if taken is not None:
                self._answered(agent, taken=taken)
            self._go_on(agent)
        return self

    def _through_the_outage(self, agent: int) -> float:
        """The tries of one agent while nobody answers; return when it knocks next. The others make no difference."""
        clock, policy, tries = self._clock, self._policies[agent], 0
        clock.now_s = -_OUTAGE_S + self._chance.uniform(0, _NOTICED_WITHIN_S)
        while clock.now_s < 0:
            wait_s = policy.not_taken(0, tries, away=True)
            tries += 1
            if tries == _TRIES_OF_THE_BEGINNING:
                clock.now_s += wait_s * int((-_END_S - clock.now_s) / wait_s)
            self.knocks += clock.now_s >= -_END_S
            clock.now_s += wait_s
        return clock.now_s

    def _go_on(self, agent: int) -> None:
        """Send what may be sent; where the policy says no, look again when it may change its mind."""
        policy, now_s = self._policies[agent], self._clock.now_s
        if closed_for_s := policy.closed_for_s:
            if not self._under_way[agent] and self._left[agent]:
                heapq.heappush(self._events, (now_s + closed_for_s, agent, None))
            return
        for _ in range(min(policy.places(self._under_way[agent]), self._left[agent] - self._under_way[agent])):
            self._under_way[agent] += 1
            self.seen[int(now_s / _BIN_S)] += 1
            heapq.heappush(self._events, (now_s + self._chance.uniform(*_ANSWER_S), agent, self._takes()))

    def _takes(self) -> bool:
        """Whether the dashboard has room for one more: its capacity, at most one second's worth at once."""
        now_s = self._clock.now_s
        burst = max(1.0, self._capacity * _BURST_S)
        self._tokens = min(burst, self._tokens + (now_s - self._filled_at_s) * self._capacity)
        self._filled_at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _answered(self, agent: int, *, taken: bool) -> None:
        self._under_way[agent] -= 1
        if taken:
            self._left[agent] -= 1
            self._policies[agent].settled()
            self.drained_at_s = self._clock.now_s
        else:
            self.refused += 1
            self._policies[agent].not_taken(0, 0, away=True, retry_after_s=self.retry_after_s)

    def peak_per_s(self, window_s: float) -> float:
        """The most requests in any window of this length, a second."""
        width, last = round(window_s / _BIN_S), max(self.seen)
        total = most = 0
        for end in range(last + 1):
            total += self.seen[end] - (self.seen[end - width] if end >= width else 0)
            most = max(most, total)
        return most / window_s


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is counted. ``goal``: how many times the steady rate it may be; None where there is no goal."""

    what: str
    unit: str
    of: Callable[[Fleet], float]
    goal: float | None = None


_FIGURES: Final = (
    Figure("peak of 1 s", "/s", lambda fleet: fleet.peak_per_s(1), _GOAL),
    Figure("peak of 10 s", "/s", lambda fleet: fleet.peak_per_s(10), _GOAL),
    Figure("until all is delivered", "s", lambda fleet: fleet.drained_at_s),
    Figure("requests until then", "", lambda fleet: sum(fleet.seen.values())),
    Figure("knocks during the outage", "/s", lambda fleet: fleet.knocks / _END_S),
)


def measure(seed: int) -> list[Row]:
    """Simulate every fleet under every policy."""
    rows: list[Row] = []
    for agents, rounds in _FLEETS:
        fleets: dict[str, list[Fleet]] = {}
        for policy in (OURS, *_RULES):
            say(f"  {agents:,} agents: {policy}")
            fleets[policy] = [Fleet(agents, policy, seed + number).run() for number in range(rounds)]
        rows += [row for figure in _FIGURES for row in _rows(agents, figure, fleets)]
    return rows


def _rows(agents: int, figure: Figure, fleets: dict[str, list[Fleet]]) -> list[Row]:
    steady = agents / _RETRY_AFTER_S
    section = _SECTION.format(agents=agents, results=_RESULTS, steady=steady, retry_after_s=_RETRY_AFTER_S)
    samples = {policy: tuple(figure.of(fleet) for fleet in simulated) for policy, simulated in fleets.items()}
    ours = median(samples[OURS])
    rows = []
    for policy, values in samples.items():
        beside = [f"{median(values) / ours:.2f} x ours"] if policy != OURS else []
        goal = ""
        if figure.goal is not None:
            beside.insert(0, f"{median(values) / steady:.2f} x steady")
        if figure.goal is not None and policy == OURS:
            goal = verdict(f"<= {figure.goal:g} x steady", met=max(values) <= figure.goal * steady)
        rows.append(Row(section, f"{figure.what}: {policy}", figure.unit, values, "; ".join(beside), goal))
    return rows
