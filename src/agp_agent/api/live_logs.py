"""A task's output as Server-Sent Events."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from agp_agent.api.answers import LogEnd, LogGap, LogOutput
from agp_agent.following import BeyondOutput, Following, Missing, Piece, Position
from agp_agent.journal import Journal

KEEP_ALIVE_S: Final = 15.0
_SEPARATORS: Final = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
"""Not the ends of lines here, but many clients' readers of lines take them for that: as JSON they are escaped."""


async def stream(following: Following, journal: Journal, task_id: str, position: Position) -> EventSourceResponse:
    """The answer to who follows. Raises 404 and 400 before anything is sent."""
    try:
        begin = await following.find(task_id, position)
    except BeyondOutput as error:
        raise HTTPException(400, str(error)) from None
    if begin is None:
        raise HTTPException(404, "There is no task with this id.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_kept_alive(_events(following, journal, task_id, begin)), headers=headers)


async def _events(following: Following, journal: Journal, task_id: str, begin: Position) -> AsyncIterator[bytes]:
    position = begin
    async for piece in following.pieces(task_id, begin):
        position = replace(begin, start=piece.end)
        yield _event(piece, position)
    if following.closed:  # whoever is behind comes back to the next agent for the rest, and for the end
        return
    found = await journal.views.task(task_id, begin.attempt)
    if found is not None and found.outcome is not None:
        yield _sse("end", LogEnd.model_validate(found, from_attributes=True), position)


def _event(piece: Piece | Missing, position: Position) -> bytes:
    if isinstance(piece, Missing):
        return _sse("gap", LogGap(omitted_bytes=piece.omitted_bytes), position)
    return _sse("output", LogOutput(text=piece.text), position)


def _sse(event: str, data: BaseModel, position: Position) -> bytes:
    text = data.model_dump_json().translate(_SEPARATORS)
    return format_sse_event(event=event, data_str=text, id=str(position))


async def _kept_alive(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, with a comment whenever there was nothing for a while: proxies close what is silent."""
    step: asyncio.Future[bytes] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({step}, timeout=KEEP_ALIVE_S)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            finished, step = step, None
            try:
                chunk = finished.result()
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        if step is not None:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
