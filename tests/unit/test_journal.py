"""The journal's operations: accepting, the walk of an attempt, delivery, housekeeping."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agp_agent import lifecycle
from agp_agent.clock import BootTime
from agp_agent.errors import AlreadyRunning, Unavailable
from agp_agent.journal import Admission, Delivery, Journal, JournalUnavailable, LostAttempt, Start
from agp_agent.journal.transactions import SQL
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.models import TaskStatus
from agp_agent.output import Output
from support.clock import SetClock
from support.orders import PRINTED, ROOM, SUCCESS, due_now, finished, order, put_back, release, to_preparing

DAY_S = 24 * 3600


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


async def state_of(journal: Journal, run_id: str) -> State:
    """Return where an attempt is."""
    attempt = await journal.attempt(run_id)
    assert attempt is not None
    return attempt.state


# --- accepting ---------------------------------------------------------------------------------------------------


async def test_an_accepted_order_is_queued_with_everything_it_came_with(journal: Journal, clock: SetClock) -> None:
    """Whoever works on it later needs nothing else."""
    accepted = await journal.accept(order("t", "print hi\n"), ROOM)
    assert (accepted.status, accepted.attempt, accepted.replayed) == (TaskStatus.RUNNING, 1, False)
    attempt = await journal.attempt(accepted.run_id)
    assert attempt is not None
    assert (attempt.task_id, attempt.attempt, attempt.state) == ("t", 1, State.QUEUED)
    assert (attempt.playbook_name, attempt.playbook, attempt.runner) == ("a.sh", b"print hi\n", "shell")
    assert (attempt.accepted_at_ms, attempt.tries, attempt.cancel_requested) == (clock.now_ms, 0, False)
    assert (attempt.slot, attempt.container_id, attempt.started_at_ms, attempt.asked) == (None, None, None, None)
    assert journal.queue_changed.is_set()
    assert not journal.outbox_changed.is_set()


async def test_nobody_is_no_attempt(journal: Journal) -> None:
    """An unknown run_id is None, not an error."""
    assert await journal.attempt("nobody") is None
    assert await journal.verdict("nobody") is None
    assert await journal.due_result(7) is None


async def test_running_is_said_while_there_are_places_and_pending_after_that(journal: Journal) -> None:
    """Up to the queue's limit; then the order is refused, and nothing of it stays."""
    admission = Admission(slots=2, max_queued=1)
    statuses = [(await journal.accept(order(name), admission)).status for name in "abc"]
    assert statuses == [TaskStatus.RUNNING, TaskStatus.RUNNING, TaskStatus.PENDING]
    with pytest.raises(Unavailable, match=r"^The queue is full \(1 tasks are waiting\); send the task again later\.$"):
        await journal.accept(order("d"), admission)
    assert (await journal.counts())[State.QUEUED] == 3
    (first, *_) = await journal.next_queued(limit=1, skip=[])
    await journal.finish(first.run_id, SUCCESS, PRINTED)
    assert (await journal.accept(order("d"), admission)).status is TaskStatus.PENDING


async def test_without_an_engine_orders_wait(journal: Journal) -> None:
    """No places, but room in the queue."""
    assert (await journal.accept(order("a"), Admission(slots=0, max_queued=1))).status is TaskStatus.PENDING
    with pytest.raises(Unavailable):
        await journal.accept(order("b"), Admission(slots=0, max_queued=1))


async def test_what_runs_is_not_in_the_queue_while_the_engine_is_away(journal: Journal) -> None:
    """The engine went away under it: as many as ever may wait."""
    running = await journal.accept(order("runs"), Admission(slots=1, max_queued=1))
    await to_preparing(journal, running.run_id)
    assert (await journal.accept(order("a"), Admission(slots=0, max_queued=1))).status is TaskStatus.PENDING
    with pytest.raises(Unavailable):
        await journal.accept(order("b"), Admission(slots=0, max_queued=1))


async def test_a_task_is_refused_from_its_acceptance_until_its_result_is_acknowledged(journal: Journal) -> None:
    """The detail says where it is; afterwards it is a new attempt."""
    accepted = await journal.accept(order("t"), ROOM)
    with pytest.raises(AlreadyRunning, match="is already queued"):
        await journal.accept(order("t"), ROOM)
    await to_preparing(journal, accepted.run_id)
    with pytest.raises(AlreadyRunning, match="is already queued"):
        await journal.accept(order("t", "another body"), ROOM)
    await journal.running(accepted.run_id, release())
    with pytest.raises(AlreadyRunning, match="is already running"):
        await journal.accept(order("t"), ROOM)
    await journal.finish(accepted.run_id, SUCCESS, PRINTED)
    with pytest.raises(AlreadyRunning, match="has finished, but the dashboard has not acknowledged its result yet"):
        await journal.accept(order("t"), ROOM)
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    again = await journal.accept(order("t"), ROOM)
    assert (again.attempt, again.run_id != accepted.run_id) == (2, True)


async def test_a_dead_letter_keeps_the_task_closed(journal: Journal) -> None:
    """The dashboard does not know how it ended; an operator has to look."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.dead_letter(seq, error="the dashboard answered 400")
    with pytest.raises(AlreadyRunning, match="the dashboard refused its result; an operator has to"):
        await journal.accept(order("t"), ROOM)


async def test_of_many_equal_orders_at_once_one_is_accepted(journal: Journal) -> None:
    """A hundred posts, one run."""
    results = await asyncio.gather(*(journal.accept(order("t"), ROOM) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, AlreadyRunning) for result in results) == 99
    assert (await journal.counts())[State.QUEUED] == 1


async def test_ids_are_compared_exactly(journal: Journal) -> None:
    """Neither case nor accents nor spaces make two ids one."""
    for task_id in ("t", "T", " t", "t ", "\uff54", "é", "e\u0301", "%74"):
        await journal.accept(order(task_id), ROOM)
    assert (await journal.counts())[State.QUEUED] == 8


async def test_a_rejected_order_is_accepted_and_finished_in_one_go(journal: Journal) -> None:
    """Its result is due at once; it never was in the queue."""
    verdict = lifecycle.no_runner("a.foo", ["shell"])
    accepted = await journal.accept(order("t", runner=None), ROOM, verdict)
    assert await journal.next_queued(limit=10, skip=[]) == []
    assert await journal.verdict(accepted.run_id) == verdict
    assert len(await due_now(journal)) == 1
    assert journal.outbox_changed.is_set()
    assert not journal.queue_changed.is_set()


# --- Idempotency-Key ---------------------------------------------------------------------------------------------


async def test_the_same_key_gets_the_same_answer_and_runs_nothing(journal: Journal) -> None:
    """While it runs, and after it was acknowledged, with the status of the first answer."""
    first = await journal.accept(order("t", key="k"), Admission(slots=0, max_queued=5))
    replayed = await journal.accept(order("t", key="k"), ROOM)
    assert (replayed.status, replayed.replayed) == (first.status, True)
    await journal.finish(first.run_id, SUCCESS, PRINTED)
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    assert (await journal.accept(order("t", key="k"), ROOM)).replayed
    assert await journal.counts() == {}


async def test_a_replay_is_answered_even_when_the_queue_is_full(journal: Journal) -> None:
    """It takes no place."""
    admission = Admission(slots=0, max_queued=1)
    await journal.accept(order("t", key="k"), admission)
    assert (await journal.accept(order("t", key="k"), admission)).replayed


async def test_another_body_under_a_used_key_is_refused(journal: Journal) -> None:
    """Whichever task it is for."""
    await journal.accept(order("t", key="k"), ROOM)
    for other in (order("t", "another body", key="k"), order("u", key="k")):
        with pytest.raises(AlreadyRunning, match="Idempotency-Key was used for another task"):
            await journal.accept(other, ROOM)


async def test_a_key_is_forgotten_after_a_day(journal: Journal, clock: SetClock) -> None:
    """A second before it still holds."""
    await journal.accept(order("t", key="k"), ROOM)
    clock.advance(DAY_S - 1)
    assert (await journal.accept(order("t", key="k"), ROOM)).replayed
    clock.advance(2)
    assert not (await journal.accept(order("u", key="k"), ROOM)).replayed
    with pytest.raises(AlreadyRunning, match="already"):
        await journal.accept(order("t", key="other"), ROOM)


async def test_a_rejected_order_can_be_replayed_too(journal: Journal) -> None:
    """It is not rejected twice."""
    verdict = lifecycle.no_runner("a.foo", [])
    await journal.accept(order("t", runner=None, key="k"), ROOM, verdict)
    assert (await journal.accept(order("t", runner=None, key="k"), ROOM, verdict)).replayed
    assert len(await due_now(journal)) == 1


# --- AGP_RERUN_AFTER_S -------------------------------------------------------------------------------------------


async def test_an_identical_task_is_held_off_for_a_while_where_that_is_set(journal: Journal, clock: SetClock) -> None:
    """Another body under the same id is a new order; without the setting so is an equal one."""
    admission = Admission(slots=10, max_queued=10, rerun_after_s=60)
    await finished(journal, "t")
    clock.advance(100)  # counted from the acknowledgement
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    clock.advance(59)
    with pytest.raises(AlreadyRunning, match="was acknowledged less than 60 s ago"):
        await journal.accept(order("t"), admission)
    clock.advance(2)
    assert (await journal.accept(order("t"), admission)).attempt == 2


async def test_a_different_body_is_not_held_off(journal: Journal) -> None:
    """Only identical ones are."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    admission = Admission(slots=10, max_queued=10, rerun_after_s=60)
    assert (await journal.accept(order("t", "another body"), admission)).attempt == 2


async def test_without_the_setting_an_acknowledged_task_may_come_again_at_once(journal: Journal) -> None:
    """As the contract says."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    assert (await journal.accept(order("t"), ROOM)).attempt == 2


# --- the walk of an attempt --------------------------------------------------------------------------------------


async def test_the_queue_is_first_come_first_served(journal: Journal) -> None:
    """In the order of acceptance; without the runners that are full."""
    for number in range(5):
        await journal.accept(order(str(number), runner="ansible" if number % 2 else "shell"), ROOM)

    async def names(limit: int, *skip: str) -> list[str]:
        waiting = await journal.next_queued(limit=limit, skip=list(skip))
        return [attempt.task_id for one in waiting if (attempt := await journal.attempt(one.run_id))]

    assert await names(10) == ["0", "1", "2", "3", "4"]
    assert await names(2) == ["0", "1"]
    assert await names(10, "ansible") == ["0", "2", "4"]
    assert await names(10, "ansible", "shell") == []


async def test_each_step_is_taken_once_and_from_the_right_state_only(journal: Journal) -> None:
    """A second walker of the same attempt, or a step out of turn, changes nothing."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    assert not await journal.running(run_id, release())
    assert not await put_back(journal, run_id, failed_try=True)
    assert await to_preparing(journal, run_id)
    assert not await to_preparing(journal, run_id, "agp-2")
    assert await journal.running(run_id, release())
    assert not await journal.running(run_id, release("c2"))
    attempt = await journal.attempt(run_id)
    assert attempt is not None
    assert (attempt.slot, attempt.image, attempt.timeout_s, attempt.memory_bytes) == ("agp-1", "agp/x", 60, 2**29)
    assert (attempt.container_id, attempt.image_digest, attempt.nonce) == ("c1", "sha256:1", "0" * 32)
    assert (attempt.boot_id, attempt.released_boot_s, attempt.started_at_ms) == ("boot", 12.5, 1_750_000_000_500)
    assert await journal.finish(run_id, SUCCESS, PRINTED)
    assert not await journal.finish(run_id, lifecycle.lost(Reason.ENGINE_LOST, "x"), Output())
    assert not await put_back(journal, run_id, failed_try=True)
    assert await journal.verdict(run_id) == SUCCESS


async def step(journal: Journal, run_id: str, state: State) -> bool:
    """Try to take an attempt to ``state``; return whether that was possible."""
    match state:
        case State.QUEUED:
            return await put_back(journal, run_id)
        case State.PREPARING:
            return await to_preparing(journal, run_id)
        case State.RUNNING:
            if await state_of(journal, run_id) is State.QUEUED:  # a container had waited for it
                return await journal.start(run_id, Start("agp-1", "agp/x", 60, 2**29, release()))
            return await journal.running(run_id, release())
        case State.FINISHED:
            return await journal.finish(run_id, SUCCESS, PRINTED)


@pytest.mark.parametrize("end", State)
@pytest.mark.parametrize("start", State)
async def test_the_journal_takes_the_steps_that_the_lifecycle_allows_and_no_others(
    journal: Journal, start: State, end: State
) -> None:
    """The SQL and the drawing of the transitions say the same."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    ways = {State.QUEUED: [], State.RUNNING: [State.PREPARING, State.RUNNING]}
    for state in ways.get(start, [start]):
        assert await step(journal, run_id, state)
    assert await state_of(journal, run_id) is start
    assert await step(journal, run_id, end) == (end in lifecycle.TRANSITIONS[start])


async def test_an_attempt_that_is_put_back_keeps_its_place_and_loses_its_container(journal: Journal) -> None:
    """It is the first again; its failed try is counted, an engine that went away is none."""
    first, second = [(await journal.accept(order(name), ROOM)).run_id for name in "ab"]
    for failed_try, tries in ((False, 0), (True, 1), (True, 2)):
        await to_preparing(journal, first)
        await journal.running(first, release())
        await journal.asked(first, Reason.DEADLINE)
        journal.queue_changed.clear()
        assert await put_back(journal, first, failed_try=failed_try)
        assert journal.queue_changed.is_set()
        attempt = await journal.attempt(first)
        assert attempt is not None
        assert (attempt.tries, attempt.slot, attempt.container_id, attempt.nonce) == (tries, None, None, None)
        assert (attempt.started_at_ms, attempt.boot_id, attempt.asked) == (None, None, None)
    assert [waiting.run_id for waiting in await journal.next_queued(limit=9, skip=[])] == [first, second]


async def test_what_the_agent_asked_for_is_noted_once(journal: Journal) -> None:
    """The first reason stands; before it runs there is nothing to ask."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    await journal.asked(run_id, Reason.DEADLINE)
    await to_preparing(journal, run_id)
    await journal.running(run_id, release())
    assert [attempt.asked for attempt in await journal.unfinished()] == [None]
    await journal.asked(run_id, Reason.CANCEL_REQUESTED)
    await journal.asked(run_id, Reason.DEADLINE)
    assert [attempt.asked for attempt in await journal.unfinished()] == [Reason.CANCEL_REQUESTED]


async def test_unfinished_attempts_and_their_slots_are_those_that_left_the_queue(journal: Journal) -> None:
    """The reconciler holds them against the containers."""
    queued, preparing, running, done = [(await journal.accept(order(name), ROOM)).run_id for name in "abcd"]
    for number, run_id in enumerate((preparing, running, done)):
        await to_preparing(journal, run_id, f"agp-{number}")
    await journal.running(running, release())
    await journal.finish(done, SUCCESS, PRINTED)
    assert [attempt.run_id for attempt in await journal.unfinished()] == [preparing, running]
    assert await journal.open_slots() == {"agp-0", "agp-1"}
    assert await state_of(journal, queued) is State.QUEUED


# --- cancelling --------------------------------------------------------------------------------------------------


async def test_a_cancelled_attempt_is_not_started(journal: Journal) -> None:
    """Whether it waits or is being prepared; it is listed as one that need not start."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    assert await journal.request_cancel("t")
    assert not await to_preparing(journal, run_id)
    (waiting,) = await journal.not_to_start(queue_timeout_s=0)
    assert (waiting.run_id, waiting.cancel_requested) == (run_id, True)


async def test_a_cancel_between_preparing_and_release_is_in_time(journal: Journal) -> None:
    """The playbook is not released any more."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    await to_preparing(journal, run_id)
    await journal.request_cancel("t")
    assert not await journal.running(run_id, release())


async def test_a_cancel_wakes_who_watches(journal: Journal) -> None:
    """Only of this attempt; once forgotten, nobody is woken."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    other = (await journal.accept(order("other"), ROOM)).run_id
    event, of_other = journal.cancel_event(run_id), journal.cancel_event(other)
    assert await journal.request_cancel("t")
    assert (event.is_set(), of_other.is_set()) == (True, False)
    journal.forget_cancel(run_id)
    assert not journal.cancel_event(run_id).is_set()


async def test_cancelling_twice_is_as_cancelling_once(journal: Journal) -> None:
    """A second request is not told that the task does not exist."""
    await journal.accept(order(), ROOM)
    assert await journal.request_cancel("t")
    assert await journal.request_cancel("t")


async def test_only_what_has_not_ended_can_be_cancelled(journal: Journal) -> None:
    """Neither unknown tasks, nor finished ones."""
    assert not await journal.request_cancel("t")
    await finished(journal, "t")
    assert not await journal.request_cancel("t")


@pytest.mark.parametrize("jump_s", [0, 86_400, -86_400])
async def test_those_who_waited_too_long_need_not_start(tmp_path: Path, clock: SetClock, jump_s: float) -> None:
    """Zero is no limit. A wall clock that jumps changes nothing; after a reboot it is all there is."""
    boot = BootTime("first", 1000.0)
    with contextlib.closing(Journal(tmp_path / "boot.db", clock, lambda: boot)) as journal:
        await journal.accept(order("old"), ROOM)
        clock.advance(60 + jump_s)
        boot = BootTime("first", 1060.0)
        await journal.accept(order("young"), ROOM)
        assert await journal.not_to_start(queue_timeout_s=0) == []
        (waiting,) = await journal.not_to_start(queue_timeout_s=59)
        attempt = await journal.attempt(waiting.run_id)
        assert attempt is not None
        assert (attempt.task_id, waiting.cancel_requested) == ("old", False)
        assert await journal.not_to_start(queue_timeout_s=61) == []
        clock.advance(5)
        boot = BootTime("second", 5.0)
        assert len(await journal.not_to_start(queue_timeout_s=4)) == (1 if jump_s < 0 else 2)
        assert await journal.not_to_start(queue_timeout_s=0) == []


# --- the end and its delivery ------------------------------------------------------------------------------------


async def test_the_end_and_its_result_are_one_commit(journal: Journal) -> None:
    """The result is due at once, and the playbook is not kept."""
    run_id = await finished(
        journal,
        "t",
        Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 2", 2),
        Output(b"head", b"tail", 20, 12, at_least=True),
    )
    (seq,) = await due_now(journal)
    due = await journal.due_result(seq)
    assert due is not None
    assert (due.run_id, due.task_id, due.attempt, due.deliveries) == (run_id, "t", 1, 0)
    assert (due.outcome, due.error) == (Outcome.FAILED, "exit code 2")
    assert due.output == Output(b"head", b"tail", 20, 12, at_least=True)
    attempt = await journal.attempt(run_id)
    assert attempt is not None
    assert (attempt.state, attempt.playbook) == (State.FINISHED, b"")
    assert await journal.verdict(run_id) == Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 2", 2)
    assert journal.outbox_changed.is_set()


async def test_the_longest_due_result_and_the_newest_go_by_turns(journal: Journal, clock: SetClock) -> None:
    """Up to a number, without those that are on their way: neither keeps the other waiting."""
    for name in "abcdef":
        await finished(journal, name)
        clock.advance(1)
    assert await due_now(journal) == [1, 6, 2, 5, 3, 4]
    assert await journal.due(limit=3, skip=[], horizon_ms=10_000) == [1, 6, 2]
    assert await journal.due(limit=1, skip=[], horizon_ms=10_000) == [1]
    assert await journal.due(limit=1, skip=[], horizon_ms=10_000, newest_first=True) == [6]
    assert await journal.due(limit=3, skip=[], horizon_ms=10_000, newest_first=True) == [6, 1, 5]
    assert await due_now(journal, skip=(1, 6)) == [2, 5, 3, 4]


@pytest.mark.parametrize(
    ("query", "index"),
    [("due_seqs", "outbox_pending"), ("newest_due_seqs", "outbox_newest"), ("next_due", "outbox_pending")],
)
async def test_what_is_due_is_found_in_an_index(journal: Journal, query: str, index: str) -> None:
    """Without sorting, and passing over what is not due: ten thousand results may wait, of megabytes each."""

    def plan(db: sqlite3.Connection) -> list[str]:
        values = {"now_ms": 0, "too_far_ms": 1, "limit": 1, "skip": "[]"}
        return [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {SQL[query]}", values)]

    def columns(db: sqlite3.Connection) -> list[str]:
        return [row["name"] for row in db.execute(f"PRAGMA index_info({index})")]

    details = await journal._db.read(plan)
    assert f"outbox USING INDEX {index}" in details[0]
    assert not [detail for detail in details if "TEMP" in detail]
    assert "next_attempt_at_ms" in await journal._db.read(columns)


async def test_a_result_that_is_too_large_is_shrunk_once(journal: Journal) -> None:
    """It stays due with less output, and the count of what is omitted is right; a second time is refused."""
    await finished(journal, "t", output=Output(b"h" * 100, b"t" * 100, 1000, 800))
    assert await journal.shrink(1, Output(b"h", b"t", 1000, 998))
    due = await journal.due_result(1)
    assert due is not None
    assert (due.output, due.deliveries) == (Output(b"h", b"t", 1000, 998), 1)
    assert await due_now(journal) == [1]
    assert not await journal.shrink(1, Output(b"", b"", 1000, 1000))


async def test_a_result_nobody_took_within_the_retention_time_becomes_a_dead_letter(
    journal: Journal, clock: SetClock
) -> None:
    """It is never dropped; younger ones, running ones and acknowledged ones are left alone."""
    await finished(journal, "old")
    await journal.postpone(1, delay_s=0, error="the dashboard answered 503")
    await finished(journal, "acknowledged")
    await journal.acknowledge(2)
    await journal.accept(order("queued"), ROOM)
    clock.advance(100)
    await finished(journal, "young")
    clock.advance(1)
    (expired,) = await journal.expire(older_than_s=100, why="too old")
    assert (expired["task_id"], expired["attempt"]) == ("old", 1)
    assert await journal.expire(older_than_s=100, why="too old") == []
    assert await journal.counts() == {State.QUEUED: 1, Delivery.PENDING: 1, Delivery.DEAD_LETTER: 1}


async def test_an_acknowledgement_beats_the_retention(journal: Journal, clock: SetClock) -> None:
    """The delivery was under way when its time was over: the dashboard has it, and the task may be sent again."""
    await finished(journal, "t")
    clock.advance(101)
    assert await journal.expire(older_than_s=100, why="too old")
    await journal.acknowledge(1)
    assert await journal.counts() == {}
    assert (await journal.accept(order("t"), ROOM)).attempt == 2


async def test_an_attempt_whose_row_was_lost_is_written_down_as_ended(journal: Journal) -> None:
    """With its own run id and number; it is due, keeps its task closed, and is restored once."""
    lost = LostAttempt("r1", "t", 3, "a.sh", "0" * 64, None)
    verdict = lifecycle.lost(Reason.JOURNAL_LOST, "why")
    assert await journal.restore_lost(lost, verdict, PRINTED)
    assert not await journal.restore_lost(lost, verdict, PRINTED)
    due = await journal.due_result(1)
    assert due is not None
    assert (due.run_id, due.attempt, due.error, due.output) == ("r1", 3, "lost: why", PRINTED)
    with pytest.raises(AlreadyRunning):
        await journal.accept(order("t"), ROOM)
    await journal.acknowledge(1)
    assert (await journal.accept(order("t"), ROOM)).attempt == 4


async def test_an_attempt_that_moved_on_is_not_put_back(journal: Journal) -> None:
    """Neither from another slot nor from another state than the one that was seen."""
    run_id = (await journal.accept(order(), ROOM)).run_id
    await to_preparing(journal, run_id, "agp-2")
    assert not await journal.requeue(run_id, slot="agp-1", seen=State.PREPARING, failed_try=False)
    await journal.running(run_id, release())
    assert not await journal.requeue(run_id, slot="agp-2", seen=State.PREPARING, failed_try=False)
    assert await journal.requeue(run_id, slot="agp-2", seen=State.RUNNING, failed_try=False)


async def test_a_postponed_result_is_due_when_its_time_has_come(journal: Journal, clock: SetClock) -> None:
    """Not before; the failed delivery is counted."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.postpone(seq, delay_s=30, error="the dashboard answered 503")
    assert await due_now(journal) == []
    assert await journal.next_due_in_s(skip=[]) == 30
    clock.advance(29.9)
    assert await due_now(journal) == []
    clock.advance(0.2)
    assert await due_now(journal) == [seq]
    assert await journal.next_due_in_s(skip=[]) == 0
    due = await journal.due_result(seq)
    assert due is not None
    assert due.deliveries == 1


async def test_the_next_due_time_leaves_out_what_is_on_its_way(journal: Journal) -> None:
    """None where nothing waits."""
    assert await journal.next_due_in_s(skip=[]) is None
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    assert await journal.next_due_in_s(skip=[seq]) is None
    await journal.acknowledge(seq)
    assert await journal.next_due_in_s(skip=[]) is None


async def test_a_clock_that_was_set_back_holds_no_result_back(journal: Journal, clock: SetClock) -> None:
    """What is due far in the future is due now: only such a clock does that."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.postpone(seq, delay_s=3600, error="x")
    assert await due_now(journal) == []
    clock.advance(-DAY_S)
    assert await due_now(journal) == [seq]


async def test_an_acknowledged_result_is_over(journal: Journal) -> None:
    """It is not due, and cannot be acknowledged, postponed or refused again."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    await journal.acknowledge(seq)
    await journal.postpone(seq, delay_s=0, error="x")
    await journal.dead_letter(seq, error="x")
    assert await due_now(journal) == []
    assert await journal.counts() == {}


async def test_a_late_acknowledgement_does_not_close_the_next_attempt(journal: Journal) -> None:
    """Each attempt has its own result."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    await journal.accept(order("t"), ROOM)
    await journal.acknowledge(seq)
    with pytest.raises(AlreadyRunning):
        await journal.accept(order("t"), ROOM)


async def test_a_dead_letter_is_not_due_but_visible(journal: Journal) -> None:
    """It is counted until an operator has dealt with it."""
    await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.dead_letter(seq, error="the dashboard answered 400")
    assert await due_now(journal) == []
    assert await journal.counts() == {Delivery.DEAD_LETTER: 1}


async def test_counts_tell_what_is_where(journal: Journal) -> None:
    """By state; what is acknowledged is not counted any more."""
    assert await journal.counts() == {}
    queued = [(await journal.accept(order(name), ROOM)).run_id for name in "abc"]
    await to_preparing(journal, queued[0])
    await to_preparing(journal, queued[1], "agp-2")
    await journal.running(queued[1], release())
    await finished(journal, "d")
    assert await journal.counts() == {
        State.QUEUED: 1,
        State.PREPARING: 1,
        State.RUNNING: 1,
        Delivery.PENDING: 1,
    }


# --- housekeeping ------------------------------------------------------------------------------------------------


async def test_old_acknowledged_results_are_forgotten_and_nothing_else(journal: Journal, clock: SetClock) -> None:
    """Not what waits, runs, or is not acknowledged, however old it is."""
    kept = [(await journal.accept(order("queued"), ROOM)).run_id, await finished(journal, "pending")]
    dead = await finished(journal, "dead")
    (_, seq) = await due_now(journal)
    await journal.dead_letter(seq, error="x")
    acknowledged = await finished(journal, "acknowledged")
    for number in await due_now(journal):
        due = await journal.due_result(number)
        if due is not None and due.run_id == acknowledged:
            await journal.acknowledge(number)
    clock.advance(99)
    assert await journal.purge(older_than_s=100) == 0
    clock.advance(2)
    assert await journal.purge(older_than_s=100) == 1
    assert await journal.attempt(acknowledged) is None
    for run_id in (*kept, dead):
        assert await journal.attempt(run_id) is not None
    assert await journal.purge(older_than_s=100) == 0


async def test_a_key_that_still_holds_keeps_its_attempt(journal: Journal, clock: SetClock) -> None:
    """A short retention must not make a replay run twice."""
    accepted = await journal.accept(order("t", key="k"), ROOM)
    await journal.finish(accepted.run_id, SUCCESS, PRINTED)
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    clock.advance(DAY_S - 1)
    assert await journal.purge(older_than_s=1) == 0
    assert (await journal.accept(order("t", key="k"), ROOM)).replayed
    clock.advance(2)
    assert await journal.purge(older_than_s=1) == 1


LARGE = Output(b"x" * 100_000, b"", 100_000)


async def acknowledged(journal: Journal, task_id: str, key: str | None = None) -> str:
    """Take a task with a large output to its acknowledgement; return its run_id."""
    new = order(task_id, key=key) if key else order(task_id)
    run_id = (await journal.accept(new, ROOM)).run_id
    await journal.finish(run_id, SUCCESS, LARGE)
    await journal.acknowledge((await due_now(journal))[-1])
    return run_id


async def made_room(journal: Journal, limit_bytes: int) -> int:
    """Make room as long as that helps; return how many results it cost."""
    number = 0
    while step := await journal.make_room(limit_bytes=limit_bytes):
        number += step
    return number


async def test_room_is_made_by_the_oldest_acknowledged_results(journal: Journal, clock: SetClock) -> None:
    """As many as are needed and a few more, the newest stay."""
    runs = []
    for number in range(60):
        runs.append(await acknowledged(journal, f"t{number}"))
        clock.advance(1)
    clock.advance(10)
    used_bytes = await journal.used_bytes()
    assert used_bytes > 60 * 100_000
    assert await made_room(journal, used_bytes) == 0
    assert await made_room(journal, used_bytes - 1) == 20
    assert await journal.used_bytes() < used_bytes - 20 * 100_000
    left = [run_id for run_id in runs if await journal.attempt(run_id) is not None]
    assert left == runs[20:]


async def test_an_output_of_which_only_the_tail_was_kept_gives_room_too(journal: Journal, clock: SetClock) -> None:
    """Also where the row itself stays, for its Idempotency-Key."""
    accepted = await journal.accept(order("t", key="k"), ROOM)
    await journal.finish(accepted.run_id, SUCCESS, Output(b"", b"x" * 100_000, 100_000))
    await journal.acknowledge((await due_now(journal))[-1])
    clock.advance(60)
    assert await made_room(journal, 1) == 1
    assert await journal.used_bytes() < 100_000


async def test_what_is_not_acknowledged_is_never_dropped_for_room(journal: Journal, clock: SetClock) -> None:
    """Whether it waits, is to be delivered, or is a dead letter."""
    kept = [(await journal.accept(order("queued"), ROOM)).run_id, await finished(journal, "dead", output=LARGE)]
    (seq,) = await due_now(journal)
    await journal.dead_letter(seq, error="x")
    kept.append(await finished(journal, "pending", output=LARGE))
    clock.advance(100 * DAY_S)
    assert await made_room(journal, 1) == 0
    assert [await journal.attempt(run_id) is not None for run_id in kept] == [True] * 3


async def test_what_was_acknowledged_just_now_is_not_dropped_for_room(journal: Journal, clock: SetClock) -> None:
    """The audit trail may not have it yet, and a journal that does not know it either would look damaged."""
    await acknowledged(journal, "t")
    clock.advance(9)
    assert await made_room(journal, 1) == 0
    clock.advance(2)
    assert await made_room(journal, 1) == 1


async def test_room_is_made_also_where_the_clock_was_set_back(journal: Journal, clock: SetClock) -> None:
    """What was acknowledged in the future is old."""
    await acknowledged(journal, "t")
    clock.advance(-DAY_S)
    assert await made_room(journal, 1) == 1


async def test_a_key_that_still_holds_gives_only_its_output_for_room(journal: Journal, clock: SetClock) -> None:
    """The same key gets the same answer for its 24 h, and nothing runs again."""
    run_id = await acknowledged(journal, "t", key="k")
    clock.advance(60)
    assert await made_room(journal, 1) == 1
    assert await journal.attempt(run_id) is not None
    assert await journal.used_bytes() < 100_000
    assert (await journal.accept(order("t", key="k"), ROOM)).replayed
    clock.advance(DAY_S)
    assert await made_room(journal, 1) == 1
    assert await journal.attempt(run_id) is None


async def test_a_purged_task_begins_again_with_a_new_run(journal: Journal, clock: SetClock) -> None:
    """Attempts count from 1 again; the run ids differ, and the numbers of results are never used twice."""
    first = await finished(journal, "t")
    (seq,) = await due_now(journal)
    await journal.acknowledge(seq)
    clock.advance(10)
    await journal.purge(older_than_s=1)
    again = await journal.accept(order("t"), ROOM)
    assert (again.attempt, again.run_id != first) == (1, True)
    attempt = await journal.attempt(again.run_id)
    assert attempt is not None
    assert attempt.seq > seq


async def test_a_probe_tells_whether_the_journal_can_be_written(journal: Journal) -> None:
    """It changes nothing; after closing it says no."""
    await finished(journal, "t")
    await journal.probe()
    assert await journal.counts() == {Delivery.PENDING: 1}
    journal.close()
    with pytest.raises(JournalUnavailable):
        await journal.probe()


async def test_a_probe_writes_even_into_an_empty_journal(journal: Journal, tmp_path: Path) -> None:
    """Or it would say nothing about the disk."""
    files = list(tmp_path.glob("*-wal"))
    before = [file.stat().st_size for file in files]
    await journal.probe()
    assert [file.stat().st_size for file in files] > before


async def test_everything_is_there_after_a_restart(tmp_path: Path, clock: SetClock) -> None:
    """What was accepted, what runs, and what is to be delivered."""
    journal = Journal(tmp_path / "j.db", clock)
    queued = (await journal.accept(order("queued"), ROOM)).run_id
    running = (await journal.accept(order("running"), ROOM)).run_id
    await to_preparing(journal, running)
    await journal.running(running, release())
    await finished(journal, "done")
    journal.close()
    journal = Journal(tmp_path / "j.db", clock)
    assert [waiting.run_id for waiting in await journal.next_queued(limit=9, skip=[])] == [queued]
    assert [attempt.run_id for attempt in await journal.unfinished()] == [running]
    assert len(await due_now(journal)) == 1
    with pytest.raises(AlreadyRunning):
        await journal.accept(order("running"), ROOM)
    journal.close()
