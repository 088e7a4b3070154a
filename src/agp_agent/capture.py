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

_HEADER: Final = struct.Struct("<8sQQQ")  # magic, limit, bytes begun, bytes written
_MAGIC: Final = b"agpspool"
_OVERLAP_BYTES: Final = 4096
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of the output that are not there any more; ``omitted_bytes`` of them."""

    omitted_bytes: int


class Spool:
    """The output of one run. Not thread-safe: it belongs to the event loop."""

    def __init__(self, fd: int, limit_bytes: int, begun: int, total: int) -> None:
        """Use ``create`` or ``reopen``."""
        self._fd = fd
        self._head_bytes = limit_bytes // 2
        self._ring_bytes = limit_bytes - self._head_bytes
        self._limit = limit_bytes
        self._begun = begun  # positions below _begun - _ring_bytes are overwritten; above the total after a crash
        self._total = total
        self._at_least = False
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
            magic, limit, begun, total = _HEADER.unpack(header)
            if magic == _MAGIC and begun >= total:
                return cls(fd, limit, begun, total)
        os.close(fd)
        return cls.create(path, limit_bytes)

    @property
    def total_bytes(self) -> int:
        """Bytes printed so far, kept or not."""
        return self._total

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
        """From here on something may be missing that nobody counted."""
        self._at_least = True

    def output(self) -> Output:
        """What is kept now."""
        if self._begun <= self._limit:
            return Output(self._read(0, self._total), b"", self._total, 0, self._at_least)
        head = self._read(0, min(self._head_bytes, self._total))
        oldest = self._oldest()
        return Output.cut(head, self._read(oldest, self._total - oldest), self._total, at_least=self._at_least)

    def newest(self, length: int) -> bytes:
        """The last bytes that were printed, at most ``length`` and as many as are kept."""
        start = max(0, self._total - length)
        if self._begun > self._limit and self._total > self._head_bytes:
            start = max(start, self._oldest())
        return self._read(start, self._total - start)

    async def follow(self) -> AsyncGenerator[bytes | Gap, None]:
        """All output from the first byte on, live, until the spool is closed; a slow reader meets gaps."""
        fd = os.dup(self._fd)  # the reader may be slower than the removal of the file
        try:
            position = 0
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
        self._pwrite(memoryview(_HEADER.pack(_MAGIC, self._limit, self._begun, self._total)), 0)

    def _pwrite(self, data: memoryview, offset: int) -> None:
        try:
            complete = os.pwrite(self._fd, data, offset) == len(data)
        except OSError:
            complete = False
        self._at_least |= not complete


def complete_from_log(spool: Spool, log: ContainerLog, *, interrupted: bool) -> None:
    """Add to the spool what the engine's own record has beyond it, or state that something is missing.

    ``interrupted``: the stream was, for certain, by the death of the agent or of the engine. Else it only ended long
    before its container, and where the record ends as the spool does, nothing is missing.
    """
    newest = spool.newest(_OVERLAP_BYTES)
    if not interrupted and log.output.rstrip(b"\n").endswith(newest.rstrip(b"\n")):
        return
    if not log.rotated:
        spool.append(log.output[spool.total_bytes :])
        return
    joint = log.output.rfind(newest) if newest else -1
    if joint < 0:
        spool.note_gap()
        spool.append(log.output)
        return
    if log.output.find(newest) != joint:
        spool.note_gap()  # output that repeats itself: where exactly it goes on cannot be told
    spool.append(log.output[joint + len(newest) :])
