"""What this machine's disk can do, as the measure for durable accepts: one durable act after the other."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

_DURATION_S: Final = 1.0
_ROW: Final = b"x" * 400
"""About what one accepted task weighs in the journal."""


def sqlite_commits_per_s(folder: Path) -> float:
    """Single durable commits a second: WAL, synchronous=FULL, one row each, as the journal is set up."""
    path = folder / "yardstick.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, data BLOB)")
        rate = _rate(lambda: db.execute("INSERT INTO rows (data) VALUES (?)", (_ROW,)))
    path.unlink()
    return rate


def fdatasyncs_per_s(folder: Path) -> float:
    """Appends with an fdatasync each, a second: the floor under every durable write to a log."""
    path = folder / "yardstick.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def append() -> None:
        os.write(fd, _ROW)
        os.fdatasync(fd)

    try:
        return _rate(append)
    finally:
        os.close(fd)
        path.unlink()


def _rate(act: Callable[[], object]) -> float:
    begin_s = now_s = time.perf_counter()
    count = 0
    while now_s - begin_s < _DURATION_S:
        act()
        count += 1
        now_s = time.perf_counter()
    return count / (now_s - begin_s)
