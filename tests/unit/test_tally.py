"""Events that are counted by peer, so that they do not flood the audit trail."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.audit import Audit, AuditEvent
from agp_agent.metrics import Figures, Metrics
from agp_agent.tally import OTHERS, TOLD_MAX, Tally
from support.async_waiting import until


class Clock:
    """A monotonic clock that tests set."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Return the time it is set to."""
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the audit trail is."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def audit(path: Path) -> AsyncIterator[Audit]:
    """An audit trail."""
    opened = Audit(path)
    yield opened
    await opened.aclose()


def tally(audit: Audit, clock: Clock | None = None) -> Tally:
    """Return one that counts wrong tokens."""
    return Tally(audit, AuditEvent.AUTH_FAILED, clock or Clock())


async def events(audit: Audit, path: Path) -> list[tuple[str, int]]:
    """Return peer and count of every event that was recorded."""
    await audit.flush()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line["event"] == "auth failed" for line in lines)
    return [(line["peer"], line["count"]) for line in lines]


async def test_the_first_failures_of_a_minute_are_recorded_one_by_one(audit: Audit, path: Path) -> None:
    """Beyond ten, the caller is told, and nothing more is recorded within that minute."""
    failures = tally(audit)
    assert [failures.add("a", path="/x") for _ in range(25)] == [False] * 10 + [True] * 15
    assert await events(audit, path) == [("a", 1)] * 10


async def test_what_was_not_recorded_is_told_once_a_minute(audit: Audit, path: Path) -> None:
    """One event with the number; then counting begins anew."""
    clock = Clock()
    failures = tally(audit, clock)
    for _ in range(25):
        failures.add("a", path="/x")
    clock.now_s += 59
    assert failures.add("a", path="/x") is True
    clock.now_s += 1
    assert failures.add("a", path="/x") is False
    assert await events(audit, path) == [("a", 1)] * 10 + [("a", 16), ("a", 1)]


async def test_each_one_is_counted_whether_or_not_it_is_recorded(audit: Audit) -> None:
    """What is only summed up in the trail, too."""
    metrics = Metrics()
    made = Tally(audit, AuditEvent.AUTH_FAILED, Clock(), counted=metrics.auth_failed)
    for _ in range(500):
        made.add("192.0.2.1")
    assert b"\nagp_auth_failures_total 500.0\n" in metrics.text(Figures())


async def test_few_failures_need_no_summary(audit: Audit, path: Path) -> None:
    """All of them were recorded already."""
    clock = Clock()
    failures = tally(audit, clock)
    for _ in range(3):
        clock.now_s += 61
        failures.add("a", path="/x")
    assert await events(audit, path) == [("a", 1)] * 3


async def test_peers_are_counted_apart(audit: Audit) -> None:
    """One guesser does not count against others."""
    failures = tally(audit)
    for _ in range(20):
        failures.add("a", path="/x")
    assert failures.add("b", path="/x") is False


async def test_many_peers_fill_neither_the_memory_nor_the_trail(audit: Audit, path: Path) -> None:
    """Whoever has all of 127.0.0.0/8 or an IPv6 /64 has few lines a minute all the same; none is left uncounted."""
    clock = Clock()
    failures = tally(audit, clock)
    for address in range(2000):
        for _ in range(12):
            failures.add(f"127.0.{address // 256}.{address % 256}", path="/x")
    assert len(failures._peers) <= 1024
    assert await events(audit, path) == [(f"127.0.0.{number // 10}", 1) for number in range(TOLD_MAX)]
    failures.flush()
    told = await events(audit, path)
    assert len(told) <= 2 * TOLD_MAX + 2
    assert sum(count for _, count in told) == 2000 * 12
    assert told[TOLD_MAX][0] == told[-1][0] == OTHERS


async def test_what_all_peers_may_cause_is_theirs_anew_every_minute(audit: Audit, path: Path) -> None:
    """By the clock, also where nothing has flushed meanwhile; what was beyond is one event."""
    clock = Clock()
    failures = tally(audit, clock)
    for number in range(TOLD_MAX + 5):
        failures.add(str(number), path="/x")
    clock.now_s += 60
    failures.add("later", path="/x")
    assert (await events(audit, path))[TOLD_MAX:] == [(OTHERS, 5), ("later", 1)]


async def test_flushing_records_what_was_only_counted(audit: Audit, path: Path) -> None:
    """Once, and counting begins anew; those that were recorded one by one need no summary."""
    failures = tally(audit)
    for _ in range(12):
        failures.add("guesser", path="/x")
    failures.add("slip", path="/x")
    failures.flush()
    failures.flush()
    assert failures.add("guesser", path="/x") is False
    assert await events(audit, path) == [("guesser", 1)] * 10 + [("slip", 1), ("guesser", 2), ("guesser", 1)]


async def test_what_was_only_counted_is_recorded_every_minute(audit: Audit, path: Path) -> None:
    """Also where the guesser has gone away."""
    failures = Tally(audit, AuditEvent.AUTH_FAILED, Clock(), window_s=0.001)
    for _ in range(12):
        failures.add("guesser", path="/x")
    loop = asyncio.create_task(failures.run())
    await until(lambda: audit.head.seq == 11, "the summary")
    loop.cancel()
    assert (await events(audit, path))[-1] == ("guesser", 2)
