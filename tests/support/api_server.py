"""The API alone, on a real socket in this process, for what takes an agent too long or never happens to one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agp_agent import catalog
from agp_agent.api import AgentServer, create_api
from agp_agent.api.server import listen
from agp_agent.audit import Audit, AuditEvent
from agp_agent.intake import Intake
from agp_agent.journal import Journal
from agp_agent.readiness import Readiness
from agp_agent.tally import Tally


@asynccontextmanager
async def api_server(
    folder: Path, tokens: Callable[[], tuple[bytes, ...]], *, body_deadline_s: float
) -> AsyncIterator[int]:
    """Serve the real routes over a real journal in ``folder``, without engine and loops; yields the port."""
    readiness, audit, journal = Readiness(), Audit(folder / "audit.jsonl"), Journal(folder / "journal.db")
    intake = Intake(
        journal,
        audit,
        Tally(audit, AuditEvent.TASK_REFUSED),
        readiness,
        catalog.load(),
        max_queued=10,
        rerun_after_s=0,
        playbook_limit_bytes=2**20,
    )
    api = create_api(
        intake, journal, readiness, Tally(audit, AuditEvent.AUTH_FAILED), tokens, body_deadline_s=body_deadline_s
    )
    server, listener = AgentServer(api, lambda: None), listen("127.0.0.1", 0, None)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        await audit.aclose()
        journal.close()
