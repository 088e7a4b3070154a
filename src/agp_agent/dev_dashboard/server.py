"""The dashboard's HTTP side: the contract's endpoint, the results for scripts, and the page.

Results come and go with the bearer token; the page opens with a secret link that leaves a cookie.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from agp_agent.dev_dashboard.access import Access
from agp_agent.dev_dashboard.desk import Call, Desk
from agp_agent.dev_dashboard.desk_routes import DeskRoutes
from agp_agent.dev_dashboard.incoming import bearer_of, read_result, require_token
from agp_agent.dev_dashboard.page import PAGE_HEADERS, render_locked, render_page
from agp_agent.dev_dashboard.store import ReceivedResult, ResultStore
from agp_agent.errors import InvalidBody, Refused, Unauthorized, Unavailable

REPORT_PATH: Final = "/api/v1/agents/report_result"
RESULTS_PATH: Final = "/api/v1/results"

_SHOWN_HEADERS: Final = ("authorization", "content-type", "idempotency-key", "agp-audit-head", "traceparent")
_OK: Final = 200


def create_app(
    store: ResultStore,
    token: str,
    page_key: str,
    on_result: Callable[[ReceivedResult], object],
    on_link: Callable[[str], object] = lambda _key: None,
) -> FastAPI:
    """Build the application.

    Args:
        store: where results are kept; the caller closes it.
        token: what agents that are not registered, and scripts, must bear.
        page_key: what the link to the page must carry; it works once.
        on_result: called on the event loop after each stored delivery, duplicates included; must not block or raise.
        on_link: called with the key of the next link whenever one was used; must not block or raise.

    Raises:
        ValueError: when token or key are empty, which would let everybody in.
    """
    if not token or not page_key:
        raise ValueError("The dashboard's token and page key must not be empty.")
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    access, desk = Access(page_key, on_link), Desk(store)
    routes = _Routes(store, desk, token, access, on_result)
    app.add_api_route(REPORT_PATH, routes.report_result, methods=["POST"], response_model=None)
    app.add_api_route(RESULTS_PATH, routes.results, methods=["GET"], response_model=None)
    app.add_api_route("/", routes.page, methods=["GET"], response_model=None)
    DeskRoutes(store, desk, access.check).add_to(app)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(HTTPException)(_not_routed)
    app.exception_handler(ClientDisconnect)(_gone)
    app.exception_handler(Exception)(_bug)
    return app


class _Routes:
    """The contract's side, and the page. Plain ``def`` ones wait for the disk, so FastAPI runs them in its threads."""

    def __init__(
        self,
        store: ResultStore,
        desk: Desk,
        token: str,
        access: Access,
        on_result: Callable[[ReceivedResult], object],
    ) -> None:
        self._store = store
        self._desk = desk
        self._token = token.encode()
        self._access = access
        self._on_result = on_result

    async def report_result(self, request: Request) -> Response:
        """Keep a result and acknowledge it; the same ``Idempotency-Key`` again is acknowledged and kept once."""
        try:
            agent_id = await run_in_threadpool(self._agent_of, request)
            result, body = await read_result(request)
            key = request.headers.get("idempotency-key") or None
            received = await run_in_threadpool(self._store.add, result, key, agent_id)
        except Refused as error:
            told = json.dumps({"detail": error.detail})
            call = _call(request, "", error.status, told, error.headers)
            self._desk.turn_away(replace(call, is_whole=False))
            raise
        self._on_result(received)
        answer = JSONResponse({"message": "Result received"})
        await run_in_threadpool(self._note, received, request, body, bytes(answer.body).decode())
        return answer

    def _agent_of(self, request: Request) -> int | None:
        """The registered agent whose token it bears; None: it bears the dashboard's own. Raises ``Unauthorized``."""
        token = bearer_of(request)
        if hmac.compare_digest(token, self._token):
            return None
        agent_id = self._desk.agent_of(token)
        if agent_id is None:
            raise Unauthorized(
                "The request needs the header 'Authorization: Bearer <token>' with the dashboard's token."
            )
        return agent_id

    def _note(self, received: ReceivedResult, request: Request, body: bytes, answer: str) -> None:
        """Show the delivery among the calls; that it is stored does not depend on it."""
        call = _call(request, body.decode(errors="replace"), _OK, answer, {})
        with suppress(Unavailable):
            self._desk.note(self._desk.entry_of_result(received.id), call)

    def results(self, request: Request) -> Response:
        """Answer with all received results, newest first, or those of one task (``?task_id=``)."""
        require_token(request, self._token)
        if set(request.query_params) - {"task_id"}:
            raise InvalidBody("The only query parameter known here is task_id.")
        received = self._store.newest(task_id=request.query_params.get("task_id"))
        return JSONResponse({"results": [_as_json(one) for one in received]}, headers={"Cache-Control": "no-store"})

    def page(self, request: Request) -> Response:
        """Show the page, and leave the cookie when it was opened by the link."""
        page = HTMLResponse(render_page(), headers=PAGE_HEADERS)
        if self._access.enter(request, page) or self._access.has_entered(request):
            return page
        headers = PAGE_HEADERS | Unauthorized.headers
        return HTMLResponse(render_locked(), status_code=Unauthorized.status, headers=headers)


def _call(request: Request, body: str, status: int, answer: str, answer_headers: Mapping[str, str]) -> Call:
    headers = {name: value for name, value in request.headers.items() if name in _SHOWN_HEADERS}
    return Call(request.method, str(request.url), headers, body, status, answer, answer_headers, is_ours=False)


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
