"""How many warm containers each runner has: what the operator wants, as far as the machine holds it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agp_agent.catalog import Catalog, Runner
from agp_agent.engine import PullPolicy
from agp_agent.errors import ConfigurationError

MEMORY_SHARE: Final = 0.8
"""Of the engine's host, for all containers together; the rest is for the host itself."""
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Wish:
    """How many warm containers each runner is to have.

    ``is_asked``: an operator wrote ``AGP_WARM``. ``is_off``: there are none, whatever anybody wrote.
    """

    each: int
    is_asked: bool = False
    is_off: bool = False

    def of(self, runner: Runner) -> int:
        """For one runner.

        Where a container would be another one now than a moment ago, by a pull or by what lies behind a mount, there
        are none unless the catalog says so.
        """
        if self.is_off:
            return 0
        if runner.warm is not None:
            return runner.warm
        return 0 if runner.pull is PullPolicy.ALWAYS or runner.sources else self.each

    def is_firm(self, runner: Runner) -> bool:
        """Whether an operator wrote that number, so that it is not lowered in silence."""
        return self.is_asked or runner.warm is not None


NONE_WARM: Final = Wish(0, is_off=True)
"""For an agent that runs one playbook and is gone."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is of one thing that containers need, what one of a runner takes of it, and how to say so."""

    has: int
    cost: Callable[[Runner], int]
    sentence: Callable[[str, int], str]
    """Of the sum as it was reckoned, and what it comes to."""

    def check(self, catalog: Catalog, wish: Wish) -> None:
        """Raises ``ConfigurationError`` with the arithmetic where what an operator wrote does not fit."""
        firm = [runner for runner in catalog.runners.values() if wish.is_firm(runner) and wish.of(runner)]
        needed = sum(wish.of(runner) * self.cost(runner) for runner in firm)
        if firm and needed > self.has:
            terms = " + ".join(f"{runner.name} {wish.of(runner)}" for runner in firm)
            raise ConfigurationError(self.sentence(terms, needed))

    def fit(self, catalog: Catalog, wish: Wish, sizes: dict[str, int]) -> dict[str, int]:
        """Lower ``sizes`` to what fits; those that an operator wrote have the first claim to the room."""
        left, fitted = self.has, dict(sizes)
        for runner in sorted(catalog.runners.values(), key=lambda one: not wish.is_firm(one)):
            cost = self.cost(runner)
            number = min(sizes[runner.name], left // cost if cost else sizes[runner.name])
            fitted[runner.name] = max(0, number)
            left -= fitted[runner.name] * cost
        return fitted


def room_of_users(uids: int) -> Room:
    """Each container has a user of its own, unless its runner has one for all; one is kept for a cold task."""
    return Room(
        uids - 1,
        lambda runner: int(runner.user is None),
        lambda terms, needed: (
            f"AGP_UID_RANGE: holds {uids} user ids; the warm containers ({terms}) need {needed} and a task that runs "
            f"needs 1; widen it, or lower AGP_WARM or `warm` of a runner."
        ),
    )


def room_of_memory(host_bytes: int, largest_bytes: int) -> Room:
    """All containers together may take a share of the memory of the engine's host; the largest task must fit beside."""
    room_bytes = int(host_bytes * MEMORY_SHARE)
    return Room(
        room_bytes - largest_bytes,
        lambda runner: runner.memory,
        lambda terms, needed: (
            f"AGP_WARM: the warm containers ({terms}) may take {needed // _MIB} MiB and the largest task "
            f"{largest_bytes // _MIB} MiB, and {MEMORY_SHARE:.0%} of the memory of the engine's host are "
            f"{room_bytes // _MIB} MiB; lower AGP_WARM, or `warm` or `memory` of a runner."
        ),
    )


def sizes(catalog: Catalog, wish: Wish, *rooms: Room) -> dict[str, int]:
    """The number for each runner, within every one of these rooms."""
    found = {name: wish.of(runner) for name, runner in catalog.runners.items()}
    for room in rooms:
        found = room.fit(catalog, wish, found)
    return found


def memory_bytes(catalog: Catalog, numbers: dict[str, int]) -> int:
    """What so many containers of each runner may take together."""
    return sum(catalog.runners[name].memory * number for name, number in numbers.items())
