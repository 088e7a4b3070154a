"""The journal of an agent that does not run, read and not touched."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from agp_agent.errors import StateDirectoryError
from agp_agent.journal.views import Views

T = TypeVar("T")


class _ReadOnly:
    """What ``Views`` asks of a database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._read, operation)

    def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                return operation(connection)
        except sqlite3.Error as error:
            raise StateDirectoryError(
                f"{self._path}: cannot be read: {error}. It is damaged, or of another version of the agent: "
                "the next start of the agent checks and mends it. `agp-agent audit tail` reads the audit trail instead."
            ) from None


def views_of(path: Path, now_ms: Callable[[], int]) -> Views:
    """The views of the journal at ``path``, whose questions raise ``StateDirectoryError`` where it cannot be read.

    Raises:
        StateDirectoryError: there is none, or not for this user.
    """
    try:
        is_there = path.is_file()
    except OSError as error:
        raise StateDirectoryError(f"{path}: {error.strerror}; try it as the agent's user, or as root.") from None
    if not is_there:
        raise StateDirectoryError(f"{path}: there is no journal; no agent ever ran on this state directory.")
    return Views(_ReadOnly(path), now_ms)
