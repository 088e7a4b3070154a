"""A journal with very many finished tasks: one real finished task, copied by SQL, for a day of tasks takes a day."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_OWN: Final = {
    "attempts": {"seq": "last.seq + n", "run_id": "'run-' || (last.seq + n)", "task_id": "'copy-' || (last.seq + n)"},
    "outbox": {"seq": "last.seq + n"},
}
"""What differs from copy to copy; all else is as in the row of the highest number."""
_COPY: Final = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :number)
INSERT INTO {table} ({names}) SELECT {values} FROM numbers, (SELECT * FROM {table} ORDER BY seq DESC LIMIT 1) AS last
"""


def add_finished(path: Path, number: int) -> None:
    """Copy the newest task of a journal so often, with its result; no agent may have the journal open.

    Raises:
        ValueError: the newest task is not acknowledged: its copies would all be delivered.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        newest = "SELECT state FROM outbox ORDER BY seq DESC LIMIT 1"
        if (db.execute(newest).fetchone() or ("none",))[0] != "acknowledged":
            raise ValueError(f"{path}: the newest task has no acknowledged result")
        db.execute("BEGIN IMMEDIATE")
        for table, own in _OWN.items():
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            values = [own.get(column, f"last.{column}") for column in columns]
            sql = _COPY.format(table=table, names=", ".join(columns), values=", ".join(values))
            db.execute(sql, {"number": number})
        db.execute("COMMIT")
