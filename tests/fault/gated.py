"""Fixtures of agents behind gates, which are made to die at an exact step. Use them as a plugin."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fault.conftest import StartWatched
from support.dashboard_stub import DashboardStub
from support.deaths import Gates
from support.doomed import SHORT_CATALOG, Doomed
from support.http_gate import HttpGate
from support.own_engine import OwnEngine


@pytest.fixture
def gates(dashboard: DashboardStub, tmp_path: Path) -> Iterator[Gates]:
    """A gate to the machine's engine and one to the dashboard."""
    with _gates(dashboard, tmp_path, None) as both:
        yield both


@pytest.fixture
def own_gates(own_engine: OwnEngine, dashboard: DashboardStub, tmp_path: Path) -> Iterator[Gates]:
    """The same with the tests' own engine, which remembers what it did: no one else fills its memory of 256 events."""
    with _gates(dashboard, tmp_path, own_engine.docker_host) as both:
        yield both


@contextmanager
def _gates(dashboard: DashboardStub, folder: Path, docker_host: str | None) -> Iterator[Gates]:
    with HttpGate.to_engine(folder, docker_host) as engine, HttpGate.to_dashboard(dashboard.url) as to_dashboard:
        yield Gates(engine, to_dashboard)


@pytest.fixture
def doomed(own_gates: Gates, own_engine: OwnEngine, start_watched: StartWatched, tmp_path: Path) -> Doomed:
    """An agent behind both gates, with bystanders. It knows a runner for ``.short`` playbooks, too."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(SHORT_CATALOG)
    settings = {**own_gates.settings, "AGP_CATALOG": catalog, "AGP_STOP_GRACE_S": 0.5}
    return Doomed(start_watched(settings, docker_host=own_engine.docker_host), own_gates)
