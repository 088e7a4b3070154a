"""Ids in paths. A route is found by the path as it was sent: ``/tasks/a%2Fcancel`` is the task ``a/cancel``."""

import re
from typing import Annotated, Final
from urllib.parse import unquote_to_bytes

from fastapi import Path
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from agp_agent.journal import Journal

_ALIAS: Final = re.compile(r"~[0-9a-f]{64}")

TaskPath = Annotated[
    str,
    Path(
        description="The task's id, percent-encoded, or `~` and the SHA-256 of the id in hex.",
        examples=["deploy%2042", "~9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


class RawPaths:
    """ASGI middleware: routes by the path as it came, not by what it decodes to."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the raw path in the place of the decoded one."""
        if scope["type"] == "http" and (raw := scope.get("raw_path")) is not None:
            scope = {**scope, "path": raw.partition(b"?")[0].decode("latin-1")}
        await self._app(scope, receive, send)


def task_id_in(segment: str) -> str:
    """The id that a segment of a path spells. Raises 404 where that is no text."""
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeError:
        raise HTTPException(404, "A task id in a path must be percent-encoded UTF-8.") from None


async def named(journal: Journal, segment: str) -> str:
    """The id that a segment names, by itself or by its alias. Raises as ``task_id_in`` does."""
    alias = await journal.views.task_id_of(segment) if _ALIAS.fullmatch(segment) else None
    return alias or task_id_in(segment)
