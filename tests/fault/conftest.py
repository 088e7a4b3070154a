"""What the fault suite shares: a dashboard a test, and agents that are watched from their first moment on."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.ledger import Ledger

StartWatched = Callable[..., Ledger]
"""``start_watched(settings, wrapper=…, docker_host=…)``: a ready agent, and the ledger of what it is sent."""


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """Say at once what this suite cannot do without."""
    assert os.geteuid() == 0, "the fault suite mounts file systems and starts an engine of its own: run it as root"


@pytest.fixture
def dashboard() -> Iterator[DashboardStub]:
    """A dashboard on loopback, which acknowledges whatever no test told it to answer otherwise."""
    with DashboardStub() as stub:
        yield stub


@pytest.fixture
def start_watched(dashboard: DashboardStub, tmp_path: Path) -> Iterator[StartWatched]:
    """Start agents, each with a ledger; after a test that passed, nothing of any of them may be left."""
    with ExitStack() as ledgers:
        agents: list[AgentProcess] = []

        def start(settings: dict[str, object] | None = None, **more: object) -> Ledger:
            folder = tmp_path / f"agent-{len(agents)}"
            agent = AgentProcess(folder, dashboard.url, dashboard.token, settings, **more)  # type: ignore[arg-type]
            agents.append(agent)
            agent.start()
            return ledgers.enter_context(Ledger(agent, dashboard, agent.docker_host))

        try:
            yield start
        except BaseException:
            for agent in agents:
                agent.close()
            raise
        ends = [agent.close() for agent in agents]
    assert ends == [(0, [])] * len(ends)
