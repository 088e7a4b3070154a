"""Fixtures of agents behind gates, which are made to die at an exact step. Use them as a plugin."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fault.conftest import StartWatched
from support.dashboard_stub import DashboardStub
from support.doomed import Doomed
from support.http_gate import HttpGate
from support.strikes import Gates


@pytest.fixture
def gates(dashboard: DashboardStub, tmp_path: Path) -> Iterator[Gates]:
    """A gate to the engine and one to the dashboard."""
    with ExitStack() as opened:
        engine = opened.enter_context(HttpGate.to_engine(tmp_path))
        yield Gates(engine, opened.enter_context(HttpGate.to_dashboard(dashboard.url)))


@pytest.fixture
def doomed(start_watched: StartWatched, gates: Gates) -> Doomed:
    """An agent behind both gates, with bystanders."""
    return Doomed(start_watched(gates.settings), gates)
