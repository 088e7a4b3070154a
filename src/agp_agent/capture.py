"""The spool: what a running playbook prints, bounded on disk, with its head and its tail kept and its middle counted.

One file a run: a small header, then the head where it stands, then a ring that holds the newest bytes. Writing goes to
the page cache, so that the reader of a container's stream waits for nobody; after the death of the agent the next one
finds everything that was written.
"""

import asyncio
import os
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agp_agent.engine import ContainerLog
from agp_agent.output import Output

_HEADER: Final = struct.Struct("<8sIIQQ")  # magic, limit, place of the gap + 1 (0: none), bytes begun, bytes written
_MAGIC: Final = b"agpspool"
_OVERLAP_BYTES: Final = 4096
_SURE_BYTES: Final = 64
"""An overlap that is no chance."""
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of the output that are not there any more; ``omitted_bytes`` of them."""

    omitted_bytes: int


class Spool:
    """The output of one run. Not thread-safe: it belongs to the event loop."""

    def __init__(self, fd: int, limit_bytes: int, begun: int, total: int, gap_at: int | None = None) -> None:
        """Use ``create`` or ``reopen``."""
        self._fd = fd
        self._limit = limit_bytes
        self._gap_at = gap_at  # from this position on something is missing that nobody counted
        self._lay_out()
        self._begun = begun  # positions below _begun - _ring_bytes are overwritten; above the total after a crash
        self._total = total
        self._closed = False
        self._changed = asyncio.Event()

    @classmethod
    def create(cls, path: Path, limit_bytes: int) -> Self:
        """Make an empty spool; an old file at ``path`` is emptied.

        Raises:
            OSError: the disk has no room for all that it may have to hold. Its space is taken now, not when it is full.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _HEADER.size + limit_bytes)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        spool = cls(fd, limit_bytes, 0, 0)
        spool._write_header()
        return spool

    @classmethod
    def reopen(cls, path: Path, limit_bytes: int) -> Self:
        """Take up what an earlier agent wrote; where that is nothing usable, begin empty."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        header = os.pread(fd, _HEADER.size, 0)
        if len(header) == _HEADER.size:
            magic, limit, gap, begun, total = _HEADER.unpack(header)
            if magic == _MAGIC and begun >= total:
                return cls(fd, limit, begun, total, gap - 1 if gap else None)
        os.close(fd)
        return cls.create(path, limit_bytes)

    @property
    def total_bytes(self) -> int:
        """Bytes printed so far, kept or not."""
        return self._total

    @property
    def closed(self) -> bool:
        """Whether no more output comes."""
        return self._closed

    def append(self, data: bytes) -> None:
        """Add what was printed. A disk that takes no more costs kept bytes, never the run: they count as omitted."""
        self._begun = max(self._begun, self._total + len(data))
        if self._begun > self._limit:
            self._write_header()  # old bytes are overwritten from here on: a crash must not take new for old
        position, left = self._total, memoryview(data)
        self._total += len(data)
        skip = max(0, len(left) - self._limit)  # what the ring would overwrite at once is not written
        if skip and position + skip > self._head_bytes:
            head_part = max(0, self._head_bytes - position)
            self._place(position, left[:head_part])
            position, left = position + len(left) - self._ring_bytes, left[-self._ring_bytes :]
        self._place(position, left)
        self._write_header()
        self._wake()

    def note_gap(self) -> None:
        """Between what was printed so far and what comes now something may be missing that nobody counted.

        A head that is not full ends here: the line that states what is missing stands behind the head.
        """
        if self._gap_at is not None:
            return
        self._gap_at = min(self._total, self._limit)
        self._lay_out()
        self._write_header()

    def output(self) -> Output:
        """What is kept now."""
        at_least = self._gap_at is not None
        if self._begun > self._limit:
            head_end, tail_start = min(self._head_bytes, self._total), self._oldest()
        elif self._gap_at is None:
            return Output(self._read(0, self._total), b"", self._total)
        else:
            head_end = tail_start = min(self._gap_at, self._total)
        head, tail = self._read(0, head_end), self._read(tail_start, self._total - tail_start)
        return Output.cut(head, tail, self._total, at_least=at_least)

    def newest(self, length: int) -> bytes:
        """The last bytes that were printed, at most ``length`` and as many as are kept."""
        start = max(0, self._total - length)
        if self._begun > self._limit and self._total > self._head_bytes:
            start = max(start, self._oldest())
        return self._read(start, self._total - start)

    async def follow(self, start: int = 0) -> AsyncGenerator[bytes | Gap, None]:
        """All output from byte ``start`` on, live, until the spool is closed; a slow reader meets gaps."""
        fd = os.dup(self._fd)  # the reader may be slower than the removal of the file
        try:
            position = start
            while True:
                changed = self._changed
                while position < self._total:
                    if self._head_bytes <= position < (oldest := self._oldest()):
                        gap, position = Gap(oldest - position), oldest
                        yield gap
                        continue  # more may have been overwritten meanwhile
                    chunk = self._read(position, min(self._readable(position), _READ_BYTES), fd)
                    position += len(chunk)
                    yield chunk
                if self._closed:
                    return
                await changed.wait()
        finally:
            os.close(fd)

    def close(self) -> None:
        """No more output comes; followers read what is left and end."""
        self._closed = True
        self._wake()

    def discard(self) -> None:
        """Close the file. Idempotent."""
        self.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lay_out(self) -> None:
        """Divide the file; a gap is noted only while all bytes stand in their order, or behind a full head."""
        half = self._limit // 2
        self._head_bytes = half if self._gap_at is None else min(half, self._gap_at)
        self._ring_bytes = self._limit - self._head_bytes

    def _wake(self) -> None:
        """Wake all followers of now; each takes up the next event before it looks for output."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _oldest(self) -> int:
        """The first position that the ring still holds."""
        return max(self._head_bytes, min(self._begun - self._ring_bytes, self._total))

    def _readable(self, position: int) -> int:
        """Bytes at ``position`` up to the end of the head or of the output."""
        end = self._head_bytes if position < self._head_bytes else self._total
        return min(end, self._total) - position

    def _offset(self, position: int) -> int:
        if position < self._head_bytes:
            return _HEADER.size + position
        return _HEADER.size + self._head_bytes + (position - self._head_bytes) % self._ring_bytes

    def _run_length(self, position: int) -> int:
        """Bytes from ``position`` on that stand side by side in the file."""
        if position < self._head_bytes:
            return self._head_bytes - position
        return self._ring_bytes - (position - self._head_bytes) % self._ring_bytes

    def _place(self, position: int, data: memoryview) -> None:
        while data:
            length = min(len(data), self._run_length(position))
            self._pwrite(data[:length], self._offset(position))
            position, data = position + length, data[length:]

    def _read(self, position: int, length: int, fd: int | None = None) -> bytes:
        source = self._fd if fd is None else fd
        parts = []
        while length > 0:
            part = min(length, self._run_length(position))
            # A disk that was full left holes: they read as zeros, or short at the file's end.
            parts.append(os.pread(source, part, self._offset(position)).ljust(part, b"\0"))
            position, length = position + part, length - part
        return b"".join(parts)

    def _write_header(self) -> None:
        gap = 0 if self._gap_at is None else self._gap_at + 1
        self._pwrite(memoryview(_HEADER.pack(_MAGIC, self._limit, gap, self._begun, self._total)), 0)

    def _pwrite(self, data: memoryview, offset: int) -> None:
        try:
            complete = os.pwrite(self._fd, data, offset) == len(data)
        except OSError:
            complete = False
        if not complete and self._gap_at is None:
            self._gap_at = self._limit  # the division stays as it is: this may be in the middle of a write


def left_output(path: Path) -> Output:
    """What an agent that is no more left of the output in a spool; how much followed, nobody knows."""
    if not path.exists():
        return Output()
    try:
        spool = Spool.reopen(path, _OVERLAP_BYTES)
    except OSError:
        return Output()
    spool.note_gap()
    output = spool.output()
    spool.discard()
    return output


def complete_from_log(spool: Spool, log: ContainerLog, *, interrupted: bool) -> None:
    """Add to the spool what the engine's own record has beyond it, or state that something is missing.

    ``interrupted``: the stream was, for certain, by the death of the agent or of the engine. Else it only ended, as it
    does with its container, and most often nothing is missing.
    """
    newest = spool.newest(_OVERLAP_BYTES)
    if not interrupted and _has_all(spool, log, newest):
        return
    if not log.rotated:
        _complete_from_whole(spool, log.output, newest)
        return
    joined = _joined_bytes(newest, log.output)
    if joined < max(1, min(_SURE_BYTES, len(newest))) or 0 <= log.output.find(newest) < joined - len(newest):
        spool.note_gap()  # nothing in common, or output that repeats itself: where it goes on cannot be told
    spool.append(log.output[joined:])


def _has_all(spool: Spool, log: ContainerLog, newest: bytes) -> bool:
    """Whether the record has no more than the spool, but for the newline that an old engine may add to a long line."""
    if log.rotated:
        end = newest.rstrip(b"\n")
        return bool(end) and log.output.rstrip(b"\n").endswith(end)
    return log.output[spool.total_bytes :] in {b"", b"\n"}


def _complete_from_whole(spool: Spool, logged: bytes, newest: bytes) -> None:
    """Add what a record has beyond the spool that begins where the output does.

    An engine that was killed may take with it what it had sent to the stream and not yet written into its record: then
    the two part before the spool ends, and what its successor wrote belongs behind a gap.
    """
    if logged[: spool.total_bytes].endswith(newest) and len(logged) >= spool.total_bytes:
        spool.append(logged[spool.total_bytes :])
        return
    kept = spool.newest(spool.total_bytes)
    start = spool.total_bytes - len(kept)
    more = logged[start + _common_bytes(kept, logged[start:]) :]
    if more or 0 < start >= len(logged):  # or: what the record has last stands among what was overwritten
        spool.note_gap()
        spool.append(more)


def _common_bytes(one: bytes, other: bytes) -> int:
    """How many bytes two byte strings have in common from their start on."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _joined_bytes(newest: bytes, logged: bytes) -> int:
    """How many of the logged bytes the spool has already, whose last bytes are the ``newest``."""
    if not newest:
        return 0
    if (joint := logged.rfind(newest)) >= 0:
        return joint + len(newest)
    # The log may begin among the newest bytes: rotation dropped what was before.
    return next((length for length in range(len(newest) - 1, 0, -1) if newest.endswith(logged[:length])), 0)
