"""The audit trail: a closed list of events, as JSON on stdout and hash-chained in ``audit.jsonl``.

Every line of the file carries its number and the SHA-256 of the line before it, so that a line that was changed,
removed or moved breaks the chain, and the head (number and hash of the last line) vouches for all that is before it.

The trail is bounded: full files go when there are too many of them, or when they are too old. It is also what a lost
journal is rebuilt from, so a task that is still open when the file with its acceptance goes is carried forward: its
facts and its last step are recorded again before. So is which file goes: a beginning that is missing, and for which no
such event vouches, was deleted by somebody else, or dropped by an agent before 0.2.0.
"""

import asyncio
import hashlib
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

import structlog

from agp_agent import audit_files
from agp_agent.audit_files import full_files

GENESIS: Final = "0" * 64
"""What the first line carries as the hash of the line before it."""

FILE_MAX_BYTES: Final = 32 * 2**20
"""A trail that has grown so large goes on in a new file; the chain runs through."""
FILES_KEPT: Final = 8
"""Full files that are kept beside the current one; the oldest goes first."""

_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_CARRIED_BYTES: Final = 400
"""About as long is the line by which an open task is carried forward."""


class AuditEvent(StrEnum):
    """Everything that is audited."""

    AGENT_STARTED = "agent started"
    AGENT_STOPPED = "agent stopped"
    AGENT_DEGRADED = "agent degraded"
    AGENT_RECOVERED = "agent recovered"
    AGENT_PAUSED = "agent paused"
    AGENT_RESUMED = "agent resumed"
    AUDIT_REPAIRED = "audit repaired"
    AUDIT_FILE_DROPPED = "audit file dropped"
    CONFIG_LOADED = "config loaded"
    AUTH_FAILED = "auth failed"
    TOKEN_ROTATED = "token rotated"  # noqa: S105  a name
    TASK_REFUSED = "task refused"
    TASK_ACCEPTED = "task accepted"
    TASK_CARRIED = "task carried forward"
    TASK_STARTED = "task started"
    TASK_REQUEUED = "task requeued"
    TASK_ADOPTED = "task adopted"
    CANCEL_REQUESTED = "cancel requested"
    TASK_CANCELLED = "task cancelled"
    TASK_FINISHED = "task finished"
    TASK_LOST = "task lost"
    TASK_DELIVERED = "task delivered"
    TASK_DEAD_LETTERED = "task dead-lettered"
    TASK_DROPPED = "task dropped"
    DELIVERY_RETRIED = "delivery retried"
    DEAD_LETTERS_KEPT = "dead letters kept"
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


_OPENING: Final = frozenset({AuditEvent.TASK_ACCEPTED, AuditEvent.TASK_CARRIED})
CLOSING: Final = frozenset({AuditEvent.TASK_DELIVERED, AuditEvent.TASK_DROPPED})
"""The events after which nothing is owed for a task: the dashboard has its result, or an operator gave it up."""
STEPS: Final = frozenset(
    {AuditEvent.TASK_STARTED, AuditEvent.TASK_REQUEUED, AuditEvent.TASK_FINISHED, AuditEvent.TASK_LOST}
)
"""The events of a task's walk that a journal must not forget."""
_FACTS: Final = ("task_id", "attempt", "run_id", "playbook_name", "playbook_sha256", "runner")


@dataclass(slots=True)
class OpenTask:
    """A task that was accepted and not delivered. ``seq``: of the line that says so."""

    seq: int
    facts: dict[str, Any]
    last_step: str | None
    """The last event of its walk: started, put back, ended."""

    @property
    def run_id(self) -> str:
        """Which run of it."""
        return str(self.facts["run_id"])


class OpenTasks:
    """What a trail says is open; it hears every event, in their order."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._by_task: dict[str, OpenTask] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in an event.

        A task that is accepted again had been delivered before, for else it would have been refused.
        """
        name, task_id, run_id = (str(event.get(key, "")) for key in ("event", "task_id", "run_id"))
        if name in _OPENING and run_id:
            self._by_task.pop(task_id, None)
            facts = {fact: event[fact] for fact in _FACTS if fact in event}
            seq, last_step = event.get("seq"), event.get("last_step")
            self._by_task[task_id] = OpenTask(seq if isinstance(seq, int) else 0, facts, last_step)
        elif (known := self._by_task.get(task_id)) is None or known.run_id != run_id:
            return
        elif name in CLOSING:
            del self._by_task[task_id]
        elif name in STEPS:
            known.last_step = name

    def until(self, seq: int) -> list[OpenTask]:
        """Those whose line is among the first ``seq``."""
        return [task for task in self._by_task.values() if task.seq <= seq]

    def __iter__(self) -> Iterator[OpenTask]:
        return iter(self._by_task.values())


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
        max_age_s: float = math.inf,
    ) -> None:
        """Open or continue the trail at ``path``; ``mask`` hides secrets in every field.

        ``max_age_s``: full files to which nothing was added for so long go, and no file grows for longer than an
        eighth of it.

        Raises:
            OSError: the file cannot be read or written.
        """
        self._mask = mask
        self._log = structlog.get_logger("audit").bind()  # once: it is built anew for every line otherwise
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        """Events since this process began, by their names."""
        self._pending: list[bytes] = []
        self._synced: asyncio.Future[None] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="agp-audit")
        self._path = path
        self._file_max_bytes = file_max_bytes
        self._max_age_s = max_age_s
        self._fd = audit_files.open_file(path)
        self._head, torn = _resume(self._fd)
        self._is_torn, self._whole_bytes = False, os.fstat(self._fd).st_size
        if self._whole_bytes == 0 and (full := full_files(path)):
            self._head = _head_of(full[-1])
        self._head_on_disk = self._head
        self._began_s = audit_files.began_s(path)
        self._open = OpenTasks()
        self._dropped: str | None = None
        """The head of the file that was dropped last."""
        for event in read_events(path):
            self._open.hear(event)
            if event.get("event") == AuditEvent.AUDIT_FILE_DROPPED:
                self._dropped = str(event.get("head"))
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

    def open_tasks(self) -> list[OpenTask]:
        """What was accepted and not delivered, by this trail; in the order of the acceptances."""
        with self._lock:
            return [replace(task) for task in self._open]

    def record(self, event: AuditEvent, **fields: object) -> None:
        """Add an event to the trail. Never fails and never waits; ``flush`` tells whether it reached the disk."""
        with self._lock:
            self.counts[event.value] += 1
            seq, known = self._add(event, fields)
        self._log.info(event.value, audit_seq=seq, **known)

    def _add(self, event: AuditEvent, fields: Mapping[str, object]) -> tuple[int, dict[str, object]]:
        known = {key: value for key, value in fields.items() if value is not None}
        seq = self._head.seq + 1
        line = {"time": audit_files.now(), "seq": seq, "event": event.value} | known | {"prev": self._head.sha256}
        masked = cast("dict[str, Any]", self._mask(line))
        encoded = _JSON.encode(masked).encode(errors="backslashreplace")  # a lone surrogate becomes its JSON escape
        self._head = AuditHead(seq, hashlib.sha256(encoded).hexdigest())
        self._pending.append(encoded + b"\n")
        self._open.hear(masked)
        return seq, known

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
        self._append_pending()
        is_old = time.time() - self._began_s >= self._max_age_s / FILES_KEPT
        if is_old or os.fstat(self._fd).st_size >= self._file_max_bytes:
            self._begin_new_file()

    def _append_pending(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
            head = self._head
        try:
            if self._is_torn:
                audit_files.cut(self._fd, self._whole_bytes)
            audit_files.append(self._fd, b"".join(batch))
        except OSError:
            self._is_torn = True
            with self._lock:
                self._pending = batch + self._pending
            raise
        self._is_torn, self._whole_bytes = False, os.fstat(self._fd).st_size
        self._head_on_disk = head

    def _begin_new_file(self) -> None:
        """Put the full file aside under the number of its last line."""
        try:
            fd = audit_files.replace_file(self._path, self._head_on_disk.seq)
        except OSError as error:
            self._log.warning("audit trail goes on in its full file", error=str(error))
            return
        os.close(self._fd)
        self._fd, self._whole_bytes, self._began_s = fd, 0, time.time()
        try:
            self._drop_old_files()
        except OSError as error:
            self._log.warning("old files of the audit trail are kept", error=str(error))

    def _drop_old_files(self) -> None:
        """Remove what is too much or too old, once the current file says so, and has all that is open in it."""
        full = full_files(self._path)
        for number, old in enumerate(full):
            if len(full) - number <= FILES_KEPT and audit_files.age_s(old) < self._max_age_s:
                return
            if not self._carry_forward(audit_files.last_seq(old)):
                return
            head, first_seq = str(_head_of(old)), audit_files.first_seq(old)
            self.record(
                AuditEvent.AUDIT_FILE_DROPPED, file=old.name, first_seq=first_seq, head=head, after=self._dropped
            )
            self._append_pending()
            self._dropped = head
            old.unlink(missing_ok=True)

    def _carry_forward(self, last_seq: int) -> bool:
        """Record again what is open until there. False: that is so much that the file is better kept."""
        with self._lock:
            tasks = self._open.until(last_seq)
            if len(tasks) * _CARRIED_BYTES > self._file_max_bytes // 2:
                return False
            added = [self._add(AuditEvent.TASK_CARRIED, task.facts | {"last_step": task.last_step}) for task in tasks]
        for seq, known in added:
            self._log.info(AuditEvent.TASK_CARRIED.value, audit_seq=seq, **known)
        return True

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
            yield from audit_files.events_of(file)


def _head_of(file: Path) -> AuditHead:
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _resume(fd)[0]
    finally:
        os.close(fd)


def _resume(fd: int) -> tuple[AuditHead, bytes]:
    """Find the head of an existing trail; cut off a torn last line and return it."""
    last, torn = audit_files.last_line(fd)
    if last is None:
        return AuditHead(), torn
    try:
        seq = int(json.loads(last)["seq"])
    except (ValueError, KeyError, TypeError):
        seq = 0  # verification names the damage; new lines still chain to the bytes that stand there
    return AuditHead(seq, hashlib.sha256(last).hexdigest()), torn
