"""The outbox over a dashboard that is away for a day: its own clocks are set forward, everything else is real."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agp_agent.audit import Audit
from agp_agent.dashboard import Answer, Headers, Meaning
from agp_agent.journal import Delivery, Journal
from agp_agent.models import TaskResult
from agp_agent.outbox import Outbox
from support.async_waiting import PATIENCE_S
from support.clock import SetClock
from support.orders import finished

DAY_S = 24 * 3600
WAITING = 50
ACKNOWLEDGED = Answer(Meaning.ACKNOWLEDGED)
UNREACHED = Answer(Meaning.RETRY, "the dashboard was not reached", away=True)
BROKEN = Answer(Meaning.RETRY, "the dashboard answered 500")
BUSY = Answer(Meaning.RETRY, "the dashboard answered 503", 120.0, away=True)
NO_TOKEN = Answer(Meaning.HOLD, "the dashboard answered 401", away=True)


@dataclass
class Away:
    """A dashboard that answers everything alike, and notes when it was asked and how many asked at once."""

    clock: SetClock
    answer: Answer
    stuck: int = 0
    """So many results are answered only once ``unstuck`` is set."""
    unstuck: asyncio.Event = field(default_factory=asyncio.Event)
    knocks_s: list[float] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Note it and answer, after whoever else asks now has been seen."""
        assert headers.idempotency_key
        assert headers.audit_head
        self.knocks_s.append(self.clock.now_ms / 1000)
        is_stuck = len(self.knocks_s) <= self.stuck
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        if is_stuck:
            await self.unstuck.wait()
        self.at_once -= 1
        if self.answer is ACKNOWLEDGED:
            self.taken.append(result.task_id)
        return self.answer

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass
class World:
    """One outbox whose time passes when the test says so."""

    clock: SetClock
    journal: Journal
    dashboard: Away
    outbox: Outbox

    async def passes(self, seconds: float) -> None:
        """Let so much time pass: from one moment at which something is to be done to the next."""
        until_ms = self.clock.now_ms + seconds * 1000
        while True:
            await self.outbox.flushed()
            pause_s = await self.outbox._pause_s()
            if pause_s is None or self.clock.now_ms + pause_s * 1000 > until_ms:
                break
            self.clock.advance(pause_s + 0.001)
        self.clock.now_ms = round(until_ms)


@asynccontextmanager
async def world(folder: Path, answer: Answer, *, backlog: int = 0, stuck: int = 0) -> AsyncIterator[World]:
    """Put it together, let so many results wait, and run the loop."""
    clock = SetClock()
    dashboard = Away(clock, answer, stuck)
    audit = Audit(folder / "audit.jsonl")
    with closing(Journal(folder / "journal.db", clock)) as journal:
        for number in range(backlog):
            await finished(journal, f"old {number}")
        chance = random.Random(7)  # noqa: S311  a day that can be repeated
        outbox = Outbox(journal, dashboard, audit, "agent-7", chance.random, lambda: clock.now_ms / 1000)
        loop = asyncio.create_task(outbox.run())
        try:
            async with asyncio.timeout(20 * PATIENCE_S):
                yield World(clock, journal, dashboard, outbox)
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await audit.aclose()


@pytest.mark.parametrize(
    ("answer", "shortest_s", "longest_s", "most"),
    [
        pytest.param(UNREACHED, 0, 300, 900, id="unreached"),
        pytest.param(BROKEN, 0, 300, 900, id="500 to everything"),
        pytest.param(BUSY, 120, 420, 500, id="503 with Retry-After 120"),
        pytest.param(NO_TOKEN, 0, 60, 4500, id="401"),
    ],
)
async def test_a_day_of_outage_is_lived_through(
    tmp_path: Path, answer: Answer, shortest_s: float, longest_s: float, most: int
) -> None:
    """One knock at a time, never too soon nor too late, with jitter; then everything goes out, and once."""
    async with world(tmp_path, answer) as here:
        for number in range(WAITING):
            await finished(here.journal, f"old {number}")
        await here.passes(3600)
        for number in range(WAITING):
            await finished(here.journal, f"new {number}")
        here.dashboard.most_at_once = 0
        await here.passes(DAY_S - 3600)
        assert here.dashboard.most_at_once == 1
        assert await here.journal.counts() == {Delivery.PENDING: 2 * WAITING}
        knocks = here.dashboard.knocks_s
        gaps = [later - earlier for earlier, later in itertools.pairwise(knocks[4:])]
        assert DAY_S / longest_s <= len(knocks) <= most
        assert min(gaps) >= shortest_s
        assert max(gaps) <= longest_s + 1
        assert len({round(gap, 3) for gap in gaps}) > len(gaps) * 0.8, "no jitter"
        here.dashboard.answer = ACKNOWLEDGED
        await here.passes(longest_s + 1)
        expected = [f"{age} {number}" for age in ("old", "new") for number in range(WAITING)]
        assert sorted(here.dashboard.taken) == sorted(expected)
        assert await here.journal.counts() == {}
        assert here.dashboard.most_at_once <= 4


async def test_a_backlog_and_new_results_take_turns(tmp_path: Path) -> None:
    """A result that is posted while hundreds wait is taken within a few places, and the backlog goes on meanwhile."""
    backlog, arrivals = 300, 20
    # With three stuck one place is left: one result is picked at a time, old or new.
    async with world(tmp_path, ACKNOWLEDGED, backlog=backlog, stuck=3) as here:
        places = []
        for number in range(arrivals):
            await finished(here.journal, f"new {number}")
            before = len(here.dashboard.taken)  # only now it is posted: all before that are commits of its run
            while f"new {number}" not in here.dashboard.taken:
                await here.journal.counts()
            places.append(here.dashboard.taken.index(f"new {number}") - before)
        taken = list(here.dashboard.taken)
        here.dashboard.unstuck.set()
        await here.passes(1)
        assert len(here.dashboard.taken) == backlog + arrivals
    assert max(places) <= 20, places
    assert len([name for name in taken if name.startswith("old")]) >= arrivals
