"""The agent's own image, before any agent runs in it."""

import json
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound
from docker.models.images import Image

from agp_agent import __version__

IMAGE = f"agp/agent:{__version__}"


@pytest.fixture(scope="module")
def image(client: docker.DockerClient) -> Image:
    """The image; one that is not there is a failure, never a skip."""
    try:
        return client.images.get(IMAGE)
    except ImageNotFound:
        pytest.fail(f"The image {IMAGE} is not on this engine; run `make images` first.", pytrace=False)


def look(client: docker.DockerClient, script: str) -> str:
    """What a few lines of shell print in the image, locked down as an operator would run the agent."""
    printed = client.containers.run(
        IMAGE,
        ["-c", script],
        entrypoint="sh",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        network_disabled=True,
        stderr=True,
        remove=True,
    )
    return bytes(printed).decode()


def test_the_labels_say_what_it_is(image: Image) -> None:
    """Title, version, licence and revision can be read without starting it."""
    assert image.labels["org.opencontainers.image.title"] == "agp/agent"
    assert image.labels["org.opencontainers.image.version"] == __version__
    assert image.labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image.labels["org.opencontainers.image.revision"]


def test_the_configuration_is_that_of_a_service(image: Image) -> None:
    """A numeric user that is not root, tini in front, a health check by the agent's own command."""
    config: dict[str, Any] = image.attrs["Config"]

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/usr/bin/tini", "--", "agp-agent"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "agp-agent", "healthcheck"]
    assert "AGP_STATE_DIR=/var/lib/agp-agent" in config["Env"]
    assert not [entry for entry in config["Env"] if "TOKEN" in entry]


def test_the_state_directory_belongs_to_the_agent_alone(client: docker.DockerClient) -> None:
    """Nobody else may look into it."""
    assert look(client, "stat -c '%u %g %a' /var/lib/agp-agent").split() == ["10001", "10001", "700"]


def test_traces_that_it_cannot_send_are_told_by_the_check(client: docker.DockerClient) -> None:
    """It has no OpenTelemetry, to be small: an operator learns that before the start, and how to get it."""
    settings = "AGP_TOKEN=0123456789abcdef AGP_DASHBOARD_TOKEN=0123456789abcdef AGP_DASHBOARD_URL=http://x"
    check = f"{settings} AGP_OTLP_ENDPOINT=http://127.0.0.1:4318 agp-agent config check 2>&1; echo exit $?"
    said = look(client, check)
    assert "this agent is installed without OpenTelemetry" in said
    assert "exit 78" in said


def test_the_command_works_on_a_read_only_file_system(client: docker.DockerClient) -> None:
    """The installed command starts without writing anything."""
    assert "serve" in look(client, "agp-agent --help")


def test_it_tells_what_it_was_built_from(image: Image, client: docker.DockerClient) -> None:
    """The commit on the label and the one in the package are the same."""
    told = json.loads(look(client, "agp-agent version --json"))
    assert (told["version"], told["commit"]) == (__version__, image.labels["org.opencontainers.image.revision"])


def test_no_program_lends_rights_and_none_installs_packages(client: docker.DockerClient) -> None:
    """There is no setuid or setgid file, and pip stayed in the build."""
    script = "find / -xdev -type f -perm /6000 2>/dev/null; ls /opt/agp-agent/bin | grep ^pip; true"

    assert look(client, script) == ""
