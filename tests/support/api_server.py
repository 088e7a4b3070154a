"""The API alone, on a real socket in this process, for what takes an agent too long or never happens to one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI

from agp_agent import catalog
from agp_agent.api import Access, AgentServer, create_api
from agp_agent.api.document import document
from agp_agent.api.listening import listen
from agp_agent.audit import Audit, AuditEvent
from agp_agent.following import Following
from agp_agent.intake import Intake
from agp_agent.journal import Journal
from agp_agent.metrics import Metrics
from agp_agent.operating import Operating
from agp_agent.overview import Overview
from agp_agent.planner import Limits
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness
from agp_agent.tailnet import Tailnet
from agp_agent.tally import Tally
from fakes.fake_engine import FakeEngine
from support.waiting import PATIENCE_S

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
    max_queued: int = 10,
) -> AsyncIterator[Api]:
    """Make the real routes over a real journal in ``folder``."""
    readiness, audit, journal = Readiness(), Audit(folder / "audit.jsonl"), Journal(folder / "journal.db")
    engine, runners = engine or FakeEngine(), catalog.Catalogs(catalog.load())
    await engine.open()
    overview = Overview(
        journal,
        audit,
        readiness,
        engine,
        lambda: runners.current,
        LIMITS,
        Reach(),
        agent_id="unit",
        max_queued=max_queued,
    )
    intake = Intake(
        journal,
        audit,
        Tally(audit, AuditEvent.TASK_REFUSED),
        readiness,
        runners,
        max_queued=max_queued,
        rerun_after_s=0,
        playbook_limit_bytes=2**20,
    )
    access = Access(tokens, Tally(audit, AuditEvent.AUTH_FAILED), tailnet)
    following = Following(journal)
    operating = Operating(journal, audit, readiness, folder / "paused")
    more = (following, operating, readiness, overview, access, Metrics())
    app = create_api(intake, journal, *more, body_deadline_s=body_deadline_s)
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


@contextmanager
def api_in_thread(folder: Path, token: str, *, max_queued: int = 10) -> Iterator[int]:
    """Serve them in a thread of their own, for clients that block; yields the port."""
    ready: Queue[int] = Queue()
    leaving = asyncio.Event()

    async def serve() -> None:
        async with api(folder, lambda: (token.encode(),), max_queued=max_queued) as made, serving(made) as port:
            made.readiness.max_running = 4
            ready.put(port)
            await leaving.wait()

    with asyncio.Runner() as runner, ThreadPoolExecutor(1, thread_name_prefix="api") as threads:
        loop = runner.get_loop()
        served = threads.submit(runner.run, serve())
        try:
            yield ready.get(timeout=PATIENCE_S)
        finally:
            loop.call_soon_threadsafe(leaving.set)
            served.result(PATIENCE_S)


def openapi_document() -> dict[str, Any]:
    """The document as these routes serve it."""

    async def ask() -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            async with api(Path(folder), tuple) as made:
                return document(made.app)

    return asyncio.run(ask())
