"""Fixtures of the faults that an engine of the tests' own is made to have. Use them as a plugin: loading costs once."""

from collections.abc import Iterator

import pytest

from fault.conftest import StartWatched
from support.ledger import Ledger
from support.own_engine import OwnEngine


@pytest.fixture(scope="session")
def loaded_engine() -> Iterator[OwnEngine]:
    """An engine with the shell runner's image; between tests it runs, without live-restore."""
    with OwnEngine() as engine:
        engine.start()
        engine.load_runner_images()
        yield engine


@pytest.fixture
def own_engine(loaded_engine: OwnEngine) -> Iterator[OwnEngine]:
    """The engine for one test, which may leave it stopped, frozen or started otherwise."""
    loaded_engine.restart()
    yield loaded_engine
    loaded_engine.restart()


@pytest.fixture
def on_own_engine(own_engine: OwnEngine, start_watched: StartWatched) -> StartWatched:
    """As ``start_watched``, with agents that are told of that engine and of no other."""

    def start(settings: dict[str, object] | None = None, **more: object) -> Ledger:
        told = {"DOCKER_HOST": own_engine.docker_host} | (settings or {})
        return start_watched(told, docker_host=own_engine.docker_host, **more)

    return start
