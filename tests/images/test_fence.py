"""The helper's image: its rules come into force or it says why not, and its probes tell the truth."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from agp_agent import __version__
from images.box import TASK_UID, Box, Finished, locked_down, playbook_folder

IMAGE = f"agp/fence:{__version__}"
RULES = (
    "table inet agp_fence {",
    "chain outgoing {",
    "type filter hook output priority filter; policy drop;",
    "}",
    "}",
)


@pytest.fixture
def netns(client: docker.DockerClient) -> Iterator[Container]:
    """A container without any network, whose namespace a fence can be put into."""
    container = client.containers.run(
        IMAGE, ["60"], entrypoint=["sleep"], detach=True, network_mode="none", cap_drop=["ALL"]
    )
    yield container
    container.remove(force=True)


def fence(client: docker.DockerClient, beside: Container, *lines: str, cap_add: tuple[str, ...]) -> tuple[int, str]:
    """Run the helper as the agent does; its exit code and all that it printed."""
    helper = client.containers.run(
        IMAGE,
        list(lines),
        entrypoint=["agp-fence"],
        user="0:0",
        network_mode=f"container:{beside.id}",
        cap_drop=["ALL"],
        cap_add=list(cap_add),
        security_opt=["no-new-privileges:true"],
        read_only=True,
        detach=True,
    )
    try:
        return helper.wait(timeout=60)["StatusCode"], helper.logs().decode()
    finally:
        helper.remove(force=True)


@contextlib.contextmanager
def released(client: docker.DockerClient, folder: Path, *command: str) -> Iterator[Box]:
    """A locked-down container of the image that runs this command."""
    config = locked_down(playbook_folder(folder, "", ""), TASK_UID, executable_work=False)
    with Box(client, config | {"Image": IMAGE, "Cmd": list(command)}) as box:
        box.release()
        yield box


def probe(client: docker.DockerClient, folder: Path, *targets: str) -> Finished:
    """Run the probe to its end."""
    with released(client, folder, "agp-probe", *targets) as box:
        return box.finish()


def test_the_rules_are_in_force_and_told(client: docker.DockerClient, netns: Container) -> None:
    """What it prints is the kernel's own listing, which a second look finds too."""
    code, told = fence(client, netns, *RULES, cap_add=("NET_ADMIN",))
    assert code == 0, told
    assert "hook output priority filter; policy drop;" in told
    _, twice = fence(client, netns, "table inet agp_other { }", cap_add=("NET_ADMIN",))
    assert "hook output priority filter; policy drop;" in twice


def test_a_wrong_rule_puts_nothing_in_force(client: docker.DockerClient, netns: Container) -> None:
    """Rules come in force all or none, and the exit code tells."""
    code, told = fence(client, netns, *RULES, "nonsense", cap_add=("NET_ADMIN",))
    assert code != 0
    assert "nonsense" in told
    code, told = fence(client, netns, "table inet agp_other { }", cap_add=("NET_ADMIN",))
    assert "No such file or directory" in told, "the right half of the rules was put in force"


def test_without_the_right_to_it_it_fails(client: docker.DockerClient, netns: Container) -> None:
    """An engine that leaves NET_ADMIN away is noticed."""
    code, told = fence(client, netns, *RULES, cap_add=())
    assert code != 0
    assert "Operation not permitted" in told


def test_without_lines_it_says_how_it_is_called(client: docker.DockerClient, netns: Container) -> None:
    """No rules are no fence."""
    assert fence(client, netns, cap_add=("NET_ADMIN",)) == (2, "usage: agp-fence LINE...\n")


def test_the_probe_tells_what_answers_from_what_cannot_be_reached(client: docker.DockerClient, tmp_path: Path) -> None:
    """A refusal is an answer; an address without a route is none. The first line shows that it notices at all."""
    told = probe(client, tmp_path, "127.0.0.1", "9", "192.0.2.77", "80")
    lines = told.text.splitlines()
    assert lines[0] == "127.0.0.1 8471 answered"
    assert sorted(lines[1:]) == ["127.0.0.1 9 answered", "192.0.2.77 80 fenced"]


def test_the_neighbour_tells_its_address_once_it_listens(client: docker.DockerClient, tmp_path: Path) -> None:
    """Without a network it has no address, and says so instead of waiting for ever."""
    with released(client, tmp_path, "agp-listen", "8472") as box:
        finished = box.finish()
    assert finished.exit_code == 1
    assert "nobody can be reached at no address 8472" in finished.text


def test_the_image_has_what_runner_images_have(client: docker.DockerClient, tmp_path: Path) -> None:
    """Labels, a user that is not root, the entry, and no program that lends rights."""
    image = client.images.get(IMAGE)
    assert image.labels["org.opencontainers.image.title"] == "agp/fence"
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert image.labels["agp.runner.contract"] == "1"
    assert image.attrs["Config"]["User"] == "20000:20000"
    assert image.attrs["Config"]["Entrypoint"] == ["/usr/local/bin/agp-entry"]
    with released(client, tmp_path, "sh", "-c", "find / -xdev -type f -perm /6000 2>/dev/null; true") as box:
        assert box.finish().text == ""
