"""What the journal tells people: tasks, their aliases, and the outbox."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agp_agent.journal import Delivery, Journal, TaskFilter, TaskView
from agp_agent.journal.transactions import SQL
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.models import TaskStatus
from support.clock import SetClock
from support.orders import ROOM, due_now, finished, order, release, to_preparing

FAILED = Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 2", 2)


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


async def view(journal: Journal, task_id: str = "t") -> TaskView:
    """Return what is told of a task that is there."""
    found = await journal.views.task(task_id)
    assert found is not None
    return found


async def test_a_task_is_shown_at_each_step(journal: Journal, clock: SetClock) -> None:
    """From the queue to its end; what is not known yet is None."""
    run_id = (await journal.accept(order("t"), ROOM)).run_id
    queued = await view(journal)
    assert (queued.task_id, queued.attempt, queued.state, queued.status) == ("t", 1, State.QUEUED, TaskStatus.PENDING)
    assert (queued.accepted_at_ms, queued.started_at_ms, queued.finished_at_ms) == (clock.now_ms, None, None)
    assert (queued.image, queued.container_id, queued.outcome, queued.output_bytes) == (None, None, None, None)
    assert (queued.delivery.state, queued.delivery.attempts) == (Delivery.PENDING, 0)
    assert queued.delivery.next_attempt_at_ms is None
    await to_preparing(journal, run_id)
    assert ((await view(journal)).status, (await view(journal)).image) == (TaskStatus.PENDING, "agp/x")
    await journal.running(run_id, release("c7"))
    running = await view(journal)
    assert (running.status, running.container_id, running.image_digest) == (TaskStatus.RUNNING, "c7", "sha256:1")
    assert running.started_at_ms == release().started_at_ms


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (FAILED, TaskStatus.FAILED),
        (Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0), TaskStatus.COMPLETED),
        (Verdict(Outcome.LOST, Reason.ENGINE_LOST, "lost: x"), TaskStatus.FAILED),
    ],
)
async def test_an_ended_task_is_shown_with_its_verdict(journal: Journal, verdict: Verdict, status: TaskStatus) -> None:
    """Outcome, reason, error and exit code, and how much it printed; only a success is completed."""
    await finished(journal, "t", verdict)
    shown = await view(journal)
    assert (shown.state, shown.status) == (State.FINISHED, status)
    assert (shown.outcome, shown.reason) == (verdict.outcome, verdict.reason)
    assert (shown.error, shown.exit_code) == (verdict.error, verdict.exit_code)
    assert (shown.output_bytes, shown.output_omitted_bytes) == (3, 0)


async def test_a_delivery_is_shown_as_it_stands(journal: Journal, clock: SetClock) -> None:
    """Due, postponed, acknowledged; a dead letter has no next attempt."""
    await finished(journal, "t")
    assert (await view(journal)).delivery.next_attempt_at_ms == clock.now_ms
    (seq,) = await due_now(journal)
    await journal.postpone(seq, delay_s=60, error="the dashboard answered 500")
    postponed = (await view(journal)).delivery
    assert (postponed.attempts, postponed.last_error) == (1, "the dashboard answered 500")
    assert postponed.next_attempt_at_ms == clock.now_ms + 60_000
    await journal.acknowledge(seq)
    acknowledged = (await view(journal)).delivery
    assert (acknowledged.state, acknowledged.acknowledged_at_ms) == (Delivery.ACKNOWLEDGED, clock.now_ms)
    assert (acknowledged.next_attempt_at_ms, acknowledged.last_error) == (None, None)
    await finished(journal, "dead")
    await journal.dead_letter((await due_now(journal))[0], error="the dashboard answered 400")
    dead = (await view(journal, "dead")).delivery
    assert (dead.state, dead.next_attempt_at_ms) == (Delivery.DEAD_LETTER, None)


async def test_of_several_attempts_the_latest_is_shown(journal: Journal) -> None:
    """A task that was sent again after its acknowledgement."""
    for _ in range(2):
        await finished(journal, "t")
        await journal.acknowledge((await due_now(journal))[0])
    assert (await view(journal)).attempt == 2
    assert await journal.views.task("other") is None


async def test_an_alias_stands_for_the_id_whose_hash_it_is(journal: Journal) -> None:
    """Whatever characters that has; an unknown one stands for nothing."""
    for task_id in ("a/b", "..", "\U0001f642"):
        await finished(journal, task_id)
        alias = f"~{hashlib.sha256(task_id.encode()).hexdigest()}"
        assert await journal.views.task_id_of(alias) == task_id
    assert await journal.views.task_id_of("~" + "0" * 64) is None


async def test_the_outbox_is_told_with_the_age_of_its_oldest(journal: Journal, clock: SetClock) -> None:
    """What was acknowledged is not in it; a dead letter counts by itself."""
    empty = await journal.views.outbox()
    assert (empty.pending, empty.dead_letters, empty.oldest_age_s) == (0, 0, None)
    for task_id in ("oldest", "dead", "done", "youngest"):
        await finished(journal, task_id)
        clock.advance(10)
    _, dead, done, _ = sorted(await due_now(journal))
    await journal.dead_letter(dead, error="x")
    await journal.acknowledge(done)
    found = await journal.views.outbox()
    assert (found.pending, found.dead_letters, found.oldest_age_s) == (2, 1, 40.0)
    clock.advance(-1000)
    assert (await journal.views.outbox()).oldest_age_s == 0.0


async def test_states_are_counted(journal: Journal) -> None:
    """Finished ones are not: they are history."""
    await finished(journal, "done")
    run_id = (await journal.accept(order("a"), ROOM)).run_id
    await journal.accept(order("b"), ROOM)
    await to_preparing(journal, run_id)
    states = await journal.views.states()
    assert (states[State.QUEUED], states[State.PREPARING], states[State.RUNNING], states[State.FINISHED]) == (
        1,
        1,
        0,
        0,
    )


async def test_looking_at_one_task_and_at_the_outbox_uses_the_indexes(journal: Journal) -> None:
    """However many results the journal holds, nothing reads through all of them."""
    await finished(journal, "t")

    def plans(db: sqlite3.Connection) -> list[str]:
        one: dict[str, object] = {"task_id": "t", "now_ms": 0, "attempt": None}
        page: dict[str, object] = {"before": 2**63 - 1, "limit": 50, "state": None, "outcome": None, "delivery": None}
        names = dict.fromkeys(("view_task", "view_kept", "dead_letter_of", "retry_delivery"), one)
        names |= {"view_outbox": {}, "oldest_queued": {}, "view_tasks": page}
        return [
            row["detail"]
            for name, values in names.items()
            for row in db.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values)
        ]

    found = await journal._db.read(plans)
    assert not [detail for detail in found if detail.startswith("SCAN o") or detail == "SCAN a"], found
    assert any("attempts_open" in detail for detail in found), found


async def test_attempts_are_listed_newest_first_in_pages_by_filter(journal: Journal) -> None:
    """A cursor says where the next page begins, whatever comes meanwhile."""
    for task_id in ("a", "b", "c"):
        await finished(journal, task_id)
    first, cursor = await journal.views.tasks(TaskFilter(), 2, None)
    assert ([one.task_id for one in first], cursor is not None) == (["c", "b"], True)
    await journal.accept(order("d"), ROOM)
    second, end = await journal.views.tasks(TaskFilter(), 2, cursor)
    assert ([one.task_id for one in second], end) == (["a"], None)
    queued, _ = await journal.views.tasks(TaskFilter(state=State.QUEUED), 50, None)
    assert [one.task_id for one in queued] == ["d"]
    assert (await journal.views.tasks(TaskFilter(delivery=Delivery.DEAD_LETTER), 50, None))[0] == []


async def test_the_first_of_the_queue_is_told_with_its_age(journal: Journal, clock: SetClock) -> None:
    """None waits, one waits; a clock that goes back makes no age negative."""
    assert await journal.views.oldest_queued_s() is None
    await journal.accept(order("first"), ROOM)
    clock.advance(5)
    await journal.accept(order("second"), ROOM)
    clock.advance(5)
    assert await journal.views.oldest_queued_s() == 10.0
    clock.advance(-1000)
    assert await journal.views.oldest_queued_s() == 0.0


async def test_a_dead_letter_is_due_again_or_forgotten(journal: Journal) -> None:
    """Only what was given up can be dropped; what is acknowledged can be neither."""
    for task_id in ("again", "gone", "done"):
        await finished(journal, task_id)
    again, gone, done = sorted(await due_now(journal))
    await journal.acknowledge(done)
    for seq in (again, gone):
        await journal.dead_letter(seq, error="x")
    found = await journal.views.dead_letter("gone")
    assert found is not None
    assert (found["task_id"], found["last_error"]) == ("gone", "x")
    assert await journal.drop_dead_letter(found["run_id"])
    assert not await journal.drop_dead_letter(found["run_id"])
    assert (await journal.views.task("gone"), await journal.views.dead_letter("done")) == (None, None)
    assert not await journal.retry_delivery("done")
    assert await journal.retry_delivery("again")
    assert await due_now(journal) == [again]
    await journal.dead_letter(again, error="y")
    assert await journal.retry_dead_letters() == 1
    assert await due_now(journal) == [again]
    await journal.accept(order("gone"), ROOM)  # its id is free again
