"""The outbox: every result goes out until it is acknowledged."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agp_agent.audit import Audit, AuditEvent
from agp_agent.dashboard import Answer, Headers, Meaning
from agp_agent.journal import Delivery, Journal, JournalUnavailable
from agp_agent.lifecycle import Outcome, Reason, Verdict
from agp_agent.models import TaskResult, TaskStatus
from agp_agent.outbox import Outbox
from agp_agent.output import Output
from support.async_waiting import PATIENCE_S, settle, until, until_async
from support.clock import SetClock
from support.orders import ROOM, due_now, finished, order

ACKNOWLEDGED = Answer(Meaning.ACKNOWLEDGED)
LATER = Answer(Meaning.RETRY, "the dashboard answered 503")


class Listening:
    """A dashboard that notes what it gets and answers as it is told; without an order it acknowledges."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.received: list[tuple[TaskResult, str, str]] = []
        self.answers: list[Answer | Exception] = []
        self.gate: asyncio.Event | None = None
        self.at_once = 0
        self.most_at_once = 0

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Note it, wait at the gate, and answer."""
        self.received.append((result, headers.idempotency_key, headers.audit_head))
        answer = self.answers.pop(0) if self.answers else ACKNOWLEDGED
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.at_once -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        """Nothing to close."""

    @property
    def task_ids(self) -> list[str]:
        """Whose results came, in their order."""
        return [result.task_id for result, _, _ in self.received]


@pytest.fixture
def clock() -> SetClock:
    """The journal's wall clock."""
    return SetClock()


@pytest.fixture
def journal(tmp_path: Path, clock: SetClock) -> Iterator[Journal]:
    """An empty journal."""
    opened = Journal(tmp_path / "journal.db", clock)
    yield opened
    opened.close()


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    """An audit trail."""
    opened = Audit(tmp_path / "audit.jsonl")
    yield opened
    await opened.aclose()


@pytest.fixture
def dashboard() -> Listening:
    """Where results go."""
    return Listening()


@asynccontextmanager
async def delivering(
    journal: Journal,
    dashboard: Listening,
    audit: Audit,
    draw: Callable[[], float] = lambda: 1.0,
    now_s: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Outbox]:
    """Run the loop."""
    outbox = Outbox(journal, dashboard, audit, "agent-7", draw, now_s)
    loop = asyncio.create_task(outbox.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield outbox
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def acknowledged(journal: Journal) -> None:
    """Wait until nothing is left to deliver."""

    async def look() -> bool:
        return await journal.counts() == {}

    await until_async(look, "everything acknowledged")


async def postponed(journal: Journal, deliveries: int = 1) -> float:
    """Wait until the only result was tried so often and postponed; return for how long."""

    async def look() -> bool:
        due = await journal.due_result(1)
        return due is not None and due.deliveries == deliveries

    await until_async(look, "the postponement")
    delay_s = await journal.next_due_in_s(skip=[])
    assert delay_s is not None
    return delay_s


async def its_time_comes(journal: Journal, clock: SetClock) -> None:
    """Set the clock to the next delivery and wake the loop."""
    delay_s = await journal.next_due_in_s(skip=[])
    assert delay_s is not None
    clock.advance(delay_s)
    journal.outbox_changed.set()


# --- the loop ----------------------------------------------------------------------------------------------------


async def test_a_result_goes_out_and_is_over(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """With the four fields of the wire and the keys of the headers."""
    async with delivering(journal, dashboard, audit):
        run_id = await finished(journal, "a/ b", Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 2", 2))
        await acknowledged(journal)
    ((result, key, _),) = dashboard.received
    assert result == TaskResult(task_id="a/ b", status=TaskStatus.FAILED, output="hi\n", error="exit code 2")
    assert key == f"agent-7/a%2F%20b/1/{run_id}"


async def test_a_success_is_completed_and_what_was_omitted_is_stated(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """The text of the output is made here."""
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t", output=Output(b"head\xff\n", b"tail", 1000, 990))
        await acknowledged(journal)
    ((result, _, _),) = dashboard.received
    assert (result.status, result.error) == (TaskStatus.COMPLETED, None)
    assert result.output == "head\ufffd\n[agp-agent: 990 bytes omitted]\ntail"


async def test_what_an_earlier_agent_left_goes_out_first(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """The loop looks before it sleeps."""
    for name in "abc":
        await finished(journal, name)
    async with delivering(journal, dashboard, audit):
        await acknowledged(journal)
    assert sorted(dashboard.task_ids) == ["a", "b", "c"]


async def test_an_attempt_keeps_its_key_over_all_deliveries(
    journal: Journal, dashboard: Listening, audit: Audit, clock: SetClock
) -> None:
    """So that a dashboard that had it already can tell; the next attempt has another."""
    dashboard.answers = [LATER]
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t")
        await postponed(journal)
        await its_time_comes(journal, clock)
        await acknowledged(journal)
        await finished(journal, "t")
        await acknowledged(journal)
    keys = [key for _, key, _ in dashboard.received]
    assert keys[0] == keys[1]
    assert keys[0].startswith("agent-7/t/1/")
    assert keys[2].startswith("agent-7/t/2/")


async def test_the_dashboard_is_told_an_audit_head_that_is_on_disk(
    journal: Journal, dashboard: Listening, audit: Audit, tmp_path: Path
) -> None:
    """A head that a crash took back would look forged."""
    audit.record(AuditEvent.TASK_FINISHED)
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t")
        await acknowledged(journal)
    ((_, _, head),) = dashboard.received
    seq, _, sha256 = head.partition(":")
    assert int(seq) >= 1
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert len(lines) >= int(seq)
    assert len(sha256) == 64


async def test_acknowledged_and_refused_results_are_audited(
    journal: Journal, dashboard: Listening, audit: Audit, tmp_path: Path
) -> None:
    """With how often they were tried, and why one was refused."""
    dashboard.answers = [ACKNOWLEDGED, Answer(Meaning.REFUSED, "the dashboard answered 422")]
    async with delivering(journal, dashboard, audit):
        await finished(journal, "good")
        await until_async(lambda: empty(journal), "the first")
        await finished(journal, "bad")
        await until_async(lambda: dead_letters(journal), "the dead letter")
        await until(lambda: audit.head.seq == 2, "the audit")
    await audit.flush()
    first, second = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert (first["event"], first["task_id"], first["deliveries"]) == ("task delivered", "good", 1)
    assert (second["event"], second["why"]) == ("task dead-lettered", "the dashboard answered 422")


async def empty(journal: Journal) -> bool:
    """Whether nothing is waiting."""
    return await journal.counts() == {}


async def dead_letters(journal: Journal) -> bool:
    """Whether there is a dead letter."""
    return Delivery.DEAD_LETTER in await journal.counts()


async def test_a_dead_letter_is_not_tried_again(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """Until an operator says so; others pass it."""
    dashboard.answers = [Answer(Meaning.REFUSED, "the dashboard answered 400")]
    async with delivering(journal, dashboard, audit) as outbox:
        await finished(journal, "bad")
        await until_async(lambda: dead_letters(journal), "the dead letter")
        await finished(journal, "good")
        await outbox.flushed()
    assert dashboard.task_ids == ["bad", "good"]


@pytest.mark.parametrize(
    ("answer", "deliveries_before", "delay_s"),
    [
        (LATER, 0, 1.0),
        (LATER, 3, 8.0),
        (LATER, 12, 300.0),
        (Answer(Meaning.RETRY, "x", 120.0, away=True), 0, 240.0),
        (Answer(Meaning.RETRY, "x", 3600.0, away=True), 12, 7200.0),
        (Answer(Meaning.HOLD, "x", away=True), 0, 1.0),
        (Answer(Meaning.HOLD, "x", away=True), 12, 1.0),
    ],
)
async def test_what_is_not_taken_is_tried_again_later(
    journal: Journal, dashboard: Listening, audit: Audit, answer: Answer, deliveries_before: int, delay_s: float
) -> None:
    """By back-off and by what the dashboard asks for; held results at least once a minute."""
    dashboard.answers = [answer]
    await finished(journal, "t")
    for _ in range(deliveries_before):
        await journal.postpone(1, delay_s=0, error="x")
    async with delivering(journal, dashboard, audit):
        assert await postponed(journal, deliveries_before + 1) == delay_s
    assert len(dashboard.received) == 1


async def test_a_held_result_goes_out_when_the_token_is_right_again(
    journal: Journal, dashboard: Listening, audit: Audit, clock: SetClock
) -> None:
    """Without a restart, after any number of refusals."""
    dashboard.answers = [Answer(Meaning.HOLD, "401", away=True)] * 5
    async with delivering(journal, dashboard, audit, now_s=lambda: clock.now_ms / 1000):
        await finished(journal, "t")
        for number in range(1, 6):
            await postponed(journal, number)
            await its_time_comes(journal, clock)
        await acknowledged(journal)
    assert len(dashboard.received) == 6


async def test_the_loop_wakes_by_itself_when_a_result_is_due(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """Nobody else has to tell it; the clock of the test stands still, so the time that passes is real."""
    dashboard.answers = [LATER]
    draws = iter([0.05, 0.0])
    async with delivering(journal, dashboard, audit, lambda: next(draws)):
        await finished(journal, "t")
        await postponed(journal)
        journal._now_ms.advance(0.06)  # type: ignore[attr-defined]
        await acknowledged(journal)


async def test_few_deliveries_are_under_way_at_once(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """And a slow one does not hold up the others."""
    dashboard.gate = asyncio.Event()
    for number in range(10):
        await finished(journal, str(number))
    async with delivering(journal, dashboard, audit) as outbox:
        await until(lambda: dashboard.at_once == 4, "four under way")
        await journal.counts()
        await settle()
        assert dashboard.at_once == 4
        dashboard.gate.set()
        await outbox.flushed()
    assert dashboard.most_at_once == 4
    assert sorted(dashboard.task_ids) == sorted(str(number) for number in range(10))


async def test_a_slow_delivery_does_not_hold_up_a_new_result(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """There is room for it."""
    dashboard.gate = asyncio.Event()
    async with delivering(journal, dashboard, audit):
        await finished(journal, "slow")
        await until(lambda: dashboard.task_ids == ["slow"], "the first")
        await finished(journal, "new")
        await until(lambda: dashboard.task_ids == ["slow", "new"], "the second")
        dashboard.gate.set()
        await acknowledged(journal)


async def test_no_result_is_delivered_twice_at_once(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """However often the loop is woken meanwhile."""
    dashboard.gate = asyncio.Event()
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t")
        await until(lambda: dashboard.received, "the delivery")
        for _ in range(5):
            journal.outbox_changed.set()
            await journal.counts()
            await settle()
        assert len(dashboard.received) == 1
        dashboard.gate.set()
        await acknowledged(journal)


# --- a dashboard that is away ------------------------------------------------------------------------------------


async def test_a_backlog_does_not_knock_at_a_dashboard_that_is_away(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """After the first deliveries found it so, the others wait: nothing of the backlog is tried meanwhile."""
    away = Answer(Meaning.RETRY, "the dashboard was not reached", away=True)
    dashboard.answers = [away] * 100
    for number in range(30):
        await finished(journal, str(number))
    async with delivering(journal, dashboard, audit) as outbox:
        await outbox.flushed()
        for _ in range(20):
            journal.outbox_changed.set()
            await journal.counts()
    assert 1 <= len(dashboard.received) <= 4
    assert await journal.counts() == {Delivery.PENDING: 30}


async def test_when_the_dashboard_is_back_the_whole_backlog_goes_out(
    journal: Journal, dashboard: Listening, audit: Audit, clock: SetClock
) -> None:
    """With the first answer the gate is open again."""
    dashboard.answers = [Answer(Meaning.RETRY, "the dashboard was not reached", away=True)] * 4
    for number in range(12):
        await finished(journal, str(number))
    async with delivering(journal, dashboard, audit, lambda: 0.0):
        clock.advance(1)
        await acknowledged(journal)
    assert {result.task_id for result, _, _ in dashboard.received} == {str(number) for number in range(12)}


# --- a result that is too large ----------------------------------------------------------------------------------


async def test_a_result_that_is_too_large_goes_out_with_less_output(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """Once: head and tail of 64 KiB, and what is omitted is counted."""
    dashboard.answers = [Answer(Meaning.TOO_LARGE, "the dashboard answered 413")]
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t", output=Output(b"h" * 100_000, b"", 100_000))
        await acknowledged(journal)
    (large, _, _), (small, _, _) = dashboard.received
    assert len(large.output) == 100_000
    assert small.output == f"{'h' * 32_768}\n[agp-agent: 34464 bytes omitted]\n{'h' * 32_768}"


async def test_a_result_that_is_still_too_large_is_a_dead_letter(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """It is not shrunk for ever."""
    dashboard.answers = [Answer(Meaning.TOO_LARGE, "the dashboard answered 413")] * 2
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t", output=Output(b"h" * 100_000, b"", 100_000))
        await until_async(lambda: dead_letters(journal), "the dead letter")
    assert len(dashboard.received) == 2


# --- flushing ----------------------------------------------------------------------------------------------------


async def test_flushing_waits_for_everything_that_is_due(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """Also for more than can go at once."""
    async with delivering(journal, dashboard, audit) as outbox:
        for number in range(9):
            await finished(journal, str(number))
        await outbox.flushed()
        assert await journal.counts() == {}


async def test_flushing_does_not_wait_for_what_the_dashboard_does_not_take(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """That is left for the next agent."""
    dashboard.answers = [LATER]
    async with delivering(journal, dashboard, audit) as outbox:
        await finished(journal, "t")
        await outbox.flushed()
        assert await journal.counts() == {Delivery.PENDING: 1}


async def test_flushing_with_nothing_to_do_returns(journal: Journal, dashboard: Listening, audit: Audit) -> None:
    """More than once."""
    async with delivering(journal, dashboard, audit) as outbox:
        await outbox.flushed()
        await outbox.flushed()


class LookedAt(Journal):
    """A journal that lets a test act just after the loop has looked for what is due."""

    after_look: asyncio.Event
    go_on: asyncio.Event

    async def due(self, *, limit: int, skip: list[int], horizon_ms: int, newest_first: bool = False) -> list[int]:
        """Look, then wait."""
        found = await super().due(limit=limit, skip=skip, horizon_ms=horizon_ms, newest_first=newest_first)
        self.after_look.set()
        await self.go_on.wait()
        return found


async def test_a_result_that_comes_while_the_loop_looks_is_flushed_too(
    tmp_path: Path, dashboard: Listening, audit: Audit
) -> None:
    """The loop had looked already, and found nothing."""
    journal = LookedAt(tmp_path / "looked-at.db")
    journal.after_look, journal.go_on = asyncio.Event(), asyncio.Event()
    async with delivering(journal, dashboard, audit) as outbox:
        await journal.after_look.wait()
        await finished(journal, "t")
        flushing = asyncio.create_task(outbox.flushed())
        await asyncio.sleep(0)
        journal.go_on.set()
        await flushing
        assert await journal.counts() == {}
    journal.close()


# --- what nobody foresaw -----------------------------------------------------------------------------------------


async def test_a_delivery_that_fails_in_an_unforeseen_way_is_tried_again_but_not_in_a_hot_loop(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """The dashboard is not hammered while something is broken here."""
    dashboard.answers = [RuntimeError("nobody foresaw this")]
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t")
        await until(lambda: dashboard.received, "the first try")
        for _ in range(30):
            await journal.counts()
        assert len(dashboard.received) == 1
        await acknowledged(journal)
    assert len(dashboard.received) == 2


class Refusing(Journal):
    """A journal on a disk that does not take the first acknowledgement."""

    refusals = 1

    async def acknowledge(self, seq: int) -> None:
        """Refuse, then write."""
        if self.refusals:
            self.refusals -= 1
            raise JournalUnavailable("the journal cannot be written: disk full")
        await super().acknowledge(seq)


async def test_what_was_acknowledged_and_could_not_be_written_is_not_delivered_again(
    tmp_path: Path, dashboard: Listening, audit: Audit
) -> None:
    """It is remembered until the disk takes it."""
    journal = Refusing(tmp_path / "refusing.db")
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t")
        await acknowledged(journal)
        await until(lambda: audit.head.seq == 1, "the audit")
    assert len(dashboard.received) == 1
    journal.close()


async def test_a_journal_that_cannot_be_read_does_not_end_the_loop(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """It is tried again."""
    outbox = Outbox(journal, dashboard, audit, "agent-7")
    loop = asyncio.create_task(outbox.run())
    await settle()
    journal.close()
    journal.outbox_changed.set()
    await settle()
    assert not loop.done()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_stopping_gives_up_deliveries_that_are_under_way(
    journal: Journal, dashboard: Listening, audit: Audit
) -> None:
    """They are still due for the next agent."""
    dashboard.gate = asyncio.Event()
    async with delivering(journal, dashboard, audit):
        await finished(journal, "t")
        await until(lambda: dashboard.received, "the delivery")
    assert dashboard.at_once == 0
    assert len(await due_now(journal)) == 1
    assert (await journal.accept(order("another"), ROOM)).attempt == 1
