"""Fixtures of agents behind gates, which are made to die at an exact step. Use them as a plugin."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fault.conftest import StartWatched
from support.dashboard_stub import DashboardStub
from support.doomed import SHORT_CATALOG, Doomed
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


@pytest.fixture
def doomed_to_stop(start_watched: StartWatched, gates: Gates, tmp_path: Path) -> Doomed:
    """The same, with a runner for ``.short`` playbooks that run for a second and are stopped then."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(SHORT_CATALOG)
    return Doomed(start_watched({**gates.settings, "AGP_CATALOG": catalog, "AGP_STOP_GRACE_S": 0.5}), gates)
