"""A look into the journal's file before anything works on it: does it still know what others remember of it?"""

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agp_agent.errors import JournalDamaged
from agp_agent.journal.transactions import SQL
from agp_agent.lifecycle import State


@dataclass(frozen=True, slots=True)
class Standing:
    """How an attempt stands that the dashboard has not acknowledged. ``prepared``: it was given a container before."""

    state: State
    prepared: bool
    slot: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What the journal knows: the open attempts, and which of the others that were asked for it has."""

    unacknowledged: dict[str, Standing]
    acknowledged: set[str]


def survey(path: Path, run_ids: Iterable[str]) -> Survey:
    """Look at a journal that was opened once, and so is of this agent's schema.

    Raises:
        JournalDamaged: it cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            rows = db.execute(SQL["unacknowledged"]).fetchall()
            found = [run_id for run_id in run_ids if db.execute(SQL["is_acknowledged"], {"run_id": run_id}).fetchone()]
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(f"{path}: the journal is damaged ({error}).") from error
    standing = {run_id: Standing(State(state), bool(prepared), slot) for run_id, state, prepared, slot in rows}
    return Survey(standing, set(found))
