"""What the integration suites share: a real dashboard, a way to the engine, and a folder a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import clean_environment
from support.cli import Cli, command_line
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide


@pytest.fixture(scope="module")
def dashboard() -> Iterator[DashboardStub]:
    """A dashboard on loopback, which acknowledges whatever no test told it to answer otherwise."""
    with DashboardStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineSide]:
    """The engine, seen from beside the agents."""
    with EngineSide() as side:
        yield side


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the agent that a module shares."""
    return tmp_path_factory.mktemp("agent")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that names the engine and nothing of an agent; temporary files go below the test's folder."""
    (tmp_path / "tmp").mkdir()
    return clean_environment(tmp_path) | {"TMPDIR": str(tmp_path / "tmp"), "COLUMNS": "160"}


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Runs a command to its end."""
    return command_line(environment)
