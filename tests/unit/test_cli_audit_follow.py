"""Following the audit trail over its files, as ``agp-agent audit tail -f`` does."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from agp_agent.audit import Audit, AuditEvent
from agp_agent.cli import audit as command


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_LOOK_S", 0)


async def added(audit: Audit, number: int) -> None:
    """So many events more, each of which is on disk, and each of which may fill a file."""
    for _ in range(number):
        audit.record(AuditEvent.AUTH_FAILED, why="x" * 300)
        await audit.flush()


def numbers(events: Iterator[dict[str, object]], count: int) -> list[object]:
    """Those of the next events."""
    return [event["seq"] for event in islice(events, count)]


async def test_no_event_is_missed_or_told_twice_while_files_are_replaced(tmp_path: Path) -> None:
    """A look after each event, and one after several files came and went."""
    trail = tmp_path / "audit.jsonl"
    audit = Audit(trail, file_max_bytes=700)
    await added(audit, 3)
    events = command._added(trail, 1)
    assert numbers(events, 2) == [2, 3]
    for number in range(4, 10):
        await added(audit, 1)
        assert numbers(events, 1) == [number]
    await added(audit, 9)
    assert numbers(events, 9) == list(range(10, 19))
    assert len(list(tmp_path.glob("audit*"))) > 4, "control: files were replaced"
    await audit.aclose()


async def test_a_line_that_is_not_whole_yet_is_waited_for(tmp_path: Path) -> None:
    """It is told once, when its end is there; one that is cut off again and written anew, too."""
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(b'{"seq": 1}\n{"se')
    events = command._added(trail, 0)
    assert numbers(events, 1) == [1]
    with trail.open("r+b") as file:
        file.truncate(11)
        file.seek(0, 2)
        file.write(b'{"seq": 2}\n')
    assert numbers(events, 1) == [2]
