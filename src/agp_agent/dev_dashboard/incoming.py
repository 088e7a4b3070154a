"""What is asked of a request before it is believed: the token first, then type, size and shape of the body."""

import hmac
from typing import Final

from fastapi import Request
from pydantic import ValidationError

from agp_agent.errors import InvalidBody, TooLarge, Unauthorized, UnsupportedMediaType
from agp_agent.models import TaskResult

BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024

_FIELDS: Final = "task_id, status, output and error"
_EXPECTED: Final = {
    "missing": "is required",
    "extra_forbidden": f"is not a known key; expected only {_FIELDS}",
    "string_type": "must be a string",
    "enum": "must be one of pending, running, completed and failed",
}


def bearer_of(request: Request) -> bytes:
    """The token that a request bears; empty where it bears none, or two."""
    values = request.headers.getlist("authorization")
    scheme, _, given = (values[0] if len(values) == 1 else "").partition(" ")
    return given.encode("latin-1") if scheme.lower() == "bearer" else b""


def require_token(request: Request, token: bytes) -> None:
    """Let the bearer of the token pass. Bytes are compared in constant time.

    Raises:
        Unauthorized: the same for a missing, malformed and wrong token.
    """
    if not hmac.compare_digest(bearer_of(request), token):
        raise Unauthorized("The request needs the header 'Authorization: Bearer <token>' with the dashboard's token.")


async def read_result(request: Request) -> tuple[TaskResult, bytes]:
    """Read the body as a ``TaskResult``; also as it came.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        TooLarge: it has more than ``BODY_LIMIT_BYTES`` bytes, counted as they come.
        InvalidBody: it is no TaskResult; the message names the field and echoes nothing.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("The body must be JSON, declared as 'Content-Type: application/json'.")
    body = await _read_body(request)
    try:
        return TaskResult.model_validate_json(body), body
    except ValidationError as error:
        raise InvalidBody(_describe(error)) from None


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    declared = request.headers.get("content-length", "")
    _check_size(int(declared) if declared.isdecimal() else 0)
    async for chunk in request.stream():
        _check_size(len(body) + len(chunk))
        body += chunk
    return bytes(body)


def _check_size(size_bytes: int) -> None:
    if size_bytes > BODY_LIMIT_BYTES:
        raise TooLarge(f"The body is larger than the {BODY_LIMIT_BYTES} bytes that this dashboard accepts.")


def _describe(error: ValidationError) -> str:
    """One sentence for the first problem. The names of unknown keys are the sender's data and are not echoed."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    kind = problem["type"]
    if kind == "json_invalid":
        return "The body is not valid JSON in UTF-8."
    if not problem["loc"]:
        return f"The body must be a JSON object with {_FIELDS}."
    field = "a key" if kind == "extra_forbidden" else problem["loc"][0]
    return f"Invalid body: {field} {_EXPECTED.get(kind, 'is not as the contract expects')}."
