"""The routes, and the one shape of every error: ``{"detail": "<one sentence>"}``."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from agp_agent import __version__
from agp_agent.api.guard import Guard, peer_of
from agp_agent.errors import BodyTimeout, InvalidBody, Refused, TooLarge, Unavailable, UnsupportedMediaType
from agp_agent.intake import Intake
from agp_agent.journal import Journal, JournalInDoubt, JournalUnavailable
from agp_agent.models import Task, TaskStatus
from agp_agent.readiness import Readiness
from agp_agent.tally import Tally

log = structlog.get_logger(__name__)

BODY_DEADLINE_S: Final = 10.0
HANG_UP: Final = "agp.hang_up"
"""An extension of the server's: ``scope["extensions"][HANG_UP]["now"]()`` closes the connection without a word."""

_MESSAGES: Final = {
    TaskStatus.RUNNING: "Task execution started",
    TaskStatus.PENDING: "Task accepted; it waits for a free place",
}
_SENTENCES: Final = {
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
}


class Heartbeat(BaseModel):
    """The answer to a heartbeat."""

    status: str


class TaskAccepted(BaseModel):
    """The 202: the task is on disk and will be reported."""

    message: str
    task_id: str
    status: TaskStatus


class Problem(BaseModel):
    """Every error: one descriptive sentence."""

    detail: str


def create_api(
    intake: Intake,
    journal: Journal,
    readiness: Readiness,
    failures: Tally,
    tokens: Callable[[], tuple[bytes, ...]],
    *,
    body_deadline_s: float = BODY_DEADLINE_S,
) -> FastAPI:
    """Build the ASGI application. ``tokens`` returns the tokens that are right now."""
    api = FastAPI(
        title="AGP Enterprise Agent", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    api.add_middleware(Guard, tokens=tokens, failures=failures)
    api.add_exception_handler(Refused, _refused)
    api.add_exception_handler(JournalUnavailable, _unwritable)
    api.add_exception_handler(JournalInDoubt, _in_doubt)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(Exception, _internal_error)

    @api.post("/heartbeat", responses=_problems(401))
    async def heartbeat() -> Heartbeat:
        """Say that the agent is alive and the token right."""
        return Heartbeat(status="ok")

    @api.post(
        "/execute_task",
        status_code=202,
        responses=_problems(400, 401, 408, 409, 413, 415, 503),
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _TASK_SCHEMA}}}},
    )
    async def execute_task(request: Request) -> TaskAccepted:
        """Take a task on: when this answers 202, its result will be reported whatever happens."""
        body = await _read_body(request, intake.body_limit_bytes, body_deadline_s)
        task, accepted = await intake.accept(body, _idempotency_key(request), peer_of(request.scope))
        return TaskAccepted(message=_MESSAGES[accepted.status], task_id=task.task_id, status=accepted.status)

    @api.post(
        "/tasks/{path:path}",  # noqa: FAST003  the raw path is read: see _task_id_of
        status_code=202,
        responses=_problems(401, 404),
        name="cancel",
    )
    async def cancel(request: Request) -> dict[str, str]:
        """Stop a task: POST /tasks/{id}/cancel, the id percent-encoded."""
        task_id = _task_id_of(request, "/cancel")
        if not await journal.request_cancel(task_id):
            raise HTTPException(404, "There is no task with this id that is waiting or running.")
        return {"message": "Task is being cancelled"}

    @api.get("/healthz", include_in_schema=False)
    async def healthz() -> Heartbeat:
        return Heartbeat(status="ok")

    @api.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        ready = readiness.ready
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    return api


_TASK_SCHEMA: Final = Task.model_json_schema()


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


async def _read_body(request: Request, limit_bytes: int, deadline_s: float) -> bytes:
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


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1:
        raise InvalidBody("The Idempotency-Key header must come once.")
    return keys[0] if keys else None


def _task_id_of(request: Request, suffix: str) -> str:
    """The id out of the raw path, so that ``a%2Fcancel`` is an id and not a route."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    part = raw.partition(b"?")[0].removeprefix(b"/tasks/")
    if not part.endswith(suffix.encode()):
        raise HTTPException(404)
    try:
        return unquote_to_bytes(part.removesuffix(suffix.encode())).decode()
    except UnicodeDecodeError:
        raise HTTPException(404, "A task id in a path must be percent-encoded UTF-8.") from None


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101  registered for nothing else
    return _problem(error.status, error.detail, error.headers)


async def _unwritable(_request: Request, _error: Exception) -> JSONResponse:
    return _problem(503, "The agent cannot write durably at the moment; try again later.", Unavailable.headers)


async def _in_doubt(request: Request, _error: Exception) -> Response:
    """Whatever is answered could turn out to be wrong: hang up, as an agent that died here would have."""
    request.scope["extensions"][HANG_UP]["now"]()
    return Response(status_code=500)  # for nobody


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for nothing else
    standard = HTTPException(error.status_code).detail
    detail = error.detail if error.detail != standard else _SENTENCES.get(error.status_code, f"{standard}.")
    return _problem(error.status_code, detail, dict(error.headers or {}))


async def _internal_error(_request: Request, error: Exception) -> JSONResponse:
    reference = hashlib.sha256(repr(error).encode()).hexdigest()[:8]
    log.error("request failed", reference=reference, exc_info=error)
    return _problem(500, f"The agent failed to answer; its log tells why (reference {reference}).")
