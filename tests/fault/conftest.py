"""What the fault suite shares: an engine of its own, a dashboard a test, and agents that are watched from the first.

There is one engine for each process that runs tests (``pytest -n``): it may be stopped, frozen and killed, and nobody
else fills its memory of 256 events, on which an agent that comes back depends.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.ledger import Ledger
from support.own_engine import OwnEngine

StartWatched = Callable[..., Ledger]
"""``start_watched(settings, wrapper=…)``: a ready agent, and the ledger of what it is sent."""


@pytest.fixture(scope="session")
def loaded_engine() -> Iterator[OwnEngine]:
    """An engine with the shell runner's image; between tests it runs, without live-restore."""
    assert os.geteuid() == 0, "the fault suite mounts file systems and starts an engine of its own: run it as root"
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with _shared_folder(f"agp-images-{run}") as images, OwnEngine() as engine:
        engine.take_images_of(images)
        yield engine.start()


@contextmanager
def _shared_folder(name: str) -> Iterator[Path]:
    """A folder of all processes of this run; the last one that leaves it removes it."""
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield folder
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def own_engine(loaded_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    """The engine that agents and tests are told of. A test may leave it stopped, frozen or started otherwise."""
    loaded_engine.restart()
    monkeypatch.setenv("DOCKER_HOST", loaded_engine.docker_host)
    yield loaded_engine
    loaded_engine.restart()


@pytest.fixture
def machines_engine(own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's engine instead: it has the images of all runners, and whoever fills its memory does no harm."""
    monkeypatch.delenv("DOCKER_HOST")
    if address := own_engine.machine.get("DOCKER_HOST"):
        monkeypatch.setenv("DOCKER_HOST", address)


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
            return ledgers.enter_context(Ledger(agent, dashboard))

        try:
            yield start
        except BaseException:
            for agent in agents:
                agent.close()
            raise
        ends = [agent.close() for agent in agents]
    assert ends == [(0, [])] * len(ends)
