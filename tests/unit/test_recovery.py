"""A journal that was lost or damaged: everything accepted and not delivered is reported as lost."""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agp_agent import recovery
from agp_agent.audit import Audit, AuditEvent, read_events
from agp_agent.capture import Spool
from agp_agent.errors import AlreadyRunning, StateDirectoryError
from agp_agent.journal import DueResult, Journal, JournalDamaged, survey
from agp_agent.lifecycle import Outcome, Reason, State
from agp_agent.state_dir import StateDir
from support.orders import PRINTED, ROOM, SUCCESS, due_now, order, put_back, release, to_preparing


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    """A state directory."""
    with StateDir(tmp_path, "unit") as taken:
        yield taken


@pytest.fixture
async def audit(state: StateDir) -> AsyncIterator[Audit]:
    """Its audit trail."""
    opened = Audit(state.audit)
    yield opened
    await opened.aclose()


async def accepted(audit: Audit, task_id: str, run_id: str, attempt: int = 1) -> None:
    """Record what the intake records."""
    audit.record(
        AuditEvent.TASK_ACCEPTED,
        task_id=task_id,
        run_id=run_id,
        attempt=attempt,
        playbook_name="a.sh",
        playbook_sha256="0" * 64,
        runner="shell",
    )
    await audit.flush()


def damage(state: StateDir) -> None:
    """Write noise over the journal."""
    state.journal.write_bytes(b"no database at all" * 300)


async def rebuilt(state: StateDir, audit: Audit) -> dict[str, DueResult]:
    """Open, rebuild, and return the results that are due by their run."""
    opened = recovery.open_journal(state, audit)
    assert opened.damage is not None
    journal = opened.journal
    await recovery.rebuild(journal, state, audit, opened.damage)
    results = [await journal.due_result(seq) for seq in await due_now(journal)]
    journal.close()
    return {result.run_id: result for result in results if result is not None}


async def test_a_good_journal_is_simply_opened(state: StateDir, audit: Audit) -> None:
    """Also a new one; nothing is rebuilt."""
    for _ in range(2):
        opened = recovery.open_journal(state, audit)
        assert (opened.damage, opened.unrecorded) == (None, [])
        taken = await opened.journal.accept(order(f"t{_}"), ROOM)
        await accepted(audit, f"t{_}", taken.run_id)
        opened.journal.close()


async def test_what_was_accepted_and_not_delivered_is_reported_as_lost(state: StateDir, audit: Audit) -> None:
    """What was delivered is not; the damaged file is kept beside."""
    await accepted(audit, "delivered", "r1")
    await accepted(audit, "finished", "r2")
    await accepted(audit, "waiting", "r3", attempt=4)
    audit.record(AuditEvent.TASK_FINISHED, task_id="finished", run_id="r2")
    audit.record(AuditEvent.TASK_DELIVERED, task_id="delivered", run_id="r1")
    await audit.flush()
    damage(state)
    before = state.journal.read_bytes()
    results = await rebuilt(state, audit)
    assert set(results) == {"r2", "r3"}
    assert (results["r3"].task_id, results["r3"].attempt) == ("waiting", 4)
    assert results["r3"].outcome is Outcome.LOST
    assert str(results["r3"].error).startswith("lost: ")
    (kept,) = state.path.glob("journal.db.damaged-*")
    assert kept.read_bytes() == before


async def test_the_rebuilding_is_audited(state: StateDir, audit: Audit) -> None:
    """Each lost task, and the whole with its reason and its number."""
    await accepted(audit, "t", "r1")
    damage(state)
    await rebuilt(state, audit)
    await audit.flush()
    events = [json.loads(line) for line in state.audit.read_text().splitlines()]
    assert [event["event"] for event in events] == ["task accepted", "task lost", "journal rebuilt"]
    assert events[-1]["tasks_lost"] == 1
    assert "damaged" in events[-1]["why"]
    assert "damaged" in events[-1]["kept_as"]


@pytest.mark.parametrize("how", ["missing", "empty"])
async def test_a_journal_that_is_gone_is_rebuilt_too(state: StateDir, audit: Audit, how: str) -> None:
    """Never a silent empty database: the audit trail knows better."""
    await accepted(audit, "t", "r1")
    if how == "empty":
        state.journal.write_bytes(b"")
    assert set(await rebuilt(state, audit)) == {"r1"}


async def test_the_log_beside_an_emptied_journal_is_kept(state: StateDir, audit: Audit) -> None:
    """It may be all that is left; SQLite would remove it as soon as the empty file is opened."""
    journal = Journal(state.journal)
    await accepted(audit, "t", (await journal.accept(order("t"), ROOM)).run_id)
    log = state.journal.with_name("journal.db-wal").read_bytes()
    journal.close()
    state.journal.write_bytes(b"")
    state.journal.with_name("journal.db-wal").write_bytes(log)
    recovery.check_schema(state)
    opened = recovery.open_journal(state, audit)
    assert opened.damage is not None
    assert opened.damage.kept_as is not None
    assert opened.damage.kept_as.with_name(f"{opened.damage.kept_as.name}-wal").read_bytes() == log
    opened.journal.close()


@pytest.mark.parametrize("how", ["missing", "empty"])
async def test_a_journal_that_is_gone_is_told_of_also_where_nothing_was_open(
    state: StateDir, audit: Audit, how: str
) -> None:
    """What was delivered is forgotten, too, and with it each Idempotency-Key: the trail says so."""
    await accepted(audit, "t", "r1")
    audit.record(AuditEvent.TASK_DELIVERED, task_id="t", run_id="r1")
    await audit.flush()
    if how == "empty":
        state.journal.write_bytes(b"")
    assert await rebuilt(state, audit) == {}
    await audit.flush()
    (event,) = [event for event in read_events(state.audit) if event["event"] == "journal rebuilt"]
    assert (event["tasks_lost"], event["why"]) == (0, "the journal is missing or empty")


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_first_start_has_no_journal_to_miss(state: StateDir, audit: Audit, how: str) -> None:
    """Also where the one before was killed while it made the file."""
    if how == "empty":
        state.journal.write_bytes(b"")
    opened = recovery.open_journal(state, audit)
    assert opened.damage is None
    opened.journal.close()


async def test_rebuilding_again_reports_nothing_twice(state: StateDir, audit: Audit) -> None:
    """The second damage comes before the first result was delivered: the same run, once."""
    await accepted(audit, "t", "r1")
    damage(state)
    assert set(await rebuilt(state, audit)) == {"r1"}
    damage(state)
    assert set(await rebuilt(state, audit)) == {"r1"}


async def test_the_output_that_is_left_is_delivered(state: StateDir, audit: Audit) -> None:
    """Found by the note beside the slot; it says that something may be missing."""
    await accepted(audit, "t", "r1")
    slot = state.slots / "agp-1"
    slot.mkdir()
    (slot / "note.json").write_text('{"run_id": "r1"}')
    torn = state.slots / "agp-2"
    torn.mkdir()
    (torn / "note.json").write_text('{"run_')
    spool = Spool.create(state.spool / "agp-1", 4096)
    spool.append(b"begun\n")
    spool.discard()
    damage(state)
    result = (await rebuilt(state, audit))["r1"]
    assert result.output.head == b"begun\n"
    assert result.output.at_least


async def test_a_task_whose_row_was_lost_stays_closed_until_it_is_acknowledged(state: StateDir, audit: Audit) -> None:
    """Sent again meanwhile, it is refused: nothing runs twice by accident."""
    await accepted(audit, "t", "r1")
    damage(state)
    await rebuilt(state, audit)
    journal = Journal(state.journal)
    with pytest.raises(AlreadyRunning):
        await journal.accept(order("t"), ROOM)
    verdict = await journal.verdict("r1")
    assert verdict is not None
    assert verdict.reason is Reason.JOURNAL_LOST
    journal.close()


async def test_a_journal_of_a_newer_agent_is_not_set_aside(state: StateDir, audit: Audit) -> None:
    """It is not damaged; the older agent refuses to start."""
    Journal(state.journal).close()
    data = bytearray(state.journal.read_bytes())
    data[60:64] = (99).to_bytes(4, "big")  # user_version in SQLite's header
    state.journal.write_bytes(data)
    with pytest.raises(StateDirectoryError, match="newer agent"):
        recovery.open_journal(state, audit)
    assert not list(state.path.glob("*.damaged-*"))


async def test_a_task_whose_acceptance_went_with_an_old_file_is_lost_too(state: StateDir) -> None:
    """It had been carried forward before; with it all that the report needs."""
    trail = Audit(state.audit, file_max_bytes=4000)
    await accepted(trail, "old", "r1", attempt=3)
    while "task accepted" in {event["event"] for event in read_events(state.audit)}:
        trail.record(AuditEvent.CONTAINER_REFUSED, why="x" * 500)
        await trail.flush()
    await trail.aclose()
    damage(state)
    audit = Audit(state.audit)
    results = await rebuilt(state, audit)
    assert {run_id: (due.task_id, due.attempt) for run_id, due in results.items()} == {"r1": ("old", 3)}
    await audit.aclose()


async def test_a_start_that_was_carried_forward_is_not_forgotten(rolled: "Rolled", state: StateDir) -> None:
    """Else the task would be started a second time."""
    await rolled.accept()
    rolled.copy()
    await rolled.start()
    rolled.roll_back()
    carried = Audit(state.path / "other.jsonl", file_max_bytes=4000)
    for event in read_events(state.audit):
        carried.record(AuditEvent(event["event"]), **{key: event[key] for key in ("task_id", "run_id", "attempt")})
    while "task started" in {event["event"] for event in read_events(state.path / "other.jsonl")}:
        carried.record(AuditEvent.CONTAINER_REFUSED, why="x" * 500)
        await carried.flush()
    await carried.aclose()
    (state.path / "other.jsonl").rename(state.audit)
    audit = Audit(state.audit)
    opened = recovery.open_journal(state, audit)
    assert opened.damage is not None
    assert "was started" in opened.damage.why
    opened.journal.close()
    await audit.aclose()


# --- a journal that opens well, and has forgotten something ---------------------------------------------------------


class Rolled:
    """A journal in use, of which an older copy can be put back: what a damaged write-ahead log leaves."""

    def __init__(self, state: StateDir, audit: Audit) -> None:
        """Open it and accept one task."""
        self._state, self._audit = state, audit
        self.run_id = ""
        self.journal = recovery.open_journal(state, audit).journal

    async def accept(self) -> None:
        """Accept the task, in journal and trail."""
        self.run_id = (await self.journal.accept(order("t"), ROOM)).run_id
        await accepted(self._audit, "t", self.run_id)

    async def start(self) -> None:
        """Take it to running."""
        await to_preparing(self.journal, self.run_id)
        await self.journal.running(self.run_id, release())
        await self.record(AuditEvent.TASK_STARTED)

    async def finish(self) -> None:
        """End it."""
        await self.journal.finish(self.run_id, SUCCESS, PRINTED)
        await self.record(AuditEvent.TASK_FINISHED)

    async def acknowledge(self) -> None:
        """Deliver it, without a line in the trail."""
        (seq,) = await due_now(self.journal)
        await self.journal.acknowledge(seq)

    async def record(self, event: AuditEvent) -> None:
        """Write a line into the trail."""
        self._audit.record(event, task_id="t", attempt=1, run_id=self.run_id)
        await self._audit.flush()

    def copy(self) -> None:
        """Close the journal, keep a copy of it as it is now, and open it again."""
        self.journal.close()
        shutil.copy(self._state.journal, self._state.path / "older")
        self.journal = Journal(self._state.journal)

    def roll_back(self) -> None:
        """Put the copy in the journal's place."""
        self.journal.close()
        shutil.copy(self._state.path / "older", self._state.journal)


@pytest.fixture
def rolled(state: StateDir, audit: Audit) -> Rolled:
    """A journal that is going to be rolled back."""
    return Rolled(state, audit)


async def check_forgotten(rolled: Rolled, state: StateDir, audit: Audit, what: str) -> None:
    """Roll back: the journal is rebuilt, and says what it had forgotten."""
    rolled.roll_back()
    opened = recovery.open_journal(state, audit)
    assert opened.damage is not None
    assert f"the journal has forgotten that run {rolled.run_id} {what}" in opened.damage.why
    assert (opened.damage.kept_as is None) is (what == "was accepted")  # that older one has nothing worth keeping
    await recovery.rebuild(opened.journal, state, audit, opened.damage)
    opened.journal.close()


async def test_a_journal_that_forgot_an_acceptance_is_rebuilt(rolled: Rolled, state: StateDir, audit: Audit) -> None:
    """The task is reported as lost, not forgotten; and the new journal is fine the next time."""
    rolled.copy()
    await rolled.accept()
    await check_forgotten(rolled, state, audit, "was accepted")
    opened = recovery.open_journal(state, audit)
    assert opened.damage is None
    verdict = await opened.journal.verdict(rolled.run_id)
    assert verdict is not None
    assert verdict.outcome is Outcome.LOST
    opened.journal.close()


async def test_a_journal_that_forgot_a_start_is_rebuilt(rolled: Rolled, state: StateDir, audit: Audit) -> None:
    """Else the task would be started a second time."""
    await rolled.accept()
    rolled.copy()
    await rolled.start()
    await check_forgotten(rolled, state, audit, "was started")


def leave_note(state: StateDir, slot: str, run_id: str) -> None:
    """Write down, as is done at every release, which run is about to start in this slot."""
    (state.slots / slot).mkdir()
    (state.slots / slot / "note.json").write_text(json.dumps({"run_id": run_id, "task_id": "t", "attempt": 1}))


async def test_a_journal_that_forgot_a_start_that_only_a_note_tells_is_rebuilt(
    rolled: Rolled, state: StateDir, audit: Audit
) -> None:
    """The agent was killed before the start was in the trail: else the task would be started a second time."""
    await rolled.accept()
    rolled.copy()
    await to_preparing(rolled.journal, rolled.run_id)
    await rolled.journal.running(rolled.run_id, release())
    leave_note(state, "agp-1", rolled.run_id)
    await check_forgotten(rolled, state, audit, "was started")


async def test_what_is_being_prepared_and_has_a_note_in_its_slot_is_lost(
    rolled: Rolled, state: StateDir, audit: Audit
) -> None:
    """The note comes after the commit that it runs, which the journal has forgotten."""
    await rolled.accept()
    await to_preparing(rolled.journal, rolled.run_id)
    rolled.copy()
    await rolled.journal.running(rolled.run_id, release())
    leave_note(state, "agp-1", rolled.run_id)
    rolled.roll_back()
    opened = recovery.open_journal(state, audit)
    assert (opened.damage, opened.doubtful) == (None, [rolled.run_id])
    opened.journal.close()


@pytest.mark.parametrize("prepared_again", [False, True])
async def test_a_note_that_was_left_before_a_task_was_put_back_is_no_contradiction(
    rolled: Rolled, state: StateDir, audit: Audit, *, prepared_again: bool
) -> None:
    """Its slot could not be removed yet: the task waits, or is prepared in another."""
    await rolled.accept()
    await rolled.start()
    leave_note(state, "agp-1", rolled.run_id)
    await put_back(rolled.journal, rolled.run_id)
    await rolled.record(AuditEvent.TASK_REQUEUED)
    if prepared_again:
        await to_preparing(rolled.journal, rolled.run_id, "agp-2")
    rolled.journal.close()
    opened = recovery.open_journal(state, audit)
    assert (opened.damage, opened.doubtful) == (None, [])
    opened.journal.close()


async def test_what_may_have_been_started_is_lost(rolled: Rolled, state: StateDir, audit: Audit) -> None:
    """The start was forgotten, or the task was put back and prepared again: it alone is ended, not all others."""
    await rolled.accept()
    await to_preparing(rolled.journal, rolled.run_id)
    rolled.copy()
    await rolled.start()
    rolled.roll_back()
    Spool.create(state.spool / "agp-1", 4096).append(b"begun\n")
    opened = recovery.open_journal(state, audit)
    assert (opened.damage, opened.doubtful) == (None, [rolled.run_id])
    assert await recovery.settle(opened, state, audit) == 1
    verdict = await opened.journal.verdict(rolled.run_id)
    assert verdict is not None
    assert verdict.error == "lost: journal and audit trail disagree on whether it was started"
    opened.journal.close()


async def test_what_was_put_back_and_not_audited_is_not_doubtful_later(
    rolled: Rolled, state: StateDir, audit: Audit
) -> None:
    """The agent died between the two; the next one writes it down before the task is prepared again."""
    await rolled.accept()
    await rolled.start()
    await rolled.journal.requeue(rolled.run_id, slot="agp-1", seen=State.RUNNING, failed_try=False)
    rolled.journal.close()
    opened = recovery.open_journal(state, audit)
    assert (opened.damage, opened.doubtful, opened.put_back) == (None, [], [rolled.run_id])
    await recovery.settle(opened, state, audit)
    await to_preparing(opened.journal, rolled.run_id)
    opened.journal.close()
    again = recovery.open_journal(state, audit)
    assert (again.damage, again.doubtful, again.put_back) == (None, [], [])
    again.journal.close()


async def test_a_journal_that_forgot_an_end_is_rebuilt(rolled: Rolled, state: StateDir, audit: Audit) -> None:
    """Its container is gone, and with it what happened."""
    await rolled.accept()
    await rolled.start()
    rolled.copy()
    await rolled.finish()
    await check_forgotten(rolled, state, audit, "has ended")


async def test_a_journal_that_forgot_a_delivery_is_rebuilt(rolled: Rolled, state: StateDir, audit: Audit) -> None:
    """What was delivered is not reported a second time."""
    await rolled.accept()
    await rolled.finish()
    rolled.copy()
    await rolled.acknowledge()
    await rolled.record(AuditEvent.TASK_DELIVERED)
    await check_forgotten(rolled, state, audit, "was delivered")
    opened = recovery.open_journal(state, audit)
    assert await due_now(opened.journal) == []
    opened.journal.close()


@pytest.mark.parametrize("step", [None, AuditEvent.TASK_STARTED, AuditEvent.TASK_FINISHED])
async def test_a_task_that_the_trail_does_not_know_is_told_to_it(
    state: StateDir, audit: Audit, step: AuditEvent | None
) -> None:
    """The agent died before its acceptance was in the trail: when the journal is lost later, it is reported."""
    journal = Journal(state.journal)
    run_id = (await journal.accept(order("t"), ROOM)).run_id
    if step is not None:
        await to_preparing(journal, run_id)
        await journal.running(run_id, release())
    if step is AuditEvent.TASK_FINISHED:
        await journal.finish(run_id, SUCCESS, PRINTED)
    journal.close()
    opened = recovery.open_journal(state, audit)
    await recovery.settle(opened, state, audit)
    opened.journal.close()
    assert audit.head_on_disk == audit.head
    (told,) = Audit(state.audit).open_tasks()
    assert (told.run_id, told.facts["task_id"], told.last_step) == (run_id, "t", step)
    again = recovery.open_journal(state, audit)
    assert (again.damage, again.doubtful, again.unknown) == (None, [], [])
    again.journal.close()
    damage(state)
    assert set(await rebuilt(state, audit)) == {run_id}


@pytest.mark.parametrize("told", [False, True])
async def test_what_was_put_back_is_no_contradiction(
    rolled: Rolled, state: StateDir, audit: Audit, *, told: bool
) -> None:
    """Also where the agent died before the trail had it."""
    await rolled.accept()
    await rolled.start()
    await put_back(rolled.journal, rolled.run_id)
    if told:
        await rolled.record(AuditEvent.TASK_REQUEUED)
    rolled.journal.close()
    opened = recovery.open_journal(state, audit)
    assert opened.damage is None
    opened.journal.close()
    del audit


async def test_a_delivery_that_the_trail_lacks_is_written_down_late(
    rolled: Rolled, state: StateDir, audit: Audit
) -> None:
    """The agent died between the two; without that line the task would one day look forgotten."""
    await rolled.accept()
    await rolled.finish()
    await rolled.acknowledge()
    rolled.journal.close()
    opened = recovery.open_journal(state, audit)
    assert [event["run_id"] for event in opened.unrecorded] == [rolled.run_id]
    await recovery.settle(opened, state, audit)
    await audit.flush()
    opened.journal.close()
    again = recovery.open_journal(state, audit)
    assert (again.damage, again.unrecorded) == (None, [])
    again.journal.close()


async def test_a_rebuilding_that_was_cut_off_is_done_again(state: StateDir, audit: Audit) -> None:
    """Each task of the trail is in the journal in the end."""
    for number in (1, 2):
        await accepted(audit, f"t{number}", f"r{number}")
    damage(state)
    recovery.open_journal(state, audit).journal.close()  # and the agent dies here
    assert set(await rebuilt(state, audit)) == {"r1", "r2"}


async def test_starts_that_fail_do_not_push_out_the_damaged_journal(state: StateDir, audit: Audit) -> None:
    """Each leaves a new empty one; and the reserve is given up for it, or a full disk would never let one be made."""
    await accepted(audit, "t", "r1")
    damage(state)
    before = state.journal.read_bytes()
    for _ in range(5):
        state.reserve.write_bytes(b"reserved")
        recovery.open_journal(state, audit).journal.close()  # and the agent dies here
        assert not state.reserve.exists()
    (kept,) = state.path.glob("journal.db.damaged-*")
    assert kept.read_bytes() == before


async def test_of_a_task_that_was_accepted_again_only_the_last_run_is_lost(state: StateDir, audit: Audit) -> None:
    """It would have been refused if the first had not been delivered."""
    await accepted(audit, "t", "r1")
    await accepted(audit, "t", "r2", attempt=2)
    damage(state)
    assert set(await rebuilt(state, audit)) == {"r2"}


async def test_a_run_that_only_its_note_knows_is_reported_too(state: StateDir, audit: Audit) -> None:
    """Its line in the trail could not be written, or was put aside with an old file. A delivered one is not."""
    for run_id, task_id in (("r1", "known"), ("r2", "forgotten"), ("r3", "delivered")):
        slot = state.slots / f"agp-{run_id}"
        slot.mkdir()
        (slot / "note.json").write_text(json.dumps({"run_id": run_id, "task_id": task_id, "attempt": 1}))
    await accepted(audit, "known", "r1")
    audit.record(AuditEvent.TASK_DELIVERED, task_id="delivered", run_id="r3")
    await audit.flush()
    assert set(await rebuilt(state, audit)) == {"r1", "r2"}


def test_a_journal_that_cannot_be_surveyed_is_damaged(tmp_path: Path) -> None:
    """Whatever is wrong with the file."""
    (tmp_path / "journal.db").write_bytes(b"no database at all" * 300)
    with pytest.raises(JournalDamaged):
        survey(tmp_path / "journal.db", [])
