"""The dashboard's HTTP side: the contract's endpoint, the results for scripts, and the page.

Results come and go with the bearer token; the page opens with a secret link that leaves a cookie.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import ClassVar, Final

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from agp_agent.dev_dashboard.incoming import read_result, require_token
from agp_agent.dev_dashboard.page import PAGE_HEADERS, Page, render_locked, render_page
from agp_agent.dev_dashboard.store import ReceivedResult, ResultStore
from agp_agent.errors import InvalidBody, Refused, Unauthorized

REPORT_PATH: Final = "/api/v1/agents/report_result"
RESULTS_PATH: Final = "/api/v1/results"

_PAGE_RESULTS: Final = 50
_PAGE_OUTPUT_BYTES: Final = 64 * 1024


def create_app(store: ResultStore, token: str, page_key: str, on_result: Callable[[ReceivedResult], object]) -> FastAPI:
    """Build the application.

    Args:
        store: where results are kept; the caller closes it.
        token: what agents and scripts must bear.
        page_key: what the link to the page must carry.
        on_result: called on the event loop after each stored delivery, duplicates included; must not block or raise.

    Raises:
        ValueError: when token or key are empty, which would let everybody in.
    """
    if not token or not page_key:
        raise ValueError("The dashboard's token and page key must not be empty.")
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    routes = _Routes(store, token, page_key, on_result)
    app.add_api_route(REPORT_PATH, routes.report_result, methods=["POST"], response_model=None)
    app.add_api_route(RESULTS_PATH, routes.results, methods=["GET"], response_model=None)
    app.add_api_route("/", routes.page, methods=["GET"], response_model=None)
    app.add_api_route("/revision", routes.revision, methods=["GET"], response_model=None)
    app.add_api_route("/results/{result_id}/output", routes.output, methods=["GET"], response_model=None)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(HTTPException)(_not_routed)
    app.exception_handler(ClientDisconnect)(_gone)
    app.exception_handler(Exception)(_bug)
    return app


class NoSuchResult(Refused):
    """There is no result of this number."""

    status: ClassVar[int] = 404


class _Routes:
    """The handlers. Plain ``def`` ones wait for the disk, so FastAPI runs them in its threads."""

    def __init__(
        self, store: ResultStore, token: str, page_key: str, on_result: Callable[[ReceivedResult], object]
    ) -> None:
        self._store = store
        self._token = token.encode()
        self._page_key = page_key.encode()
        # Browsers send cookies to every port of a host: two dashboards must not take each other's name.
        self._cookie = f"agp_dashboard_{hashlib.sha256(self._page_key).hexdigest()[:8]}"
        self._on_result = on_result

    async def report_result(self, request: Request) -> Response:
        """Keep a result and acknowledge it; the same ``Idempotency-Key`` again is acknowledged and kept once."""
        require_token(request, self._token)
        result = await read_result(request)
        key = request.headers.get("idempotency-key") or None
        self._on_result(await run_in_threadpool(self._store.add, result, key))
        return JSONResponse({"message": "Result received"})

    def results(self, request: Request) -> Response:
        """Answer with all received results, newest first, or those of one task (``?task_id=``)."""
        require_token(request, self._token)
        if set(request.query_params) - {"task_id"}:
            raise InvalidBody("The only query parameter known here is task_id.")
        received = self._store.newest(task_id=request.query_params.get("task_id"))
        return JSONResponse({"results": [_as_json(one) for one in received]}, headers={"Cache-Control": "no-store"})

    def page(self, request: Request) -> Response:
        """Show the page, and leave the cookie when it was opened by the link."""
        by_link = self._is_key(request.query_params.get("key"))
        if not by_link and not self._has_cookie(request):
            headers = PAGE_HEADERS | Unauthorized.headers
            return HTMLResponse(render_locked(), status_code=Unauthorized.status, headers=headers)
        # Counted before they are read: a result that comes in between is shown now and loads the page once more.
        total, deliveries = self._store.counts()
        results = self._store.newest(limit=_PAGE_RESULTS, output_limit_bytes=_PAGE_OUTPUT_BYTES)
        response = HTMLResponse(render_page(Page(results, total, str(deliveries))), headers=PAGE_HEADERS)
        if by_link:
            key = self._page_key.decode()
            response.set_cookie(self._cookie, key, path="/", httponly=True, samesite="strict")
        return response

    def revision(self, request: Request) -> Response:
        """Tell the page's script whether something new has come."""
        self._require_cookie(request)
        return PlainTextResponse(str(self._store.counts()[1]), headers=PAGE_HEADERS)

    def output(self, request: Request, result_id: str) -> Response:
        """Show one whole output as plain text, byte for byte."""
        self._require_cookie(request)
        known = result_id.isascii() and result_id.isdecimal() and len(result_id) < len(str(2**63))
        output = self._store.output_of(int(result_id)) if known else None
        if output is None:
            raise NoSuchResult("The dashboard has no result of this number.")
        return PlainTextResponse(output, headers=PAGE_HEADERS)

    def _require_cookie(self, request: Request) -> None:
        if not self._has_cookie(request):
            raise Unauthorized("Open the link that the dashboard printed in its terminal when it started.")

    def _has_cookie(self, request: Request) -> bool:
        return self._is_key(request.cookies.get(self._cookie))

    def _is_key(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._page_key)


def _as_json(received: ReceivedResult) -> dict[str, object]:
    return {
        "id": received.id,
        "task_id": received.task_id,
        "status": received.status,
        "output": received.output,
        "error": received.error,
        "idempotency_key": received.idempotency_key,
        "received_at": received.received_at.isoformat(),
        "last_received_at": received.last_received_at.isoformat(),
        "times_received": received.times_received,
        "duplicates": received.duplicates,
    }


def _detail(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _refused(_request: Request, error: Refused) -> Response:
    return _detail(error.status, error.detail, error.headers)


def _not_routed(_request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    known = f"agents send their results with POST {REPORT_PATH}, scripts read them with GET {RESULTS_PATH}"
    return _detail(error.status_code, f"There is nothing at this address for this method; {known}.", headers)


def _gone(_request: Request, _error: Exception) -> Response:
    return _detail(400, "The connection ended before the whole body had come.")


# Starlette raises the error once more after this answer, so that the server logs it with its traceback.
def _bug(_request: Request, _error: Exception) -> Response:
    return _detail(500, "The dashboard failed on this request; its terminal tells why.")
