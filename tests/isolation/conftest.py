"""What the isolation suite shares: the engine, boxes made by the product, and the table of what was seen."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest

from agp_agent import catalog
from agp_agent.catalog import Runner
from agp_agent.docker_engine import DockerEngine
from agp_agent.doctor.boxes import Boxes, open_boxes
from agp_agent.engine import ContainerEngine
from agp_agent.settings import Settings
from images.box import PATIENCE_S
from isolation.table import Table

ALL = set(range(1, 26))
RESULTS = Path(__file__).parents[2] / "build" / "escape-table.md"


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """Say at once what this suite cannot do without."""
    assert os.geteuid() == 0, "the isolation suite looks at the host as root does: run it as root"


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Takes what each test saw; after a run of the whole suite it stands in build/escape-table.md."""
    seen = Table()
    yield seen
    if seen.rows.keys() >= ALL:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(seen.markdown() + "\n")


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine as a test sees it."""
    connected = docker.from_env(timeout=PATIENCE_S)
    yield connected
    connected.close()


@pytest.fixture
def runner() -> Runner:
    """The runner that takes the attempts."""
    return catalog.load().runners["python"]


@pytest.fixture
async def engine() -> AsyncIterator[ContainerEngine]:
    """The engine as the product sees it."""
    adapter = DockerEngine.from_environment(os.environ)
    await adapter.open()
    yield adapter
    await adapter.aclose()


@pytest.fixture
async def boxes(engine: ContainerEngine, runner: Runner) -> AsyncIterator[Boxes]:
    """Containers as tasks get them."""
    async with open_boxes(Settings(), engine, runner.image) as opened:
        yield opened
