"""Fixtures of agents behind gates, which are made to die at an exact step. Use them as a plugin: loading costs once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fault.conftest import StartWatched
from support.dashboard_stub import DashboardStub
from support.deaths import Gates
from support.doomed import SHORT_CATALOG, Doomed
from support.http_gate import HttpGate


@pytest.fixture
def gates(dashboard: DashboardStub, tmp_path: Path) -> Iterator[Gates]:
    """A gate to the engine and one to the dashboard."""
    with HttpGate.to_engine(tmp_path) as engine, HttpGate.to_dashboard(dashboard.url) as to_dashboard:
        yield Gates(engine, to_dashboard)


@pytest.fixture
def doomed(gates: Gates, start_watched: StartWatched, tmp_path: Path) -> Doomed:
    """An agent behind both gates, with bystanders. It knows a runner for ``.short`` playbooks, too."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(SHORT_CATALOG)
    settings = {**gates.settings, "AGP_CATALOG": catalog, "AGP_STOP_GRACE_S": 0.5, "AGP_WARM": 0}
    return Doomed(start_watched(settings), gates)


@pytest.fixture
def doomed_warm(gates: Gates, start_watched: StartWatched) -> Doomed:
    """The same, where a container waits for each task."""
    settings = {**gates.settings, "AGP_STOP_GRACE_S": 0.5, "AGP_WARM": 1, "AGP_WARM_BEFORE_READY": "true"}
    return Doomed(start_watched(settings), gates)
