"""The Compose file of the documentation, run as it is: up, a task, a change that makes a new container, down."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from docker.models.containers import Container

from agp_agent import __version__
from release.images import ROOT
from support.bridge import address_on_bridge
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.playbooks import WAITED, WAITING
from support.waiting import eventually

FILE: Final = ROOT / "docs" / "docker-host" / "compose.yaml"
UID: Final = 10001
COMPOSE: Final = ("docker-compose",) if shutil.which("docker-compose") else ("docker", "compose")


class Host:
    """A Docker host with the folders and the environment that the documentation asks for."""

    def __init__(self, folder: Path, dashboard: DashboardStub) -> None:
        """Two folders that belong to the image's user, each token in its file."""
        self.dashboard, self.token = dashboard, secrets.token_urlsafe(32)
        self.name = f"compose-test-{secrets.token_hex(4)}"
        self.state, config = folder / "state", folder / "config"
        for made in (self.state, config):
            made.mkdir(mode=0o700)
        for name, token in {"token": self.token, "dashboard-token": dashboard.token}.items():
            (config / name).write_text(token)
            (config / name).chmod(0o600)
            os.chown(config / name, UID, UID)
        for made in (self.state, config):
            os.chown(made, UID, UID)
        self.environment = {
            "PATH": os.environ["PATH"],
            "AGP_VERSION": __version__,
            "DOCKER_GROUP": str(Path("/var/run/docker.sock").stat().st_gid),
            "AGP_STATE_DIR": str(self.state),
            "AGP_CONFIG_DIR": str(config),
            "AGP_DASHBOARD_URL": dashboard.url,
            "AGP_AGENT_ID": self.name,
        }

    def compose(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run Compose with the file."""
        command = (*COMPOSE, "--file", str(FILE), "--project-name", self.name, *arguments)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def up(self, *options: str) -> None:
        """Have it run as the file says, and return once it is ready."""
        self.compose("up", "--detach", *options)
        eventually(self._is_ready, "the agent is ready")

    def _is_ready(self) -> bool:
        try:
            return httpx.get("http://127.0.0.1:8470/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def send(self, task_id: str, content: str) -> None:
        """Send a task that must be accepted."""
        body = {"task_id": task_id, "playbook": {"name": "a.sh", "content": content}}
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.post("http://127.0.0.1:8470/execute_task", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 202, answer.text


@pytest.fixture
def host(tmp_path: Path, engine: EngineSide) -> Iterator[Host]:
    """Afterwards nothing of it is on the engine."""
    with DashboardStub(host=address_on_bridge(engine)) as dashboard:
        host = Host(tmp_path, dashboard)
        try:
            yield host
        finally:
            host.compose("down", "--timeout", "60", check=False)
            left = engine.purge(host.name, label="agp.agent_id")
    assert left == []


def running_ones(engine: EngineSide, name: str) -> list[Container]:
    """The containers of tasks that have printed their first line."""
    return [one for one in engine.containers(name, label="agp.agent_id") if b"before" in one.logs()]


def test_the_compose_file_runs_tasks_and_a_new_container_takes_over(host: Host, engine: EngineSide) -> None:
    """What runs while the container is replaced is reported by the next one."""
    host.up()
    host.send("by compose", "echo composed\n")
    assert host.dashboard.result("by compose")["output"] == "composed\n"
    host.send("held", WAITING)
    (container,) = eventually(
        lambda: [one for one in engine.containers(host.name, label="agp.agent_id") if b"before" in one.logs()],
        "it runs",
    )
    before = engine.client.containers.get("agp-agent").id
    host.up("--force-recreate", "--timeout", "1")
    assert engine.client.containers.get("agp-agent").id != before
    engine.let_go(str(container.id))
    assert host.dashboard.result("held") == {"task_id": "held", **WAITED}
    host.compose("down", "--timeout", "60")


@pytest.mark.parametrize("missing", ["DOCKER_GROUP", "AGP_DASHBOARD_URL", "AGP_AGENT_ID"])
def test_what_must_be_said_is_asked_for_by_name(host: Host, missing: str) -> None:
    """Before anything is made."""
    del host.environment[missing]
    done = host.compose("up", "--detach", check=False)
    assert done.returncode != 0
    assert missing in done.stderr
    host.environment[missing] = "1"
