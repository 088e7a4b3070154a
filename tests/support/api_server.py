"""The API alone, on a real socket in this process, for what takes an agent too long or never happens to one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from agp_agent import catalog
from agp_agent.api import Access, AgentServer, AuthFailures, create_api
from agp_agent.api.server import listen
from agp_agent.audit import Audit
from agp_agent.intake import Intake
from agp_agent.journal import Journal
from agp_agent.overview import Overview
from agp_agent.planner import Limits
from agp_agent.readiness import Readiness
from agp_agent.tailnet import Tailnet
from fakes.fake_engine import FakeEngine

LIMITS = Limits(task_timeout_s=60, stop_grace_s=1, output_limit_bytes=4096)


@dataclass(frozen=True, slots=True)
class Api:
    """The routes with what is behind them; no loop runs, so nothing that is accepted starts."""

    app: FastAPI
    journal: Journal
    readiness: Readiness
    audit: Audit


@asynccontextmanager
async def api(
    folder: Path,
    tokens: Callable[[], tuple[bytes, ...]],
    *,
    body_deadline_s: float = 10.0,
    tailnet: Tailnet | None = None,
    engine: FakeEngine | None = None,
) -> AsyncIterator[Api]:
    """Make the real routes over a real journal in ``folder``."""
    readiness, audit, journal = Readiness(), Audit(folder / "audit.jsonl"), Journal(folder / "journal.db")
    engine, runners = engine or FakeEngine(), catalog.load()
    await engine.open()
    overview = Overview(journal, audit, readiness, engine, lambda: runners, LIMITS, agent_id="unit", max_queued=10)
    intake = Intake(journal, audit, readiness, runners, max_queued=10, rerun_after_s=0, playbook_limit_bytes=2**20)
    access = Access(tokens, AuthFailures(audit), tailnet)
    app = create_api(intake, journal, readiness, overview, access, body_deadline_s=body_deadline_s)
    try:
        yield Api(app, journal, readiness, audit)
    finally:
        await overview.aclose()
        await engine.aclose()
        await audit.aclose()
        journal.close()


@asynccontextmanager
async def api_server(
    folder: Path,
    tokens: Callable[[], tuple[bytes, ...]],
    *,
    body_deadline_s: float = 10.0,
    tailnet: Tailnet | None = None,
) -> AsyncIterator[int]:
    """Serve them on loopback; yields the port."""
    async with api(folder, tokens, body_deadline_s=body_deadline_s, tailnet=tailnet) as made, serving(made) as port:
        yield port


@asynccontextmanager
async def serving(made: Api) -> AsyncIterator[int]:
    """Serve these; yields the port."""
    server, listener = AgentServer(made.app, lambda: None), listen("127.0.0.1", 0, None)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
