"""SQLite as the journal needs it: durable, one writer thread that commits many writes at once, one reader thread."""

import asyncio
import contextlib
import hashlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar, cast

import structlog

from agp_agent.errors import AgentError, JournalDamaged, StateDirectoryError

log = structlog.get_logger(__name__)

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

_BATCH_MAX: Final = 256
_BUSY_AT_START_S: Final = 5
_BUSY_MS: Final = 1000
"""How long a write waits where another process holds the file: whoever asks for it has an answer soon after."""
_OWN_PROBLEMS: Final = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)
"""What one write does wrong by itself."""
_NOT_ALL_WRITTEN: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})
"""Errors of a COMMIT whose last frame, the one that makes it count, is not in the write-ahead log."""
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE: Final = 0xFF


class JournalUnavailable(AgentError):
    """The journal could not be written durably; nothing of what was asked has happened."""


class JournalLocked(JournalUnavailable):
    """Another process holds the journal's file; the disk is well."""


class JournalInDoubt(JournalUnavailable):
    """Nothing of it stands in the journal now, but should the agent die before its next write, it may stand there."""


class JournalBroken(JournalUnavailable):
    """It cannot be used any more by this process; the check at the next start tells what of it is left."""


@dataclass(slots=True)
class _Write:
    operation: Operation[object]
    done: asyncio.Future[object]
    result: object = None
    error: Exception | None = None

    def settle(self) -> None:
        """Tell whoever waits; on the loop of ``done``."""
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


def _settle(batch: list[_Write]) -> None:
    """Tell all who wait for a commit: once a loop and not once a write, for each call wakes a thread."""
    for loop in {write.done.get_loop() for write in batch}:
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell, [write for write in batch if write.done.get_loop() is loop])


def _tell(writes: list[_Write]) -> None:
    for write in writes:
        write.settle()


class Database:
    """Runs operations on the journal's file. A write has happened, durably, when its call returns."""

    def __init__(self, path: Path) -> None:
        """Open or create the file and bring its schema up to date.

        Raises:
            StateDirectoryError: the file is damaged, of a newer agent, or cannot be opened.
        """
        self._path = path
        connection = _open(path)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        self._reader_connection = _connect(path)
        self._reader_connection.execute("PRAGMA query_only = ON")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="agp-journal-read")
        self._broken: Future[None] = Future()
        self.on_commit: Callable[[float], None] = lambda _took_s: None
        """Told, by the writing thread, how long each commit took, in seconds."""
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, args=(connection,), name="agp-journal", daemon=True)
        self._writer.start()
        self._closed = False

    async def broken(self) -> None:
        """Wait, for ever where all is well.

        Raises:
            JournalBroken: the file was found to be damaged, or the writer failed as nobody foresaw.
        """
        await asyncio.shield(asyncio.wrap_future(self._broken))

    async def write(self, operation: Operation[T]) -> T:
        """Run ``operation`` inside a transaction and return its result once that is durable.

        An error that the operation raises undoes it alone; other operations of the same commit are not touched.

        Raises:
            JournalUnavailable: it could not be made durable.
        """
        if self._closed:
            raise JournalUnavailable("the journal is closed")
        pending = _Write(operation, asyncio.get_running_loop().create_future())
        self._writes.put(pending)
        # Shielded: whoever gives up waiting must not make a write that is under way look undone.
        return cast("T", await asyncio.shield(pending.done))

    async def read(self, operation: Operation[T]) -> T:
        """Run a query on the newest committed state.

        Raises:
            JournalUnavailable: the file cannot be read.
        """
        if self._closed:
            raise JournalUnavailable("the journal is closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reader, operation, self._reader_connection)
        except sqlite3.Error as error:
            self._look_for_damage(error)
            raise JournalUnavailable(f"the journal cannot be read: {error}") from error

    def close(self) -> None:
        """Finish the writes that were asked for and close the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._writes.put(None)
        self._writer.join()
        self._reader.shutdown()
        self._reader_connection.close()

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        while (first := self._writes.get()) is not None:
            batch = [first]
            last = _drain(self._writes, batch)
            self._try_commit(connection, batch)
            _settle(batch)
            if last:
                break
        connection.close()

    def _try_commit(self, connection: sqlite3.Connection, batch: list[_Write]) -> None:
        """Commit, and never raise: the thread lives on, so that nobody waits for ever."""
        if self._broken.done():
            for write in batch:
                write.error = JournalBroken(str(self._broken.exception()))
            return
        try:
            begun_s = time.monotonic()
            failure = _commit(connection, batch)
            self.on_commit(time.monotonic() - begun_s)
            if failure is not None:
                self._look_for_damage(failure)
        except BaseException as error:  # noqa: BLE001  out of memory, above all
            for write in batch:
                write.error = JournalInDoubt(f"the journal cannot be written: {error!r}")
            self._break(error)

    def _look_for_damage(self, error: sqlite3.Error) -> None:
        if _code(error) & _PRIMARY_CODE in _DAMAGE:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """End the agent, by whoever waits for ``broken``: what it would do from now on nobody could vouch for."""
        why = f"the journal cannot be used any more ({error!r}); the agent ends, and checks it at its next start"
        with contextlib.suppress(InvalidStateError):  # known already
            self._broken.set_exception(JournalBroken(f"{self._path}: {why}."))
            log.critical("journal broken", why=why)


def _drain(writes: "queue.SimpleQueue[_Write | None]", batch: list[_Write]) -> bool:
    """Move what waits already into ``batch``; True when the end was among it."""
    while len(batch) < _BATCH_MAX:
        try:
            write = writes.get_nowait()
        except queue.Empty:
            return False
        if write is None:
            return True
        batch.append(write)
    return False


def _commit(connection: sqlite3.Connection, batch: list[_Write]) -> sqlite3.Error | None:
    """Run a batch in one transaction, each write in a savepoint of its own; return why nothing of it was written."""
    committing = False
    try:
        connection.execute("BEGIN IMMEDIATE")
        for write in batch:
            _run(connection, write)
        committing = True
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        in_doubt = committing and not _is_undone(connection, error)
        for write in batch:
            write.error = _unavailable(error, in_doubt=in_doubt)
        return error
    return None


def _unavailable(error: sqlite3.Error, *, in_doubt: bool = False) -> JournalUnavailable:
    what = f"the journal cannot be written: {error}"
    if in_doubt:
        return JournalInDoubt(what)
    is_locked = _code(error) & _PRIMARY_CODE in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return JournalLocked(what) if is_locked else JournalUnavailable(what)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def _is_undone(connection: sqlite3.Connection, error: sqlite3.Error) -> bool:
    """Whether a commit that failed is out of the write-ahead log for good.

    SQLite leaves its frames where they are. Where all of them were written and only their sync failed, whoever reads
    the log after a crash takes them for a commit; so another one is written over the first of them, which ends the
    chain of checksums there.
    """
    if _code(error) in _NOT_ALL_WRITTEN:
        return True
    try:
        connection.execute("BEGIN IMMEDIATE")
        touch(connection)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return False
    return True


def touch(connection: sqlite3.Connection) -> None:
    """Write something that changes nothing: the same schema version again, one page, also into an empty journal."""
    connection.execute(f"PRAGMA user_version = {connection.execute('PRAGMA user_version').fetchone()[0]}")


def _run(connection: sqlite3.Connection, write: _Write) -> None:
    connection.execute("SAVEPOINT one")
    try:
        write.result = write.operation(connection)
    except sqlite3.DatabaseError as error:
        if not isinstance(error, _OWN_PROBLEMS):
            raise  # disk full, I/O error, locked: this is the batch's problem
        write.error = error
    except Exception as error:  # noqa: BLE001  whatever it is, it goes to the one who asked
        write.error = error
    if write.error is not None:
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_AT_START_S)
    connection.row_factory = sqlite3.Row
    connection.create_function("sha256", 1, _sha256, deterministic=True)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _errors_of_opening(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StateDirectoryError(f"{path}: the journal cannot be opened: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(f"{path}: the journal is damaged ({error}).") from error


def _open(path: Path) -> sqlite3.Connection:
    check_schema(path)
    with _errors_of_opening(path):
        connection = _connect(path)
        try:
            _bring_up(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, set it up for durable writes, and bring its schema up to date."""
    # Not quick_check: it does not miss a row that an index has lost, and such a task would wait for ever.
    if (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise JournalDamaged(f"{path}: the journal is damaged ({found.splitlines()[-1]}).")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StateDirectoryError(f"{path}: this file system cannot hold the journal; use a local one.")
    _migrate(connection)


def migrations() -> list[str]:
    """The SQL of all migrations, in order; the schema's version is their number."""
    folder = files(__package__) / "sql"
    return [entry.read_text() for entry in sorted(folder.iterdir(), key=lambda e: e.name) if entry.name[0].isdigit()]


def check_schema(path: Path) -> None:
    """Find out, without changing a byte, whether the journal is of an agent that this one can follow.

    Raises:
        StateDirectoryError: it is of a newer agent, or cannot be opened.
    """
    if not path.exists() or not path.stat().st_size:  # SQLite removes the write-ahead log of an empty file
        return
    # Read-only: whoever closes a journal last would otherwise move what is in its write-ahead log.
    address = f"{path.absolute().as_uri()}?mode=ro"
    with _errors_of_opening(path), contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > (known := len(migrations())):
        raise StateDirectoryError(
            f"{path}: the journal is of a newer agent (schema {version}, this agent knows {known}); "
            "install that agent again, or give this one another state directory."
        )


def _migrate(connection: sqlite3.Connection) -> None:
    steps = migrations()
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, sql in enumerate(steps[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {sql} PRAGMA user_version = {number}; COMMIT;")
