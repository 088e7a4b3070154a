"""The runner images as they were built, on the real engine."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from agp_agent import __version__
from images.box import PATIENCE_S, Boxes

RUNNERS = {
    "shell": (".sh", ("agp-shell", "/playbook/playbook.sh")),
    "python": (".py", ("python3", "/playbook/playbook.py")),
    "ansible": (".yml", ("ansible-playbook", "/playbook/playbook.yml")),
}


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine that the environment names."""
    connected = docker.from_env(timeout=PATIENCE_S)
    yield connected
    connected.close()


def boxes_of(client: docker.DockerClient, name: str, folder: Path) -> Boxes:
    """The boxes of one runner; an image that is not there is a failure, never a skip."""
    image = f"agp/runner-{name}:{__version__}"
    try:
        client.images.get(image)
    except ImageNotFound:
        pytest.fail(f"The image {image} is not on this engine; run `make images` first.", pytrace=False)
    suffix, command = RUNNERS[name]
    return Boxes(client, image, suffix, command, executable_work=name == "ansible", folder=folder)


@pytest.fixture
def shell(client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The shell runner."""
    return boxes_of(client, "shell", tmp_path)


@pytest.fixture
def python(client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The Python runner."""
    return boxes_of(client, "python", tmp_path)


@pytest.fixture
def ansible(client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The Ansible runner."""
    return boxes_of(client, "ansible", tmp_path)


@pytest.fixture(params=list(RUNNERS))
def runner(request: pytest.FixtureRequest, client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """Each of the three runners in turn."""
    return boxes_of(client, request.param, tmp_path)
