"""What the tests of network runners share: another machine, agents with such runners, containers without a fence."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import docker
import pytest

from isolation.network_tries import FENCE_IMAGE, OPEN, OTHER, Plain, StartAgent
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.elsewhere import METADATA, PRIVATE, PRIVATE_TOO, PUBLIC, SHARED, Elsewhere


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """Say at once what this suite cannot do without."""
    assert os.geteuid() == 0, "the isolation suite plays another machine in a network namespace: run it as root"


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """The engine as a test sees it."""
    connected = docker.from_env(timeout=120)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """Another machine that answers."""
    with Elsewhere() as made:
        for address in (PUBLIC, PRIVATE, PRIVATE_TOO, SHARED, METADATA):
            made.listen(address, OPEN)
            made.listen(address, OTHER)
        yield made


@pytest.fixture(scope="module")
def dashboard() -> Iterator[DashboardStub]:
    """Takes results."""
    with DashboardStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def start_agent(dashboard: DashboardStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartAgent]:
    """Start agents with a catalog; in the end nothing of any of them may be left, networks included."""
    with ExitStack() as agents:

        def start(catalog: str, settings: Mapping[str, object] | None = None) -> AgentProcess:
            folder = tmp_path_factory.mktemp("agent")
            (folder / "catalog.yaml").write_text(catalog)
            named = {"AGP_CATALOG": folder / "catalog.yaml", **(settings or {})}
            return agents.enter_context(AgentProcess(folder, dashboard.url, dashboard.token, named))

        yield start


@pytest.fixture(scope="module")
def plain(client: docker.DockerClient) -> Iterator[Plain]:
    """The control arm."""
    made = Plain(client)
    yield made
    made.close()


@pytest.fixture
def sham(client: docker.DockerClient) -> Iterator[Callable[[str], str]]:
    """Images like the fence's, with another program in the place of the one that makes the rules."""
    made: list[str] = []

    def build(program: str) -> str:
        name = f"agp-sham-{secrets.token_hex(6)}:1"
        container = client.containers.create(
            FENCE_IMAGE,
            ["-c", f"cat >/usr/local/bin/agp-fence <<'X'\n#!/bin/sh\n{program}\nX\n"],
            entrypoint=["sh"],
            user="0:0",
        )
        container.start()
        container.wait()
        config = 'ENTRYPOINT ["/usr/local/bin/agp-entry"]', "USER 20000:20000"
        container.commit(*name.split(":"), changes=list(config))
        container.remove(force=True)
        made.append(name)
        return name

    yield build
    for name in made:
        client.images.remove(name, force=True)
