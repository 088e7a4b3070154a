"""Received results in SQLite."""

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agp_agent.dev_dashboard.store import KeyReused, ResultStore
from agp_agent.errors import ConfigurationError, Unavailable
from agp_agent.models import TaskResult, TaskStatus


def done(task_id: str, output: str = "ok\n") -> TaskResult:
    """Make a result of a playbook that succeeded."""
    return TaskResult(task_id=task_id, status=TaskStatus.COMPLETED, output=output)


def test_a_result_comes_back_as_it_was(store: ResultStore, result: TaskResult) -> None:
    """Every field survives, NULs and all."""
    store.add(result, "key")
    (received,) = store.newest()
    assert (received.task_id, received.status, received.output, received.error) == tuple(result.model_dump().values())
    assert (received.id, received.times_received, received.duplicates, received.omitted_bytes) == (1, 1, 0, 0)
    assert store.output_of(1) == result.output


def test_the_same_key_again_is_kept_once_and_counted(store: ResultStore) -> None:
    """A delivery that is repeated changes only the count and the last time."""
    first = store.add(done("a"), "key")
    again = store.add(done("a"), "key")
    assert (again.id, again.times_received, again.duplicates) == (first.id, 2, 1)
    assert again.received_at == first.received_at < again.last_received_at
    assert store.newest() == [again]
    assert store.counts() == (1, 2)


def test_the_same_key_with_another_result_is_refused(store: ResultStore) -> None:
    """Neither of two different results is lost in silence."""
    store.add(done("a"), "key")
    with pytest.raises(KeyReused, match="another result"):
        store.add(done("a", "something else"), "key")
    assert [received.output for received in store.newest()] == ["ok\n"]
    assert store.add(done("b")).id == 2


def test_without_a_key_every_delivery_is_a_result(store: ResultStore) -> None:
    """Equal results without a key may be two runs."""
    store.add(done("a"))
    store.add(done("a"))
    assert store.counts() == (2, 2)


def test_results_are_newest_first_and_can_be_limited(store: ResultStore) -> None:
    """The list starts with the last arrival, and takes a task or a number."""
    for task_id in ("a", "b", "a\x00z", "a"):
        store.add(done(task_id))
    assert [received.id for received in store.newest()] == [4, 3, 2, 1]
    assert [received.id for received in store.newest(limit=2)] == [4, 3]
    assert [received.id for received in store.newest(task_id="a")] == [4, 1]
    assert store.newest(task_id="none") == []
    assert store.output_of(99) is None


def test_a_long_output_is_shortened_on_request(store: ResultStore) -> None:
    """Head and tail stay, cut characters go, and the line between says how much is missing."""
    store.add(done("a", "é" * 10))
    (received,) = store.newest(output_limit_bytes=10)
    assert received.output == "éé\n[dashboard: 10 bytes not shown here]\néé"
    assert received.omitted_bytes == 10
    assert store.newest(output_limit_bytes=20)[0].output == "é" * 10


def test_results_outlive_the_store(tmp_path: Path) -> None:
    """A second store on the same file has the results, and still knows the keys."""
    path = tmp_path / "results.db"
    with ResultStore(path) as store:
        first = store.add(done("a"), "key")
    with ResultStore(path) as store:
        assert store.newest() == [first]
        assert store.add(done("a"), "key").duplicates == 1


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Outputs can hold what others must not read."""
    with ResultStore(tmp_path / "results.db") as store:
        store.add(done("a"))
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The journal of an agent, say, is never written to."""
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE task (id INTEGER)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"journal\.db.*another program"):
        ResultStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"x"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """The error names the file and what to do."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"notes\.txt.*give another file"):
        ResultStore(path)
    assert path.read_bytes() == content


def test_another_schema_is_refused(tmp_path: Path) -> None:
    """A file of another version is not guessed at."""
    path = tmp_path / "results.db"
    ResultStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(ConfigurationError, match="schema 7"):
        ResultStore(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The operator's typing error is told in one sentence."""
    with pytest.raises(ConfigurationError, match="No such file"):
        ResultStore(tmp_path / "missing" / "results.db")


def test_a_file_that_cannot_be_written_is_unavailable_for_now(tmp_path: Path) -> None:
    """The agent is told to come again, and nothing half-written stays."""
    path = tmp_path / "results.db"
    with ResultStore(path) as store:
        store.add(done("a"))
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE result")
        other.close()
        with pytest.raises(Unavailable, match="send it again"):
            store.add(done("b"))


def test_many_threads_may_add_at_once(store: ResultStore) -> None:
    """Deliveries of one key from many threads are one result, each counted."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: store.add(done("a"), "key"), range(100)))
    assert store.counts() == (1, 100)
