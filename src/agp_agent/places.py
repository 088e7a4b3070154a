"""Who is on the way: every attempt that holds a place, and orders that are just being taken on with theirs."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from agp_agent.catalog import Catalogs
from agp_agent.journal import Journal


class Places:
    """The places at which tasks run. Belongs to the event loop; how many there are is for the readiness to say."""

    def __init__(self, journal: Journal, catalogs: Catalogs) -> None:
        """Nobody holds one yet."""
        self._journal = journal
        self._catalogs = catalogs
        self._undecided: set[str] = set()
        self.active: dict[str, str] = {}
        """run_id → runner of every attempt that holds a place."""
        self.ended = asyncio.Event()
        """Set whenever a place becomes free."""
        self.decided = asyncio.Event()
        """Set while no order that holds a place is still being written down."""
        self.decided.set()

    def full_runners(self) -> list[str]:
        """Runners that hold as many places as they may."""
        running = Counter(self.active.values())
        limits = {name: runner.max_running for name, runner in self._catalogs.current.runners.items()}
        return [name for name, limit in limits.items() if limit is not None and running[name] >= limit]

    def take(self, run_id: str, runner: str, *, is_decided: bool = True) -> None:
        """Give an attempt a place, before its first step; or an order that is yet to be written down."""
        self.active[run_id] = runner
        self._journal.cancel_event(run_id)  # before the attempt is read: no cancel falls between
        if not is_decided:
            self._undecided.add(run_id)
            self.decided.clear()

    def decide(self, run_id: str) -> None:
        """The order is written down, or is not to be."""
        self._undecided.discard(run_id)
        if not self._undecided:
            self.decided.set()

    def leave(self, run_id: str) -> None:
        """The place is free."""
        self.active.pop(run_id, None)
        self._journal.forget_cancel(run_id)
        self.ended.set()

    @contextlib.contextmanager
    def held(self, run_id: str, runner: str) -> Iterator[None]:
        """Inside, the attempt holds a place, which it may have taken before."""
        self.take(run_id, runner)
        try:
            yield
        finally:
            self.leave(run_id)
