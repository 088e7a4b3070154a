"""The journal of an agent that does not run, read and not touched."""

import asyncio
import sqlite3
from collections.abc import Callable
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
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            return operation(connection)
        finally:
            connection.close()


def views_of(path: Path, now_ms: Callable[[], int]) -> Views:
    """The views of the journal at ``path``. Raises ``StateDirectoryError`` where there is none."""
    if not path.is_file():
        raise StateDirectoryError(f"{path}: there is no journal; no agent ever ran on this state directory.")
    return Views(_ReadOnly(path), now_ms)
