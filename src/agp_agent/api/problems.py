"""The one shape of every error: ``{"detail": "<one sentence>"}``."""

import hashlib
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agp_agent.api.visitor import VISITOR
from agp_agent.errors import Refused, Unavailable
from agp_agent.journal import JournalInDoubt, JournalUnavailable

log = structlog.get_logger(__name__)

_SENTENCES: Final = {
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
}


def handle(api: FastAPI) -> None:
    """Let ``api`` answer every error in that shape."""
    api.add_exception_handler(Refused, _refused)
    api.add_exception_handler(JournalUnavailable, _unavailable)
    api.add_exception_handler(JournalInDoubt, _in_doubt)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _wrong_parameter)
    api.add_exception_handler(Exception, _internal_error)


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101  registered for nothing else
    return _problem(error.status, error.detail, error.headers)


async def _unavailable(request: Request, _error: Exception) -> JSONResponse:
    what = "read its journal" if request.method == "GET" else "write durably"
    return _problem(503, f"The agent cannot {what} at the moment; try again later.", Unavailable.headers)


async def _in_doubt(request: Request, _error: Exception) -> Response:
    """Whatever is answered could turn out to be wrong: hang up, as an agent that died here would have."""
    request.scope[VISITOR].hang_up()
    return Response(status_code=500)  # for nobody


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for nothing else
    standard = HTTPException(error.status_code).detail
    detail = error.detail if error.detail != standard else _SENTENCES.get(error.status_code, f"{standard}.")
    return _problem(error.status_code, detail, dict(error.headers or {}))


async def _wrong_parameter(_request: Request, error: Exception) -> JSONResponse:
    """Of a query or a header; what was sent is not echoed."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for nothing else
    problem = error.errors()[0]
    place, *names = (str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _problem(400, f"There is a {place} parameter that is not known here; /openapi.json has those that are.")
    expected = str(problem["msg"]).removeprefix("Input should be ").removeprefix("String should ")
    return _problem(400, f"Invalid {place} parameter {'.'.join(names)}: expected {expected}.")


async def _internal_error(_request: Request, error: Exception) -> JSONResponse:
    reference = hashlib.sha256(repr(error).encode()).hexdigest()[:8]
    log.error("request failed", reference=reference, exc_info=error)
    return _problem(500, f"The agent failed to answer; its log tells why (reference {reference}).")
