"""What is asked with every order and at every wake costs the same, however many tasks wait or have ended."""

import asyncio
import contextlib
import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from agp_agent.clock import boot_time
from agp_agent.journal import Journal
from agp_agent.journal.transactions import SQL
from support.orders import ROOM, due_now, finished, order

FEW, MANY = 5, 200
NOW: Final = {"now_ms": 2**50, "queue_timeout_s": math.inf} | boot_time()._asdict()
ASKED: Final[Mapping[str, Mapping[str, Any]]] = {
    "latest_of_task": {"task_id": "waits 1"},
    "by_idempotency_key": {"idempotency_key": "k", "since_ms": 0},
    "count_by_state": {},
    "not_to_start": NOW,
    "next_queued": {"skip": "[]", "limit": 2},
    "unfinished": {},
    "count_outbox": {},
    "due_seqs": {"skip": "[]", "limit": 2, "now_ms": 0, "too_far_ms": 2**50},
    "next_due": {"skip": "[]"},
}


async def filled(path: Path, number: int) -> None:
    """Make a journal in which so many tasks wait and so many have ended and were acknowledged."""
    journal = Journal(path)
    await asyncio.gather(*(finished(journal, f"ended {one}") for one in range(number)))
    await asyncio.gather(*(journal.acknowledge(seq) for seq in await due_now(journal)))
    await asyncio.gather(*(journal.accept(order(f"waits {one}"), ROOM) for one in range(number)))
    journal.close()


def steps(path: Path, sql: str, values: Mapping[str, Any]) -> int:
    """Return how many steps SQLite takes to answer."""
    taken: list[int] = []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM attempts").fetchone()  # the schema is read with the first one
        connection.set_progress_handler(lambda: taken.append(1), 1)
        connection.execute(sql, values).fetchall()
    return len(taken)


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A journal with few tasks and one with many."""
    folder = tmp_path_factory.mktemp("journals")
    few, many = folder / "few.db", folder / "many.db"
    asyncio.run(filled(few, FEW))
    asyncio.run(filled(many, MANY))
    return few, many


@pytest.mark.parametrize("name", ASKED)
def test_the_effort_does_not_grow_with_what_waits_or_has_ended(journals: tuple[Path, Path], name: str) -> None:
    """Counted in steps of SQLite, so that no clock is needed."""
    few, many = (steps(path, SQL[name], ASKED[name]) for path in journals)
    assert many <= few + FEW
