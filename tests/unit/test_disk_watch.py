"""The watch over the disk."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.audit import AuditEvent
from agp_agent.disk_watch import DiskWatch
from support.agent_parts import Parts, agent, machine
from support.async_waiting import until


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An agent's parts."""
    async with machine() as host, agent(tmp_path, host) as made:
        yield made


def watch(parts: Parts) -> None:
    """Run the loop."""
    parts.go(DiskWatch(parts.journal, parts.audit, parts.readiness, parts.folder / "reserve").run())


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
