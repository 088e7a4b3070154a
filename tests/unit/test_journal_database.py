"""SQLite as the journal needs it: commits shared by many, errors that stay with their owner, schema, damage."""

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agp_agent.errors import JournalDamaged, StateDirectoryError
from agp_agent.journal.aside import set_aside
from agp_agent.journal.database import (
    Database,
    JournalBroken,
    JournalInDoubt,
    JournalUnavailable,
    migrations,
)
from agp_agent.journal.journal import Journal
from support.clock import SetClock
from support.orders import ROOM, order

PATIENCE_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "journal.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An open database with a table to write to."""
    opened = Database(path)
    asyncio.run(opened.write(lambda db: db.execute("CREATE TABLE numbers (n INTEGER UNIQUE CHECK (n < 1000))")))
    yield opened
    opened.close()


def insert(number: int) -> object:
    """Return an operation that writes a number."""
    return lambda db: db.execute("INSERT INTO numbers VALUES (?)", (number,)).rowcount


async def numbers(database: Database) -> list[int]:
    """Return what was written."""
    return [row[0] for row in await database.read(lambda db: db.execute("SELECT n FROM numbers ORDER BY n").fetchall())]


def test_writers_on_several_loops_share_commits(database: Database) -> None:
    """Each is told on its own loop; one that gave its loop up hurts nobody."""
    held, entered = threading.Event(), threading.Event()

    def hold(_db: sqlite3.Connection) -> None:
        entered.set()
        held.wait(PATIENCE_S)

    async def give_up() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await database.write(hold)

    def count(number: int) -> Callable[[sqlite3.Connection], int]:
        return lambda db: db.execute("INSERT INTO numbers VALUES (?)", (number,)).rowcount

    asyncio.run(give_up())
    entered.wait(PATIENCE_S)
    with ThreadPoolExecutor(3) as threads:
        told = [threads.submit(asyncio.run, database.write(count(number))) for number in range(3)]
        held.set()
        assert [one.result(PATIENCE_S) for one in told] == [1, 1, 1]


async def test_what_was_written_is_read_from_then_on_also_by_others(database: Database, path: Path) -> None:
    """A write that returned is committed: another process sees it."""
    assert await database.write(lambda db: db.execute("INSERT INTO numbers VALUES (1)").rowcount) == 1
    assert await numbers(database) == [1]
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT n FROM numbers").fetchall() == [(1,)]
    other.close()


async def test_the_file_is_durable_and_write_ahead(database: Database) -> None:
    """synchronous=FULL and WAL, foreign keys on."""

    def pragmas(db: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.read(pragmas) == ["wal", 2, 1]


async def test_many_writes_share_one_commit(database: Database, path: Path) -> None:
    """While the writer is busy, what comes waits and is committed together: the change counter tells."""
    busy, go_on = threading.Event(), threading.Event()

    def slow(_db: sqlite3.Connection) -> None:
        busy.set()
        assert go_on.wait(PATIENCE_S)

    other = sqlite3.connect(path)
    first = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(busy.wait, PATIENCE_S)
    rest = [
        asyncio.create_task(database.write(lambda db, n=number: db.execute("INSERT INTO numbers VALUES (?)", (n,))))  # type: ignore[misc]
        for number in range(100)
    ]
    await asyncio.sleep(0)
    before = other.execute("PRAGMA data_version").fetchone()[0]
    seen: list[int] = []
    for task in rest:
        task.add_done_callback(lambda _: seen.append(other.execute("SELECT count(*) FROM numbers").fetchone()[0]))
    go_on.set()
    await asyncio.gather(first, *rest)
    assert set(seen) == {100}  # whoever is told first sees the writes of all
    assert other.execute("PRAGMA data_version").fetchone()[0] > before
    other.close()


async def test_the_error_of_one_write_undoes_that_one_alone(database: Database) -> None:
    """Others of the same commit are not touched, whatever went wrong in it."""

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (50)")
        raise KeyError("in the middle")

    def badly(sql: str) -> object:
        return lambda db: db.execute(sql)

    def unbindable(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO numbers VALUES (?)", (object(),))

    def unencodable(db: sqlite3.Connection) -> None:
        db.execute("SELECT ?", ("\ud800",))

    operations = [
        insert(1),
        half,
        insert(2),
        insert(1),  # UNIQUE
        insert(5000),  # CHECK
        unbindable,
        unencodable,
        insert(3),
    ]
    results = await asyncio.gather(
        *(database.write(operation) for operation in operations),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == [
        "int",
        "KeyError",
        "int",
        "IntegrityError",
        "IntegrityError",
        "ProgrammingError" if isinstance(results[5], sqlite3.ProgrammingError) else "InterfaceError",
        "UnicodeEncodeError",
        "int",
    ]
    assert await numbers(database) == [1, 2, 3]


async def test_a_commit_that_fails_is_told_to_all_and_undoes_all(database: Database) -> None:
    """A disk that is full is everybody's problem; afterwards writing goes on."""

    def limited(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 1}")

    def large(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE IF NOT EXISTS large (b BLOB)")
        db.execute("INSERT INTO large VALUES (zeroblob(1000000))")

    await database.write(limited)
    results = await asyncio.gather(
        database.write(insert(1)),  # type: ignore[arg-type]
        database.write(large),
        return_exceptions=True,
    )
    assert isinstance(results[1], JournalUnavailable)
    assert "full" in str(results[1])
    assert await numbers(database) in ([], [1])  # 1 only where it was committed before the other came
    assert isinstance(results[0], JournalUnavailable) == (await numbers(database) == [])
    await database.write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    await database.write(insert(2))  # type: ignore[arg-type]
    assert 2 in await numbers(database)


async def test_who_gives_up_waiting_does_not_undo_the_write(database: Database) -> None:
    """The write was asked for; it happens."""
    busy, go_on = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> None:
        busy.set()
        assert go_on.wait(PATIENCE_S)
        db.execute("INSERT INTO numbers VALUES (7)")

    impatient = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(busy.wait, PATIENCE_S)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    go_on.set()
    await database.write(insert(8))  # type: ignore[arg-type]
    assert await numbers(database) == [7, 8]


async def test_the_reader_cannot_write(database: Database) -> None:
    """All writes go through the one writer."""
    with pytest.raises(JournalUnavailable, match="readonly"):
        await database.read(lambda db: db.execute("INSERT INTO numbers VALUES (1)"))


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    """And closing again is as closing once."""
    database = Database(path)
    await database.write(lambda db: db.execute("CREATE TABLE numbers (n)"))
    writes = [
        asyncio.create_task(database.write(lambda db, n=number: db.execute("INSERT INTO numbers VALUES (?)", (n,))))  # type: ignore[misc]
        for number in range(1000)
    ]
    await asyncio.sleep(0)
    database.close()
    database.close()
    await asyncio.gather(*writes)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (1000,)
    connection.close()


async def test_after_closing_nothing_hangs(path: Path) -> None:
    """Neither reading nor writing waits for a thread that is gone."""
    database = Database(path)
    database.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        await asyncio.wait_for(database.write(lambda db: db.execute("SELECT 1")), PATIENCE_S)
    with pytest.raises(JournalUnavailable, match="closed"):
        await asyncio.wait_for(database.read(lambda db: db.execute("SELECT 1")), PATIENCE_S)


# --- what ends the agent --------------------------------------------------------------------------------------------


async def fill_and_overwrite(database: Database, path: Path) -> None:
    """Make a table of many pages, and write noise over the whole file but its first page."""

    def fill(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE filler (t TEXT)")
        db.executemany("INSERT INTO filler VALUES (?)", [(str(number) * 500,) for number in range(5000)])

    await database.write(fill)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("how", ["read", "write"])
async def test_a_file_that_is_damaged_while_it_is_in_use_is_told(database: Database, path: Path, how: str) -> None:
    """By whoever meets it first; from then on nothing is written to it."""
    await fill_and_overwrite(database, path)
    told = asyncio.create_task(database.broken())
    sum_up = lambda db: db.execute("SELECT sum(length(t)) FROM filler").fetchall()  # noqa: E731
    with pytest.raises(JournalUnavailable, match="malformed"):
        await (database.read(sum_up) if how == "read" else database.write(sum_up))
    with pytest.raises(JournalBroken, match=r"journal\.db: the journal cannot be used any more \(.*malformed"):
        await asyncio.wait_for(told, PATIENCE_S)
    with pytest.raises(JournalBroken):
        await database.write(insert(1))  # type: ignore[arg-type]


async def test_a_writer_that_fails_as_nobody_foresaw_leaves_nobody_waiting(database: Database) -> None:
    """Neither this write nor a later one, nor the end; whether it was written nobody knows."""

    class OutOfMemory(BaseException):
        """Not even an ``Exception``."""

    def fail(_db: sqlite3.Connection) -> None:
        raise OutOfMemory

    told = asyncio.create_task(database.broken())
    with pytest.raises(JournalInDoubt, match="OutOfMemory"):
        await asyncio.wait_for(database.write(fail), PATIENCE_S)
    with pytest.raises(JournalBroken, match="OutOfMemory"):
        await asyncio.wait_for(told, PATIENCE_S)
    with pytest.raises(JournalBroken):
        await asyncio.wait_for(database.write(insert(1)), PATIENCE_S)  # type: ignore[arg-type]


async def test_other_errors_do_not_end_the_agent(database: Database) -> None:
    """Of a write or of a query; nor does giving up waiting for the one that would."""
    told = asyncio.create_task(database.broken())
    for ask in (database.read, database.write):
        with pytest.raises((JournalUnavailable, sqlite3.Error)):
            await ask(lambda db: db.execute("SELECT * FROM nowhere"))
    await asyncio.sleep(0)
    assert not told.done()
    told.cancel()
    await asyncio.gather(told, return_exceptions=True)
    assert await database.write(insert(1)) == 1  # type: ignore[arg-type]


# --- schema ------------------------------------------------------------------------------------------------------


def schema(path: Path) -> list[tuple[object, ...]]:
    """Return the schema of a file."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    version = connection.execute("PRAGMA user_version").fetchall()
    connection.close()
    return rows + version


def migrated(path: Path, number: int) -> None:
    """Make a file as an agent that knew only the first ``number`` migrations would have."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("sha256", 1, lambda text: hashlib.sha256(text.encode()).hexdigest())
    for sql in migrations()[:number]:
        connection.executescript(sql)
    connection.execute(f"PRAGMA user_version = {number}")
    connection.close()


def test_what_waited_before_the_states_were_counted_is_counted(tmp_path: Path) -> None:
    """A journal of an agent that counted anew for every order."""
    path = tmp_path / "journal.db"
    migrated(path, 2)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO attempts (run_id, task_id, attempt, body_sha256, accepted_status, playbook_name, "
            "playbook_sha256, state, accepted_at_ms) VALUES (?, ?, 1, '', 'pending', 'a.sh', '', ?, 0)",
            [("r1", "a", "queued"), ("r2", "b", "queued"), ("r3", "c", "running")],
        )
        connection.commit()
    database = Database(path)
    counted = asyncio.run(database.read(lambda db: db.execute("SELECT state, number FROM live").fetchall()))
    database.close()
    assert {tuple(row) for row in counted} == {("queued", 2), ("preparing", 0), ("running", 1)}


def test_a_new_file_has_the_schema_of_all_migrations(tmp_path: Path) -> None:
    """One by one or at once, from any version."""
    Database(tmp_path / "new.db").close()
    for number in range(len(migrations()) + 1):
        old = tmp_path / f"{number}.db"
        migrated(old, number)
        Database(old).close()
        assert schema(old) == schema(tmp_path / "new.db")


def test_a_task_of_an_older_agent_is_found_by_its_alias(tmp_path: Path) -> None:
    """The migration gives one to every attempt that is there."""
    migrated(tmp_path / "old.db", 2)
    connection = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    columns = "run_id, task_id, attempt, body_sha256, accepted_status, playbook_name, playbook_sha256, state"
    connection.execute(
        f"INSERT INTO attempts ({columns}, accepted_at_ms) VALUES ('r', 'a/b', 1, '', 'pending', 'p', '', 'queued', 0)"  # noqa: S608
    )
    connection.close()
    journal = Journal(tmp_path / "old.db", SetClock())
    alias = f"~{hashlib.sha256(b'a/b').hexdigest()}"
    assert asyncio.run(journal.views.task_id_of(alias)) == "a/b"
    journal.close()


def test_opening_again_changes_nothing(path: Path) -> None:
    """Migrations run once."""
    Database(path).close()
    before = schema(path)
    Database(path).close()
    assert schema(path) == before


def test_a_newer_schema_is_refused_without_damage(path: Path) -> None:
    """An older agent does not touch what it does not understand."""
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StateDirectoryError, match=r"newer agent \(schema 99, this agent knows \d+\); install that"):
        Database(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """It is not overwritten."""
    path.write_bytes(b"not a database, but long enough to have a header of one" * 100)
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match=r"journal\.db: the journal is damaged \(file is not a database\)\.$"):
        Database(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused(path: Path) -> None:
    """A page full of noise is found at the start, not at the first task."""
    database = Database(path)

    def fill(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE filler (t TEXT)")
        db.executemany("INSERT INTO filler VALUES (?)", [(str(number) * 50,) for number in range(2000)])

    asyncio.run(database.write(fill))
    database.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    with pytest.raises(JournalDamaged, match=r"journal\.db: the journal is damaged \(.*\)\.$"):
        Database(path)


def test_an_index_that_does_not_have_what_its_table_has_is_damage(path: Path) -> None:
    """One bit of it: no page is malformed, and yet a row would never be found."""
    database = Database(path)

    def fill(db: sqlite3.Connection) -> int:
        db.execute("CREATE TABLE words (w TEXT)")
        db.execute("CREATE INDEX words_w ON words (w)")
        db.execute("INSERT INTO words VALUES ('queued')")
        return int(db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'words_w'").fetchone()[0])

    page = asyncio.run(database.write(fill))
    database.close()
    data = bytearray(path.read_bytes())
    data[data.index(b"queued", (page - 1) * 4096, page * 4096)] ^= 2
    path.write_bytes(data)
    with pytest.raises(JournalDamaged, match="missing from index words_w"):
        Database(path)


def test_of_the_journals_that_were_set_aside_the_newest_are_kept(path: Path) -> None:
    """With all that belongs to them; the one of now is kept whatever the clock says of it."""
    future = path.with_name("journal.db.damaged-29991231T235959Z")
    kept = [future]
    for part in ("", "-wal", "-shm"):
        path.with_name(f"journal.db.damaged-20260101T000000Z{part}").touch()
    future.write_text("later")
    for number in range(5):
        path.write_text(str(number))
        path.with_name("journal.db-wal").write_text(str(number))
        aside = set_aside(path)
        assert aside is not None
        assert aside.read_text() == str(number)
        kept.append(aside)
    found = sorted(file.name for file in path.parent.glob("*damaged*") if not file.name.endswith("-wal"))
    assert found == sorted(file.name for file in (future, *kept[-2:]))
    assert {file.name for file in path.parent.glob("*-wal")} == {f"{file.name}-wal" for file in kept[-2:]}


@pytest.mark.parametrize("closed", [True, False])
def test_a_journal_that_never_held_an_attempt_is_not_kept(path: Path, *, closed: bool) -> None:
    """Starts that fail one after another leave such, and would push out the one that matters."""
    opened = Database(path)
    if closed:
        opened.close()
    assert set_aside(path) is None
    opened.close()
    assert list(path.parent.glob("journal.db*")) == []


@pytest.mark.parametrize("closed", [True, False])
async def test_a_journal_that_held_an_attempt_is_kept(path: Path, *, closed: bool) -> None:
    """Whatever is damaged: in the file itself or in its write-ahead log alone, and if nothing of it can be opened."""
    journal = Journal(path)
    await journal.accept(order("t"), ROOM)
    if closed:
        journal.close()
    path.write_bytes(path.read_bytes()[:16] + bytes(84) + path.read_bytes()[100:])
    aside = set_aside(path)
    journal.close()
    assert aside is not None
    assert aside.exists()


def test_empty_journals_that_were_set_aside_go_before_others(path: Path) -> None:
    """An earlier agent kept those, too."""
    full = path.with_name("journal.db.damaged-20260101T000000.0Z")
    full.write_bytes(b"SQLite format 3\0" + b"0123456789abcdef" * 2)
    for day in (2, 3):
        path.with_name(f"journal.db.damaged-2026010{day}T000000.0Z").write_bytes(b"SQLite format 3\0")
    path.write_text("noise")
    assert set_aside(path) is not None
    names = sorted(file.name.removeprefix("journal.db.damaged-")[:8] for file in path.parent.glob("*.damaged-*"))
    assert names[:2] == ["20260101", "20260103"]
    assert len(names) == 3


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    """One sentence with the path."""
    with pytest.raises(StateDirectoryError, match=r"missing/journal\.db: the journal cannot be opened"):
        Database(tmp_path / "missing/journal.db")


def test_a_refused_file_is_not_kept_open(path: Path) -> None:
    """No descriptor is left behind."""
    path.write_bytes(b"x" * 5000)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StateDirectoryError):
        Database(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
