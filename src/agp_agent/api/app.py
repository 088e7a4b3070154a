"""The routes. No logic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from agp_agent import __version__
from agp_agent.api import problems
from agp_agent.api.answers import Heartbeat, TaskAccepted
from agp_agent.api.bodies import BODY_DEADLINE_S, idempotency_key, read_body, traceparent
from agp_agent.api.docs_page import PAGE_HEADERS, render
from agp_agent.api.document import METRICS, OPEN, TASK_BODY, document
from agp_agent.api.document import problems as answers
from agp_agent.api.guard import DOCS_PATH, Guard
from agp_agent.api.operations import add_operations
from agp_agent.api.paths import RawPaths
from agp_agent.api.tasks import add_tasks
from agp_agent.api.visitor import CALLER
from agp_agent.following import Following
from agp_agent.intake import Intake
from agp_agent.journal import Journal
from agp_agent.metrics import CONTENT_TYPE, Metrics
from agp_agent.models import TaskStatus
from agp_agent.operating import Operating
from agp_agent.overview import Overview, Status
from agp_agent.readiness import Readiness
from agp_agent.tailnet import Tailnet
from agp_agent.tally import Tally

_MESSAGES: Final = {
    TaskStatus.RUNNING: "Task execution started",
    TaskStatus.PENDING: "Task accepted; it waits for a free place",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in. ``tokens`` returns those that are right now; without ``tailnet`` they are enough."""

    tokens: Callable[[], tuple[bytes, ...]]
    failures: Tally
    tailnet: Tailnet | None = None


def create_api(
    intake: Intake,
    journal: Journal,
    following: Following,
    operating: Operating,
    readiness: Readiness,
    overview: Overview,
    access: Access,
    metrics: Metrics,
    *,
    body_deadline_s: float = BODY_DEADLINE_S,
) -> FastAPI:
    """Build the ASGI application."""
    api = FastAPI(
        title="AGP Enterprise Agent",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.add_middleware(Guard, tokens=access.tokens, failures=access.failures, tailnet=access.tailnet)
    api.add_middleware(RawPaths)
    problems.handle(api)
    _add_contract(api, intake, body_deadline_s)
    add_tasks(api, intake, journal, following)
    add_operations(api, journal, operating)
    _add_metrics(api, overview, metrics)
    _add_looks(api, readiness, overview)
    return api


def _add_contract(api: FastAPI, intake: Intake, body_deadline_s: float) -> None:
    """What the dashboard calls."""

    @api.post("/heartbeat", responses=answers(401))
    async def heartbeat() -> Heartbeat:
        """Say that the agent is alive and the token right."""
        return Heartbeat(status="ok")

    @api.post("/execute_task", status_code=202, responses=answers(401, 409, 413, 415, 503), openapi_extra=TASK_BODY)
    async def execute_task(request: Request) -> TaskAccepted:
        """Take a task on: when this answers 202, its result will be reported whatever happens."""
        body = await read_body(request, intake.body_limit_bytes, body_deadline_s)
        caller, trace = request.scope[CALLER], traceparent(request)
        task, accepted = await intake.accept(body, idempotency_key(request), caller, trace)
        return TaskAccepted(message=_MESSAGES[accepted.status], task_id=task.task_id, status=accepted.status)


def _add_metrics(api: FastAPI, overview: Overview, metrics: Metrics) -> None:
    """What Prometheus asks."""

    @api.get("/metrics", response_class=Response, responses=answers(401, 503) | METRICS)
    async def measured() -> Response:
        """Tasks, outbox, places, problems, audit events, and how long each stage takes, in Prometheus' text format."""
        return Response(metrics.text(await overview.figures()), media_type=CONTENT_TYPE)


def _add_looks(api: FastAPI, readiness: Readiness, overview: Overview) -> None:
    """How the agent is, and what it can be asked."""

    @api.get("/status", responses=answers(401, 503))
    async def status() -> Status:
        """How the agent is: engine, runners, lockdown, places, queue, outbox, audit head."""
        return await overview.status()

    @api.get("/openapi.json", responses=answers(401))
    async def openapi() -> dict[str, Any]:
        """Return this document."""
        return described

    @api.get(DOCS_PATH, include_in_schema=False)
    async def docs() -> HTMLResponse:
        """Return it as a page to read; a browser may send the token as the password of any user."""
        return HTMLResponse(render(described), headers=PAGE_HEADERS)

    @api.get("/healthz", responses=answers(), openapi_extra=OPEN)
    async def healthz() -> Heartbeat:
        """Say that the process is alive."""
        return Heartbeat(status="ok")

    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": Heartbeat, "description": "Not ready."}}

    @api.get("/readyz", response_model=Heartbeat, responses=answers() | not_ready, openapi_extra=OPEN)
    async def readyz() -> JSONResponse:
        """Say whether a task that is accepted now would be started."""
        ready = readiness.ready
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    described = document(api)
