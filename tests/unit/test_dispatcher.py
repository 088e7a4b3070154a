"""The dispatcher: who is started, when, and in which order."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.journal import Journal
from agp_agent.lifecycle import Outcome, State
from fakes.fake_host import FakeHost
from support.agent_parts import Parts, agent, catalog_of, machine
from support.async_waiting import settle, until
from support.clock import SetClock


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


async def started(parts: Parts) -> list[str]:
    """Return the ids of the tasks that were started, sorted: those that start together do so in any order."""
    return sorted(line["task_id"] for line in await parts.audited("task started"))


async def post_all(parts: Parts, *task_ids: str, content: str = "forever\n", runner: str = "shell") -> list[str]:
    """Accept several orders."""
    return [await parts.post(content, task_id, runner) for task_id in task_ids]


async def end(parts: Parts, task_id: str) -> None:
    """Bring a task to its end."""
    assert await parts.journal.request_cancel(task_id)


async def running(parts: Parts, number: int) -> None:
    """Wait until so many playbooks run, and give a further one the chance to start by mistake."""
    await until(lambda: len(parts.runs) >= number, f"{number} runs")
    await parts.journal.counts()
    await settle()
    assert len(parts.walk.places.active) <= parts.readiness.max_running


async def test_tasks_start_in_the_order_of_their_acceptance(tmp_path: Path, host: FakeHost) -> None:
    """One after another where there is one place."""
    async with agent(tmp_path, host, max_running=1) as parts:
        run_ids = await post_all(parts, *"cabd", content="print hi\n")
        parts.go(parts.dispatcher.run())
        for run_id in run_ids:
            await parts.verdict(run_id)
        assert [line["task_id"] for line in await parts.audited("task started")] == list("cabd")


async def test_no_more_run_than_there_are_places(tmp_path: Path, host: FakeHost) -> None:
    """The next starts when one ends."""
    async with agent(tmp_path, host, max_running=2) as parts:
        parts.go(parts.dispatcher.run())
        await post_all(parts, *"abcd")
        await running(parts, 2)
        assert (len(parts.runs), len(parts.host.containers)) == (2, 2)
        await end(parts, "a")
        await running(parts, 3)
        assert await started(parts) == ["a", "b", "c"]


async def test_a_runner_takes_no_more_than_its_own_places(tmp_path: Path, host: FakeHost) -> None:
    """Others behind it in the queue go on."""
    async with agent(tmp_path, host, catalog=catalog_of(slow={"max_running": 1})) as parts:
        parts.go(parts.dispatcher.run())
        await post_all(parts, "s1", "s2", "s3", runner="slow")
        await post_all(parts, "a", "b")
        await running(parts, 3)
        assert await started(parts) == ["a", "b", "s1"]
        await end(parts, "s1")
        await running(parts, 4)
        assert await started(parts) == ["a", "b", "s1", "s2"]


class SlowJournal(Journal):
    """A journal whose first steps of walks take as long as a test wants."""

    may_prepare: asyncio.Event
    preparing_calls: int = 0

    async def preparing(self, run_id: str, *, slot: str, image: str, timeout_s: float, memory_bytes: int) -> bool:
        """Wait, then write."""
        self.preparing_calls += 1
        await self.may_prepare.wait()
        return await super().preparing(run_id, slot=slot, image=image, timeout_s=timeout_s, memory_bytes=memory_bytes)

    @classmethod
    def closed(cls, path: Path, clock: SetClock) -> "SlowJournal":
        """Open a journal whose gate is closed."""
        journal = cls(path, clock)
        journal.may_prepare = asyncio.Event()
        return journal


async def test_those_on_their_way_do_not_hide_the_others(tmp_path: Path, host: FakeHost) -> None:
    """A free place is used although the first in the queue has not written its first step yet."""
    async with agent(tmp_path, host, max_running=2, journal=SlowJournal.closed) as parts:
        journal = parts.journal
        assert isinstance(journal, SlowJournal)
        parts.go(parts.dispatcher.run())
        await parts.post("forever\n", "a")
        await until(lambda: journal.preparing_calls == 1, "the first on its way")
        await parts.post("forever\n", "b")
        await until(lambda: journal.preparing_calls == 2, "the second on its way")
        await parts.post("forever\n", "c")
        await settle()
        assert set(parts.walk.places.active) == {
            (await parts.journal.next_queued(limit=2, skip=[]))[n].run_id for n in (0, 1)
        }
        journal.may_prepare.set()
        await running(parts, 2)
        assert await started(parts) == ["a", "b"]


async def test_nothing_starts_while_something_is_missing(tmp_path: Path, host: FakeHost) -> None:
    """When it is there again, everything waiting does, by itself."""
    async with agent(tmp_path, host) as parts:
        parts.readiness.report("engine", "away")
        parts.go(parts.dispatcher.run())
        run_ids = await post_all(parts, "a", "b", content="print hi\n")
        await settle()
        assert (await parts.attempt(run_ids[0])).state is State.QUEUED
        assert list(parts.host.events) == []
        parts.readiness.report("engine", None)
        for run_id in run_ids:
            assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED


async def test_nothing_starts_while_draining(tmp_path: Path, host: FakeHost) -> None:
    """What runs goes on; idle tells when it has ended."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        first = await parts.post("print begun\nforever\n", "a")
        await parts.printed(first, b"begun")
        parts.readiness.drain()
        second = await parts.post("print hi\n", "b")
        idle = asyncio.create_task(parts.dispatcher.idle())
        await settle()
        assert not idle.done()
        await end(parts, "a")
        await idle
        assert (await parts.attempt(second)).state is State.QUEUED
        assert parts.walk.places.active == {}


async def test_idle_returns_at_once_where_nothing_runs(tmp_path: Path, host: FakeHost) -> None:
    """Nothing was started."""
    async with agent(tmp_path, host) as parts:
        await parts.dispatcher.idle()


async def test_who_waits_too_long_times_out_without_having_started(tmp_path: Path, host: FakeHost) -> None:
    """By the wall clock of the journal."""
    clock = SetClock()
    async with agent(tmp_path, host, max_running=1, queue_timeout_s=30, clock=clock) as parts:
        parts.go(parts.dispatcher.run())
        first = await parts.post("print begun\nforever\n", "a")
        await parts.printed(first, b"begun")
        waiting = await parts.post("print hi\n", "b")
        clock.advance(31)
        parts.journal.queue_changed.set()
        verdict = await parts.verdict(waiting)
        assert (verdict.outcome, verdict.error) == (
            Outcome.TIMED_OUT,
            "timed out after 30 s in the queue; it never started",
        )
        assert await started(parts) == ["a"]
        assert (await parts.attempt(first)).state is State.RUNNING


async def test_the_queue_is_looked_at_even_when_nothing_happens(tmp_path: Path, host: FakeHost) -> None:
    """Otherwise nobody would notice that a wait is over."""
    clock = SetClock()
    async with agent(tmp_path, host, queue_timeout_s=0.5, clock=clock) as parts:
        parts.readiness.report("engine", "away")
        run_id = await parts.post("print hi\n")
        parts.go(parts.dispatcher.run())
        await settle()
        clock.advance(1)
        assert (await parts.verdict(run_id)).outcome is Outcome.TIMED_OUT


async def test_letting_go_leaves_containers_running(tmp_path: Path, host: FakeHost) -> None:
    """The next agent adopts them."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        run_id = await parts.post("print begun\nforever\n")
        await parts.printed(run_id, b"begun")
        await parts.dispatcher.aclose()
        assert parts.container().running
        assert (await parts.attempt(run_id)).state is State.RUNNING
        assert await parts.journal.verdict(run_id) is None


async def test_a_walk_that_fails_in_an_unforeseen_way_frees_its_place(tmp_path: Path, host: FakeHost) -> None:
    """The attempt stands in the journal; others go on."""
    async with agent(tmp_path, host, max_running=1) as parts:
        parts.go(parts.dispatcher.run())
        parts.slots.fill_errors = [RuntimeError("nobody foresaw this")]
        broken = await parts.post("print hi\n", "a")
        await parts.in_state(broken, State.RUNNING)
        assert (await parts.verdict(await parts.post("print hi\n", "b"))).outcome is Outcome.SUCCEEDED
        assert (await parts.attempt(broken)).state is State.RUNNING


async def test_a_journal_that_cannot_be_read_is_tried_again(tmp_path: Path, host: FakeHost) -> None:
    """The loop does not end."""
    async with agent(tmp_path, host) as parts:
        loop = parts.go(parts.dispatcher.run())
        await settle()
        parts.journal.close()
        parts.journal.queue_changed.set()
        await settle()
        assert not loop.done()


async def test_a_cancel_of_a_task_on_its_way_is_left_to_its_walk(tmp_path: Path, host: FakeHost) -> None:
    """It is still queued, and yet started: it ends once, by the walk, before any container is made."""
    async with agent(tmp_path, host, max_running=1, journal=SlowJournal.closed) as parts:
        journal = parts.journal
        assert isinstance(journal, SlowJournal)
        parts.go(parts.dispatcher.run())
        run_id = await parts.post("print hi\n")
        await until(lambda: journal.preparing_calls == 1, "on its way")
        assert await journal.request_cancel("t")
        for _ in range(5):
            await journal.counts()
            await settle()
        assert await journal.verdict(run_id) is None
        journal.may_prepare.set()
        assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED
        await parts.clean()
        assert list(parts.host.events) == []
        assert (await parts.events()).count("task cancelled") == 1
