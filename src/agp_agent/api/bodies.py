"""How a request's body and headers are read: counted on the stream, and within a deadline."""

import asyncio
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from agp_agent.errors import BodyTimeout, InvalidBody, TooLarge, UnsupportedMediaType

BODY_DEADLINE_S: Final = 10.0


async def read_body(request: Request, limit_bytes: int, deadline_s: float) -> bytes:
    """The whole body, of the right kind and within its limit."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("The Content-Type must be application/json.")
    too_large = TooLarge(f"The request body is larger than {limit_bytes} bytes.")
    length = request.headers.get("content-length", "")
    if request.headers.get("expect") and length.isascii() and length.isdigit() and int(length) > limit_bytes:
        raise too_large  # the client asked before it sends
    body = await _receive(request, limit_bytes, deadline_s)
    if len(body) > limit_bytes:
        raise too_large
    return bytes(body)


async def _receive(request: Request, limit_bytes: int, deadline_s: float) -> bytearray:
    """The body as it comes in, cut off behind its limit.

    What is too much is read and thrown away: a connection that is closed over unread bytes is reset, and the client
    might never see the answer.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in request.stream():
                body += chunk[: max(0, limit_bytes + 1 - len(body))]
    except TimeoutError:
        if len(body) <= limit_bytes:
            raise BodyTimeout(f"The request body did not arrive within {deadline_s:g} s.") from None
    except ClientDisconnect:
        raise InvalidBody("The request body ended early.") from None
    return body


def traceparent(request: Request) -> str | None:
    """The trace that the caller is in; sent twice it is none, as W3C Trace Context has it."""
    found = request.headers.getlist("traceparent")
    return found[0] if len(found) == 1 else None


def idempotency_key(request: Request) -> str | None:
    """The header's value, where it comes once."""
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1:
        raise InvalidBody("The Idempotency-Key header must come once.")
    return keys[0] if keys else None
