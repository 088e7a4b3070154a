"""The files of the audit trail: one that grows, and full ones beside it, each named by the number of its last line."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_TAIL_BYTES: Final = 64 * 1024


def full_files(path: Path) -> list[Path]:
    """The full files that went before the current one at ``path``, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def full_name(path: Path, last_seq: int) -> Path:
    """How the current file at ``path`` is called once it is full."""
    return path.with_name(f"{path.stem}-{last_seq:015d}{path.suffix}")


def last_seq(full: Path) -> int:
    """The number of the last line of a full file; where that is no event, what its name says, or 0."""
    with full.open("rb") as file:
        whole = _tail(file.fileno(), os.fstat(file.fileno()).st_size).rpartition(b"\n")[0]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return int(json.loads(whole.rpartition(b"\n")[2])["seq"])
    number = full.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def first_seq(full: Path) -> int | None:
    """The number of the first line of a full file; None where that is no event."""
    event = next(events_of(full), {})
    return event["seq"] if isinstance(event.get("seq"), int) else None


def events_of(file: Path) -> Iterator[dict[str, Any]]:
    """What stands in one file; lines that are no event are passed over."""
    with file.open("rb") as lines:
        for line in lines:
            if (event := event_in(line)) is not None:
                yield event


def event_in(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is no event."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def began_s(file: Path) -> float:
    """When the first event of a file was recorded, by the wall clock; now, where it has none."""
    try:
        return datetime.fromisoformat(str(next(events_of(file))["time"])).timestamp()
    except (OSError, StopIteration, KeyError, ValueError):
        return time.time()


def age_s(full: Path) -> float:
    """For how long nothing was added to a full file."""
    return time.time() - full.stat().st_mtime


def now() -> str:
    """The wall clock, as it stands in every line."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def open_file(path: Path) -> int:
    """Open a file to go on with, or make it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def replace_file(path: Path, last_seq: int) -> int:
    """Put the current file aside as a full one and begin a new one; return its descriptor.

    Raises:
        OSError: everything is as it was. So the new file is opened first: for that there may be no descriptor.
    """
    new, full = path.with_name(f"{path.name}.new"), full_name(path, last_seq)
    fd = open_file(new)
    try:
        path.rename(full)
        try:
            new.rename(path)
        except OSError:
            full.rename(path)
            raise
    except OSError:
        os.close(fd)
        raise
    return fd


def append(fd: int, data: bytes) -> None:
    """Append all or nothing: what a full disk took of a batch is cut off again, or the chain would break there."""
    size = os.fstat(fd).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fdatasync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def cut(fd: int, size: int) -> None:
    """Cut off what is left of a batch that could neither be synced nor cut off at once; what is shorter stays."""
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)


def last_line(fd: int) -> tuple[bytes | None, bytes]:
    """The last whole line of a file, None where it has none; a torn one behind it is cut off and returned."""
    size = os.fstat(fd).st_size
    whole, newline, torn = _tail(fd, size).rpartition(b"\n")
    if torn:
        os.ftruncate(fd, size - len(torn))
    return (whole.rpartition(b"\n")[2] if newline else None), torn


def _tail(fd: int, size: int) -> bytes:
    """The end of the file, with all of its last whole line."""
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        tail = os.pread(fd, size - start, start)
        if start == 0 or tail.count(b"\n") > 1:
            return tail
        length *= 2
