"""The dashboard's SQLite file, or memory, and the results received in it. The only importer of ``sqlite3`` here.

A result counts as received once its transaction is on the disk (WAL, ``synchronous=FULL``), because the agent forgets
a result that was acknowledged.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Final, Self

from agp_agent.errors import ConfigurationError, Refused, Unavailable
from agp_agent.models import TaskResult, TaskStatus

_APPLICATION_ID: Final = 0x41475044  # "AGPD": tells this file from any other SQLite file
_SCHEMA_VERSION: Final = 3
_FILE_MAGIC: Final = b"SQLite format 3\0"
_WHOLE_OUTPUT_BYTES: Final = 2**40

# The output comes last and as bytes: scans of the short columns never read it, and length() is not fooled by NULs.
# (SQLite's substr() of an empty blob is NULL, hence coalesce.)
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS result (
    id INTEGER PRIMARY KEY,
    idempotency_key TEXT UNIQUE,
    task_id TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    received_at TEXT NOT NULL,
    last_received_at TEXT NOT NULL,
    times_received INTEGER NOT NULL DEFAULT 1,
    output BLOB NOT NULL,
    agent_id INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS result_by_task ON result (task_id);
{files(__package__).joinpath("desk.sql").read_text("utf-8")}
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""

_SELECT: Final = """
SELECT id, idempotency_key, task_id, status, error, received_at, last_received_at, times_received,
       coalesce(substr(output, 1, :half), x'') AS head,
       coalesce(substr(output, max(:half, length(output) - :half) + 1), x'') AS tail,
       max(0, length(output) - 2 * :half) AS omitted
FROM result
"""

_INSERT: Final = """
INSERT INTO result (idempotency_key, task_id, status, error, received_at, last_received_at, output, agent_id)
VALUES (:key, :task_id, :status, :error, :now, :now, :output, :agent_id)
RETURNING id
"""


class KeyReused(Refused):
    """An ``Idempotency-Key`` came again, but with another result: one of the two would be lost in silence."""

    status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class ReceivedResult:
    """One result and how it came. Equal deliveries under one ``Idempotency-Key`` are one ReceivedResult.

    Attributes:
        id: number in order of arrival, from 1.
        output: whole, or where ``omitted_bytes`` is above 0 its head and tail with a line between that says so.
        received_at: when it first came (UTC).
        last_received_at: when it came the last time (UTC).
        times_received: how many times it came, duplicates included; from 1.
    """

    id: int
    idempotency_key: str | None
    task_id: str
    status: TaskStatus
    output: str
    error: str | None
    received_at: datetime
    last_received_at: datetime
    times_received: int
    omitted_bytes: int

    @property
    def duplicates(self) -> int:
        """How many times it came again after the first."""
        return self.times_received - 1


class ResultStore:
    """Keeps received results. Safe to call from several threads; every call may wait for the disk."""

    def __init__(self, path: Path | None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Open the file at ``path`` (made, for its owner only, where it does not exist), or memory when it is None.

        Raises:
            ConfigurationError: when the file cannot be used, or is not a file of this dashboard.
        """
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._db = _open(path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"The dashboard cannot keep its results in {path}: {error}; give another file, or none for memory."
            ) from error

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the file; what was received stays in it."""
        with self._lock:
            self._db.close()

    def add(
        self, result: TaskResult, idempotency_key: str | None = None, agent_id: int | None = None
    ) -> ReceivedResult:
        """Keep a result durably; one that came before under the same key is only counted.

        ``agent_id``: the registered agent whose token it came with. In the same transaction it finds its entry of the
        history (desk.sql).

        Raises:
            KeyReused: the key came before with another result.
            Unavailable: it could not be written (disk full, file locked); nothing changed.
        """
        with self.transaction() as db:
            earlier = _find_key(db, idempotency_key)
            if earlier is None:
                return self._insert(db, result, idempotency_key, agent_id)
            if not _same(earlier, result):
                raise KeyReused("This Idempotency-Key came before with another result; use a new key for a new result.")
            db.execute(
                "UPDATE result SET times_received = times_received + 1, last_received_at = ? WHERE id = ?",
                (self.now(), earlier.id),
            )
            return _get(db, earlier.id)

    def newest(
        self, task_id: str | None = None, limit: int | None = None, output_limit_bytes: int | None = None
    ) -> list[ReceivedResult]:
        """Received results, newest first: all, or those of one task, or at most ``limit`` of them.

        Of an output above ``output_limit_bytes`` only the first and last half of that many bytes are read.
        """
        where = "" if task_id is None else "WHERE task_id = :task_id "
        values = {"task_id": task_id, "limit": -1 if limit is None else limit, "half": _half(output_limit_bytes)}
        with self.transaction() as db:
            rows = db.execute(f"{_SELECT} {where}ORDER BY id DESC LIMIT :limit", values).fetchall()
        return [_received(row) for row in rows]

    def output_of(self, result_id: int) -> str | None:
        """The whole output of one received result, or None when there is no such one."""
        with self.transaction() as db:
            row = db.execute("SELECT output FROM result WHERE id = ?", (result_id,)).fetchone()
        return None if row is None else row["output"].decode()

    def result(self, result_id: int, output_limit_bytes: int) -> ReceivedResult | None:
        """One received result, its output shortened as in ``newest``."""
        with self.transaction() as db:
            values = {"id": result_id, "half": _half(output_limit_bytes)}
            row = db.execute(f"{_SELECT} WHERE id = :id", values).fetchone()
        return None if row is None else _received(row)

    def counts(self) -> tuple[int, int]:
        """How many results are kept, and how many deliveries they came in; the second grows with every delivery."""
        with self.transaction() as db:
            row = db.execute("SELECT count(*), coalesce(sum(times_received), 0) FROM result").fetchone()
        return row[0], row[1]

    def _insert(
        self, db: sqlite3.Connection, result: TaskResult, key: str | None, agent_id: int | None
    ) -> ReceivedResult:
        values = result.model_dump(mode="json") | {"output": result.output.encode(), "key": key, "now": self.now()}
        values["agent_id"] = agent_id
        return _get(db, db.execute(_INSERT, values).fetchone()["id"])

    def now(self) -> str:
        """The moment it is, as it is stored."""
        return self._clock().astimezone(UTC).isoformat(timespec="milliseconds")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, one at a time."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise Unavailable(f"The dashboard's file cannot be used now ({error}); send it again.") from error


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        _check_file(path)
    db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    try:
        _check_ownership(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.executescript(_SCHEMA)
    except BaseException:
        with suppress(sqlite3.Error):
            db.close()
        raise
    db.row_factory = sqlite3.Row
    return db


def _check_file(path: Path) -> None:
    """Make the file for its owner only, or see that it is SQLite's, which itself takes a very short file for empty."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "rb") as file:
        start = file.read(len(_FILE_MAGIC))
    if start not in {b"", _FILE_MAGIC}:
        raise sqlite3.DatabaseError("it is not a database")


def _check_ownership(db: sqlite3.Connection) -> None:
    """Refuse a file with somebody else's tables before anything is written to it."""
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if tables and application != _APPLICATION_ID:
        raise sqlite3.DatabaseError("it is a database of another program")
    if tables and version != _SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"it was written by another version of the dashboard (schema {version})")


def _half(output_limit_bytes: int | None) -> int:
    return (_WHOLE_OUTPUT_BYTES if output_limit_bytes is None else output_limit_bytes) // 2


def _get(db: sqlite3.Connection, row_id: int) -> ReceivedResult:
    row = db.execute(f"{_SELECT} WHERE id = :id", {"id": row_id, "half": _half(None)}).fetchone()
    return _received(row)


def _find_key(db: sqlite3.Connection, key: str | None) -> ReceivedResult | None:
    values = {"key": key, "half": _half(None)}  # no key is NULL, which equals nothing: each such delivery is new
    row = db.execute(f"{_SELECT} WHERE idempotency_key = :key", values).fetchone()
    return None if row is None else _received(row)


def _same(received: ReceivedResult, result: TaskResult) -> bool:
    return (received.task_id, received.status, received.output, received.error) == (
        result.task_id,
        result.status,
        result.output,
        result.error,
    )


def _received(row: sqlite3.Row) -> ReceivedResult:
    return ReceivedResult(
        id=row["id"],
        idempotency_key=row["idempotency_key"],
        task_id=row["task_id"],
        status=TaskStatus(row["status"]),
        output=_join(row["head"], row["tail"], row["omitted"]),
        error=row["error"],
        received_at=datetime.fromisoformat(row["received_at"]),
        last_received_at=datetime.fromisoformat(row["last_received_at"]),
        times_received=row["times_received"],
        omitted_bytes=row["omitted"],
    )


def _join(head: bytes, tail: bytes, omitted: int) -> str:
    if not omitted:
        return (head + tail).decode()
    # A cut may fall inside a character: its rest is left out.
    first, last = head.decode(errors="ignore"), tail.decode(errors="ignore")
    return f"{first}\n[dashboard: {omitted} bytes not shown here]\n{last}"
