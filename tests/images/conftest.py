"""The runner images as they were built, on the real engine."""

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ImageNotFound

from agp_agent import __version__
from images.box import PATIENCE_S, Boxes

RUNNERS = {
    "shell": (".sh", ("agp-shell", "/playbook/playbook.sh")),
    "python": (".py", ("python3", "/playbook/playbook.py")),
    "ansible": (".yml", ("ansible-playbook", "/playbook/playbook.yml")),
}

EXTRA = "python-extra"
"""The example of a child image, for which all holds that holds for its parent."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine that the environment names."""
    connected = docker.from_env(timeout=PATIENCE_S)
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def extra_image(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The child image, built as its Dockerfile says, of packages that were fetched before, and without a network."""
    context = tmp_path_factory.mktemp(EXTRA) / "context"
    shutil.copytree(ROOT / "docs/examples/python-extra", context)
    shutil.copytree(ROOT / "build/tools/wheelhouse", context / "wheelhouse")  # .ci/test-tools makes it
    name = f"example/runner-{EXTRA}:{secrets.token_hex(8)}"
    arguments = {"RUNNER_IMAGE": f"agp/runner-python:{__version__}", "VERSION": __version__}
    _, said = client.images.build(
        path=str(context), tag=name, buildargs=arguments, network_mode="none", rm=True, forcerm=True, timeout=PATIENCE_S
    )
    steps = re.findall(
        r"---> ([0-9a-f]{12})\n",
        "".join(str(line["stream"]) for line in said if isinstance(line, dict) and "stream" in line),
    )
    yield name
    client.images.remove(name)
    for step in reversed(steps):  # of the stage that was thrown away; what others build on stays
        with contextlib.suppress(APIError):
            client.images.remove(step)


def image_of(request: pytest.FixtureRequest, name: str) -> str:
    """The image of one of the runners or of the child image."""
    return str(request.getfixturevalue("extra_image")) if name == EXTRA else f"agp/runner-{name}:{__version__}"


def boxes_of(client: docker.DockerClient, name: str, folder: Path, image: str | None = None) -> Boxes:
    """The boxes of one runner; an image that is not there is a failure, never a skip."""
    image = image or f"agp/runner-{name}:{__version__}"
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
