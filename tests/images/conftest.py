"""The runner images as they were built, on the real engine."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from agp_agent import __version__
from images.box import PATIENCE_S, Boxes
from support.child_image import child_image

RUNNERS = {
    "shell": (".sh", ("agp-shell", "/playbook/playbook.sh")),
    "python": (".py", ("python3", "/playbook/playbook.py")),
    "ansible": (".yml", ("ansible-playbook", "/playbook/playbook.yml")),
}

TAG = os.environ.get("AGP_TEST_IMAGE_TAG", __version__)
"""The tag of the runner images under test: the version, where the variable names no other."""

EXTRA = "python-extra"
"""The example of a child image, for which all holds that holds for its parent."""


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine that the environment names."""
    connected = docker.from_env(timeout=PATIENCE_S)
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def extra_image(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The child image."""
    with child_image(client, tmp_path_factory.mktemp(EXTRA) / "context") as name:
        yield name


@contextlib.contextmanager
def child_of(client: docker.DockerClient, parent: str, *commands: str) -> Iterator[str]:
    """A child image of ``parent`` in which root ran these commands; it is removed at the end of the ``with``."""
    steps = "".join(f"RUN {command}\n" for command in commands)
    name = f"example/child:{secrets.token_hex(8)}"
    # The label comes first: two builds at a time share no layer that one of them may remove.
    dockerfile = f"FROM {parent}\nLABEL name={name}\nUSER 0:0\n{steps}USER 20000:20000\n"
    client.images.build(
        fileobj=io.BytesIO(dockerfile.encode()),
        tag=name,
        network_mode="none",
        rm=True,
        forcerm=True,
        timeout=PATIENCE_S,
    )
    try:
        yield name
    finally:
        client.images.remove(name)


def image_of(request: pytest.FixtureRequest, name: str) -> str:
    """The image of one of the runners or of the child image."""
    return str(request.getfixturevalue("extra_image")) if name == EXTRA else f"agp/runner-{name}:{TAG}"


def boxes_of(client: docker.DockerClient, name: str, folder: Path, image: str | None = None) -> Boxes:
    """The boxes of one runner; an image that is not there is a failure, never a skip."""
    image = image or f"agp/runner-{name}:{TAG}"
    try:
        client.images.get(image)
    except ImageNotFound:
        pytest.fail(f"The image {image} is not on this engine; run `make images` first.", pytrace=False)
    suffix, command = RUNNERS["python" if name == EXTRA else name]
    return Boxes(client, image, suffix, command, executable_work=name == "ansible", folder=folder)


@pytest.fixture
def shell(client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The shell runner."""
    return boxes_of(client, "shell", tmp_path)


@pytest.fixture(params=["python", EXTRA])
def python(request: pytest.FixtureRequest, client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The Python runner, and its child."""
    return boxes_of(client, request.param, tmp_path, image_of(request, request.param))


@pytest.fixture
def python_alone(client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The Python runner without its child."""
    return boxes_of(client, "python", tmp_path)


@pytest.fixture
def ansible(client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The Ansible runner."""
    return boxes_of(client, "ansible", tmp_path)


@pytest.fixture
def python_extra(request: pytest.FixtureRequest, client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """The child of the Python runner alone."""
    return boxes_of(client, EXTRA, tmp_path, image_of(request, EXTRA))


@pytest.fixture(params=[*RUNNERS, EXTRA])
def runner(request: pytest.FixtureRequest, client: docker.DockerClient, tmp_path: Path) -> Boxes:
    """Each of the three runners in turn, and the child of one."""
    return boxes_of(client, request.param, tmp_path, image_of(request, request.param))
