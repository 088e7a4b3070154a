"""The watch over the disk."""

import contextlib
import os
import resource
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.audit import AuditEvent
from agp_agent.disk_watch import RESERVE_BYTES, DiskWatch
from agp_agent.output import Output
from support.agent_parts import Parts, agent, machine
from support.async_waiting import until, until_async
from support.orders import due_now, finished


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An agent's parts."""
    async with machine() as host, agent(tmp_path, host) as made:
        yield made


def watch(parts: Parts, *, journal_limit_bytes: int = 2**30) -> None:
    """Run the loop."""
    reserve = parts.folder / "reserve"
    made = DiskWatch(parts.journal, parts.audit, parts.readiness, reserve, journal_limit_bytes=journal_limit_bytes)
    parts.go(made.run())


async def test_recorded_events_reach_the_disk_by_themselves(parts: Parts) -> None:
    """Nobody has to flush."""
    parts.audit.record(AuditEvent.AGENT_STARTED)
    watch(parts)
    await until((parts.folder / "audit.jsonl").read_bytes, "the line")
    assert parts.readiness.ready


async def test_an_audit_trail_that_cannot_be_written_is_reported_until_it_can(parts: Parts) -> None:
    """The disk is full for real; what was recorded meanwhile is on it afterwards."""
    good = os.dup(parts.audit._fd)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, parts.audit._fd)
    parts.audit.record(AuditEvent.AGENT_STARTED)
    watch(parts)
    await until(lambda: "cannot be written" in parts.readiness.problems.get("audit", ""), "the report")
    assert not parts.readiness.ready
    os.dup2(good, parts.audit._fd)
    await until(lambda: parts.readiness.ready, "all well")
    assert await parts.events() == ["agent started"]
    os.close(good)
    os.close(full)


async def test_a_journal_that_can_be_written_again_is_well(parts: Parts) -> None:
    """Somebody had met a full disk and reported it."""
    parts.readiness.report("journal", "the journal cannot be written: disk full")
    watch(parts)
    await until(lambda: parts.readiness.ready, "all well")


async def test_a_journal_that_cannot_be_written_stays_reported(parts: Parts) -> None:
    """With the reason of now."""
    parts.readiness.report("journal", "an old reason")
    parts.journal.close()
    watch(parts)
    await until(lambda: parts.readiness.problems.get("journal") == "the journal is closed", "the new reason")


async def test_a_journal_that_another_process_holds_is_no_problem_of_the_disk(parts: Parts) -> None:
    """The reserve would not help: it is kept, and only the journal is reported."""
    (parts.folder / "reserve").write_bytes(bytes(RESERVE_BYTES))
    parts.readiness.report("journal", "an old reason")
    with contextlib.closing(sqlite3.connect(parts.folder / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        watch(parts)
        await until(lambda: "is locked" in parts.readiness.problems.get("journal", ""), "the new reason")
        assert set(parts.readiness.problems) == {"journal"}
        assert reserved_bytes(parts) == RESERVE_BYTES
        other.execute("ROLLBACK")
    await until(lambda: parts.readiness.ready, "all well")


# --- the journal's size ------------------------------------------------------------------------------------------

LARGE = Output(b"x" * 200_000, b"", 200_000)


async def test_acknowledged_results_make_room_in_a_journal_that_is_too_large(parts: Parts) -> None:
    """By themselves, and the agent stays ready."""
    await finished(parts.journal, "t", output=LARGE)
    (seq,) = await due_now(parts.journal)
    await parts.journal.acknowledge(seq)
    parts.clock.advance(60)
    watch(parts, journal_limit_bytes=200_000)

    async def look() -> bool:
        return await parts.journal.used_bytes() < LARGE.total_bytes

    await until_async(look, "room")
    assert parts.readiness.ready


async def test_a_journal_full_of_what_was_not_acknowledged_is_reported_until_it_is_not(parts: Parts) -> None:
    """Nothing of it is dropped; the sentence names the setting, and an acknowledgement is the way out."""
    run_id = await finished(parts.journal, "t", output=LARGE)
    watch(parts, journal_limit_bytes=200_000)
    await until(lambda: "AGP_JOURNAL_LIMIT_BYTES" in parts.readiness.problems.get("journal size", ""), "the report")
    assert not parts.readiness.ready
    assert await parts.journal.attempt(run_id) is not None
    (seq,) = await due_now(parts.journal)
    await parts.journal.acknowledge(seq)
    parts.clock.advance(60)
    await until(lambda: parts.readiness.ready, "all well")


async def test_nothing_is_forgotten_that_the_audit_trail_may_lack(parts: Parts) -> None:
    """A delivery that is not in the trail yet would look lost with the journal's row; once it is, room is made."""
    run_id = await finished(parts.journal, "t", output=LARGE)
    (seq,) = await due_now(parts.journal)
    await parts.journal.acknowledge(seq)
    parts.clock.advance(60)
    good, full = os.dup(parts.audit._fd), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, parts.audit._fd)
    parts.audit.record(AuditEvent.TASK_DELIVERED, task_id="t", attempt=1, run_id=run_id)
    watch(parts, journal_limit_bytes=200_000)
    await until(lambda: "AGP_JOURNAL_LIMIT_BYTES" in parts.readiness.problems.get("journal size", ""), "the report")
    assert await parts.journal.attempt(run_id) is not None
    os.dup2(good, parts.audit._fd)
    await until(lambda: parts.readiness.ready, "all well")
    assert await parts.journal.attempt(run_id) is None
    os.close(good)
    os.close(full)


# --- the reserve -------------------------------------------------------------------------------------------------

MIB = 2**20


def reserved_bytes(parts: Parts) -> int:
    """How much is reserved now."""
    reserve = parts.folder / "reserve"
    return reserve.stat().st_size if reserve.exists() else 0


async def test_a_reserve_is_taken_while_all_is_well(parts: Parts) -> None:
    """Its space is really taken, not only promised."""
    watch(parts)
    await until(lambda: reserved_bytes(parts) == RESERVE_BYTES, "the reserve")
    assert (parts.folder / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    assert parts.readiness.ready


async def test_the_reserve_is_given_up_for_results_when_the_journal_cannot_be_written(parts: Parts) -> None:
    """And nothing new is taken on meanwhile."""
    watch(parts)
    await until(lambda: reserved_bytes(parts) == RESERVE_BYTES, "the reserve")
    parts.journal.close()
    parts.readiness.report("journal", "the journal cannot be written: disk full")
    await until(lambda: reserved_bytes(parts) == 0, "the reserve given up")
    assert {"journal", "disk"} <= set(parts.readiness.problems)


async def test_the_reserve_is_given_up_for_the_audit_trail_and_taken_again(parts: Parts) -> None:
    """When the disk has room again, all is as before."""
    watch(parts)
    await until(lambda: reserved_bytes(parts) == RESERVE_BYTES, "the reserve")
    good, full = os.dup(parts.audit._fd), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, parts.audit._fd)
    parts.audit.record(AuditEvent.AGENT_STARTED)
    await until(lambda: reserved_bytes(parts) == 0, "the reserve given up")
    assert {"audit", "disk"} <= set(parts.readiness.problems)
    os.dup2(good, parts.audit._fd)
    await until(lambda: reserved_bytes(parts) == RESERVE_BYTES, "the reserve taken again")
    await until(lambda: parts.readiness.ready, "all well")
    os.close(good)
    os.close(full)


@pytest.mark.parametrize(
    ("taken", "free_mib", "enough"), [(False, 63, False), (False, 64, True), (True, 31, False), (True, 32, True)]
)
async def test_as_much_as_the_reserve_must_be_free_beside_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, *, taken: bool, free_mib: int, enough: bool
) -> None:
    """For new tasks; a reserve that is there is kept for what runs."""
    if taken:
        (parts.folder / "reserve").write_bytes(bytes(RESERVE_BYTES))
    monkeypatch.setattr("agp_agent.disk_watch._free_bytes", lambda _folder: free_mib * MIB)
    parts.readiness.report("disk", "not looked yet")
    watch(parts)
    await until(lambda: parts.readiness.problems.get("disk") != "not looked yet", "the look")
    assert parts.readiness.ready is enough
    assert ("it needs 64 MiB free" in parts.readiness.problems.get("disk", "")) is not enough
    assert reserved_bytes(parts) == (RESERVE_BYTES if taken or enough else 0)


async def test_a_reserve_that_is_there_is_written_to_now_and_then(parts: Parts) -> None:
    """Else an agent without work would not notice a disk that turned read-only."""
    reserve = parts.folder / "reserve"
    reserve.write_bytes(bytes(RESERVE_BYTES))
    os.utime(reserve, (1, 1))
    watch(parts)
    await until(lambda: reserve.stat().st_mtime > 1, "the writing")
    assert parts.readiness.ready


async def test_few_file_descriptors_are_reported_until_there_are_more(parts: Parts) -> None:
    """With their limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, before[1]))
    watch(parts)
    await until(lambda: "RLIMIT_NOFILE" in parts.readiness.problems.get("file descriptors", ""), "the report")
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    await until(lambda: parts.readiness.ready, "all well")


async def test_a_reserve_that_cannot_be_taken_is_reported_with_its_reason(parts: Parts) -> None:
    """Whatever the disk says."""
    (parts.folder / "reserve").mkdir()
    watch(parts)
    await until(lambda: "(Is a directory)" in parts.readiness.problems.get("disk", ""), "the report")
