"""A journal that was lost or damaged: everything accepted and not delivered is reported as lost."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agp_agent import recovery
from agp_agent.audit import Audit, AuditEvent
from agp_agent.capture import Spool
from agp_agent.errors import AlreadyRunning, StateDirectoryError
from agp_agent.journal import DueResult, Journal
from agp_agent.lifecycle import Outcome, Reason
from agp_agent.state_dir import StateDir
from support.orders import ROOM, due_now, order


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
    journal, found = recovery.open_journal(state)
    assert found is not None
    await recovery.rebuild(journal, state, audit, found)
    results = [await journal.due_result(seq) for seq in await due_now(journal)]
    journal.close()
    return {result.run_id: result for result in results if result is not None}


async def test_a_good_journal_is_simply_opened(state: StateDir, audit: Audit) -> None:
    """Also a new one; nothing is rebuilt."""
    for _ in range(2):
        journal, found = recovery.open_journal(state)
        assert found is None
        await journal.accept(order(f"t{_}"), ROOM)
        await accepted(audit, f"t{_}", f"r{_}")
        journal.close()


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


def test_a_journal_of_a_newer_agent_is_not_set_aside(state: StateDir) -> None:
    """It is not damaged; the older agent refuses to start."""
    Journal(state.journal).close()
    data = bytearray(state.journal.read_bytes())
    data[60:64] = (99).to_bytes(4, "big")  # user_version in SQLite's header
    state.journal.write_bytes(data)
    with pytest.raises(StateDirectoryError, match="newer agent"):
        recovery.open_journal(state)
    assert not list(state.path.glob("*.damaged-*"))


def test_deliveries_without_an_acceptance_are_nothing() -> None:
    """The beginning of the trail may have been put aside long ago."""
    events = [
        {"event": "task delivered", "run_id": "r0"},
        {"event": "task accepted"},
        {"event": "task accepted", "run_id": "r1"},
        {"event": "task accepted", "run_id": "r2"},
        {"event": "task delivered", "run_id": "r1"},
    ]
    assert [event["run_id"] for event in recovery.undelivered(events)] == ["r2"]
