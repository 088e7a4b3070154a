"""The audit trail: a closed list of events, as JSON on stdout and hash-chained in ``audit.jsonl``.

Every line of the file carries its number and the SHA-256 of the line before it, so that a line that was changed,
removed or moved breaks the chain, and the head (number and hash of the last line) vouches for all that is before it.
"""

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

GENESIS: Final = "0" * 64
"""What the first line carries as the hash of the line before it."""

FILE_MAX_BYTES: Final = 32 * 2**20
"""A trail that has grown so large goes on in a new file; the chain runs through."""
FILES_KEPT: Final = 8
"""Full files that are kept beside the current one; the oldest goes first."""

_TAIL_BYTES: Final = 64 * 1024


class AuditEvent(StrEnum):
    """Everything that is audited."""

    AGENT_STARTED = "agent started"
    AGENT_STOPPED = "agent stopped"
    AGENT_DEGRADED = "agent degraded"
    AGENT_RECOVERED = "agent recovered"
    AUDIT_REPAIRED = "audit repaired"
    CONFIG_LOADED = "config loaded"
    AUTH_FAILED = "auth failed"
    TOKEN_ROTATED = "token rotated"  # noqa: S105  a name
    TASK_REFUSED = "task refused"
    TASK_ACCEPTED = "task accepted"
    TASK_STARTED = "task started"
    TASK_REQUEUED = "task requeued"
    TASK_ADOPTED = "task adopted"
    CANCEL_REQUESTED = "cancel requested"
    TASK_CANCELLED = "task cancelled"
    TASK_FINISHED = "task finished"
    TASK_LOST = "task lost"
    TASK_DELIVERED = "task delivered"
    TASK_DEAD_LETTERED = "task dead-lettered"
    IMAGE_RESOLVED = "image resolved"
    CONTAINER_REFUSED = "container refused"
    JOURNAL_REBUILT = "journal rebuilt"


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The last line of the trail: its number (from 1; 0 is none yet) and its hash."""

    seq: int = 0
    sha256: str = GENESIS

    def __str__(self) -> str:
        """As it travels in a header: ``17:ab12…``."""
        return f"{self.seq}:{self.sha256}"


class Audit:
    """Writes the trail. ``record`` orders the events; ``flush`` waits until all recorded ones are on disk.

    Many waiters share one sync of the disk. A torn last line of a crash is cut off at start; that is recorded.
    """

    def __init__(
        self,
        path: Path,
        mask: Callable[[object], object] = lambda tree: tree,
        *,
        file_max_bytes: int = FILE_MAX_BYTES,
    ) -> None:
        """Open or continue the trail at ``path``; ``mask`` hides secrets in every field.

        Raises:
            OSError: the file cannot be read or written.
        """
        self._mask = mask
        self._log = structlog.get_logger("audit")
        self._lock = threading.Lock()
        self._pending: list[bytes] = []
        self._synced: asyncio.Future[None] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="agp-audit")
        self._path = path
        self._file_max_bytes = file_max_bytes
        self._fd = _open(path)
        self._head, torn = _resume(self._fd)
        if os.fstat(self._fd).st_size == 0 and (full := full_files(path)):
            self._head = _head_of(full[-1])
        self._head_on_disk = self._head
        if torn:
            self.record(AuditEvent.AUDIT_REPAIRED, bytes_cut=len(torn), sha256_cut=hashlib.sha256(torn).hexdigest())

    @property
    def head(self) -> AuditHead:
        """The head of the chain, recorded though perhaps not yet on disk."""
        return self._head

    @property
    def head_on_disk(self) -> AuditHead:
        """The head that no crash takes back: what others may be told."""
        return self._head_on_disk

    def record(self, event: AuditEvent, **fields: object) -> None:
        """Add an event to the trail. Never fails and never waits; ``flush`` tells whether it reached the disk."""
        known = {key: value for key, value in fields.items() if value is not None}
        with self._lock:
            seq = self._head.seq + 1
            line = {"time": _now(), "seq": seq, "event": event.value} | known | {"prev": self._head.sha256}
            text = json.dumps(self._mask(line), ensure_ascii=False, separators=(",", ":"), default=str)
            encoded = text.encode(errors="backslashreplace")  # a lone surrogate becomes its JSON escape
            self._head = AuditHead(seq, hashlib.sha256(encoded).hexdigest())
            self._pending.append(encoded + b"\n")
        self._log.info(event.value, audit_seq=seq, **known)

    async def flush(self) -> None:
        """Return once everything recorded until now is on disk.

        Raises:
            OSError: the disk did not take it; it is kept in memory and written with the next flush.
        """
        wanted = self._head.seq
        while self._head_on_disk.seq < wanted:
            # Whoever comes while a sync is under way shares the next one, which begins when this one ends.
            if self._synced is None or self._synced.done():
                self._synced = asyncio.get_running_loop().run_in_executor(self._writer, self._write_pending)
            # Shielded: whoever gives up waiting must not make a sync that is under way look done to the others.
            await asyncio.shield(self._synced)

    def _write_pending(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
            head = self._head
        try:
            _append(self._fd, b"".join(batch))
        except OSError:
            with self._lock:
                self._pending = batch + self._pending
            raise
        self._head_on_disk = head
        if os.fstat(self._fd).st_size >= self._file_max_bytes:
            self._begin_new_file(head)

    def _begin_new_file(self, head: AuditHead) -> None:
        """Put the full file aside under the number of its last line."""
        try:
            self._path.rename(_full_name(self._path, head.seq))
            fd = _open(self._path)
        except OSError as error:
            self._log.warning("audit trail goes on in its full file", error=str(error))
            return
        os.close(self._fd)
        self._fd = fd
        for old in full_files(self._path)[:-FILES_KEPT]:
            old.unlink(missing_ok=True)

    async def aclose(self) -> None:
        """Write what is left and close the file. Idempotent."""
        if self._fd < 0:
            return
        try:
            await self.flush()
        except OSError as error:
            self._log.error("audit trail incomplete on disk", lines=len(self._pending), error=str(error))
        self._writer.shutdown()
        os.close(self._fd)
        self._fd = -1


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """All events of a trail in their order; lines that are no event are passed over, for verification to name."""
    for file in (*full_files(path), path):
        if file.exists():
            yield from _events_of(file)


def full_files(path: Path) -> list[Path]:
    """The full files that went before the current one at ``path``, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def _full_name(path: Path, last_seq: int) -> Path:
    return path.with_name(f"{path.stem}-{last_seq:015d}{path.suffix}")


def _events_of(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _head_of(file: Path) -> AuditHead:
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _resume(fd)[0]
    finally:
        os.close(fd)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _append(fd: int, data: bytes) -> None:
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


def _tail(fd: int, size: int) -> bytes:
    """The end of the file, with all of its last whole line."""
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        tail = os.pread(fd, size - start, start)
        if start == 0 or tail.count(b"\n") > 1:
            return tail
        length *= 2


def _resume(fd: int) -> tuple[AuditHead, bytes]:
    """Find the head of an existing trail; cut off a torn last line and return it."""
    size = os.fstat(fd).st_size
    whole, newline, torn = _tail(fd, size).rpartition(b"\n")
    if torn:
        os.ftruncate(fd, size - len(torn))
    if not newline:
        return AuditHead(), torn
    last = whole.rpartition(b"\n")[2]
    try:
        seq = int(json.loads(last)["seq"])
    except (ValueError, KeyError, TypeError):
        seq = 0  # verification names the damage; new lines still chain to the bytes that stand there
    return AuditHead(seq, hashlib.sha256(last).hexdigest()), torn
