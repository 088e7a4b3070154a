"""The CIS Docker Benchmark's section on running containers: whatever it finds, SECURITY.md explains."""

import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import docker
import pytest

from agp_agent import __version__
from isolation.cis import FINDINGS, findings
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.playbooks import WAITING
from support.waiting import eventually

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()
SECURITY: Final = (ROOT / "SECURITY.md").read_text()
AGENT_UID: Final = 10001


def explained(whose: str) -> set[str]:
    """The items that SECURITY.md explains for a task's container or the agent's."""
    table = SECURITY.partition("<!-- cis -->")[2].partition("<!-- end of cis -->")[0]
    rows = re.findall(r"^\| (5\.\d+) \| ([a-z, ]+) \|", table, re.MULTILINE)
    return {number for number, containers in rows if whose in containers}


@pytest.fixture
def dashboard() -> Iterator[DashboardStub]:
    """A dashboard on loopback."""
    with DashboardStub() as stub:
        yield stub


def test_a_running_task_has_no_finding_that_is_not_explained(
    dashboard: DashboardStub, client: docker.DockerClient, tmp_path: Path
) -> None:
    """Of the container of a real task; nor does sshd run in it."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent:
        agent.accept_task("examined", WAITING)
        container = agent.container_of("examined")
        found = findings(agent.engine.inspect(container))
        commands = str(client.containers.get(container).top()["Processes"])
        agent.engine.let_go(container)
        dashboard.result("examined")
    assert found.keys() <= explained("task"), found
    assert "sshd" not in commands


@contextlib.contextmanager
def agent_as_the_readme_says(client: docker.DockerClient, folder: Path) -> Iterator[Any]:
    """Run the README's own command, with other names and places."""
    name = f"agp-agent-{secrets.token_hex(4)}"
    (command,) = re.findall(r"^docker run -d --name agp-agent .*?agp/agent$", README, re.MULTILINE | re.DOTALL)
    state, config = folder / "state", folder / "config"
    for place in (state, config):
        place.mkdir()
        os.chown(place, AGENT_UID, AGENT_UID)
    for file in ("token", "dashboard-token"):
        (config / file).write_text(secrets.token_urlsafe(32))
        (config / file).chmod(0o400)
        os.chown(config / file, AGENT_UID, AGENT_UID)
    for old, new in {
        "--name agp-agent": f"--name {name}",
        "/var/lib/agp-agent:": f"{state}:",
        "-v /etc/agp-agent:": f"-v {config}:",
        ":8470:8470": "::8470",
        "agp/agent": f"agp/agent:{__version__}",
    }.items():
        assert old in command
        command = command.replace(old, new) if old != "agp/agent" else command.removesuffix(old) + new
    environment = os.environ | {
        "AGP_TOKEN_FILE": "/etc/agp-agent/token",
        "AGP_DASHBOARD_TOKEN_FILE": "/etc/agp-agent/dashboard-token",
        "AGP_DASHBOARD_URL": "http://127.0.0.1:9",
    }
    try:
        subprocess.run(["bash", "-euc", command], env=environment, check=True, capture_output=True)
        container = client.containers.get(name)
        eventually(lambda: b"listening" in container.logs(), "the agent listens")
        yield container
        container.stop(timeout=60)
        warm: dict[str, str | list[str] | bool] = {"label": f"agp.agent_id={str(container.id)[:12]}"}
        assert client.containers.list(all=True, filters=warm) == [], container.logs().decode()
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)


def test_the_agents_own_container_has_no_finding_that_is_not_explained(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    """Of the container that the README tells people to run; and the doctor works inside it."""
    with agent_as_the_readme_says(client, tmp_path) as container:
        found = findings(client.api.inspect_container(container.id))
        code, told = container.exec_run(["agp-agent", "doctor"])
    assert found.keys() <= explained("agent"), found
    assert (code, b"fail " in told) == (0, False), told.decode()


def test_the_checks_find_what_is_careless(client: docker.DockerClient) -> None:
    """A container that shares the host's namespaces, devices, folders and socket meets next to nothing."""
    api: Any = client.api
    careless = api.create_container_from_config(
        {
            "Image": f"agp/runner-shell:{__version__}",
            "HostConfig": {
                "CapAdd": ["SYS_ADMIN"],
                "Binds": ["/etc:/host-etc:rw", "/var/run/docker.sock:/var/run/docker.sock"],
                "NetworkMode": "host",
                "PidMode": "host",
                "IpcMode": "host",
                "UTSMode": "host",
                "UsernsMode": "host",
                "PublishAllPorts": True,
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]},
                "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}],
                "SecurityOpt": ["seccomp=unconfined", "label=disable"],
                "RestartPolicy": {"Name": "always"},
            },
        }
    )
    try:
        found = findings(client.api.inspect_container(careless["Id"]))
    finally:
        client.api.remove_container(careless["Id"], force=True)
    assert found.keys() >= FINDINGS.keys() - {"5.5", "5.20", "5.25", "5.30"}
