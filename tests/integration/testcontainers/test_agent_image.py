"""The agent's own image, started as an operator would: not root, read-only, with the docker socket mounted."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from testcontainers.core.config import testcontainers_config

from agp_agent.testing import AgentContainer
from support.bridge import address_on_bridge
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.playbooks import PLAYS, WAITED, WAITING
from support.waiting import eventually

INSIDE: Final = "/var/lib/agp-agent"
AGENT_UID: Final = 10001
SECOND_NS: Final = 10**9


class Agent(AgentContainer):
    """The helper that users get, with what only these tests ask. Its tasks are told from others' by its own name."""

    def __init__(self, dashboard: DashboardStub, volumes: dict[str, str], environment: dict[str, str]) -> None:
        """``volumes``: where things of the host, or named volumes, are mounted to."""
        super().__init__(dashboard.url, dashboard.token, volumes=volumes, environment=environment)
        often = {"interval": SECOND_NS, "start_period": 60 * SECOND_NS}
        self._docker.with_kwargs(**self._docker._kwargs, healthcheck=often)

    def accept_task(self, task_id: str, content: str, name: str = "playbook.sh") -> None:
        """Send a task that must be accepted."""
        answer = self.send(task_id, content, name)
        assert answer.status == 202, answer.body

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event."""
        lines = [json.loads(line) for line in self.log().splitlines()]
        return [line for line in lines if line["event"] == event]

    def task_container(self, task_id: str) -> str:
        """The container in which a task was started, as soon as it is."""

        def look() -> list[dict[str, Any]]:
            return [line for line in self.logged("task started") if line["task_id"] == task_id]

        return str(eventually(look, f"start of {task_id!r}")[-1]["container_id"])


@pytest.fixture(scope="module")
def gateway_dashboard(engine: EngineSide) -> Iterator[DashboardStub]:
    """A dashboard that containers on the engine's own bridge reach."""
    testcontainers_config.ryuk_disabled = True  # everything is removed here, and asserted to be
    with DashboardStub(host=address_on_bridge(engine)) as stub:
        yield stub


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory on the host that the image's user owns."""
    path = tmp_path / "state"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, AGENT_UID, AGENT_UID)
    return path


@pytest.fixture
def volume(engine: EngineSide) -> Iterator[str]:
    """The name of a volume that is made when it is first mounted, and removed in the end."""
    name = f"agp-image-test-{secrets.token_hex(4)}"
    yield name
    engine.client.volumes.get(name).remove()


Start = Callable[..., Agent]


@pytest.fixture
def start(gateway_dashboard: DashboardStub, engine: EngineSide) -> Iterator[Start]:
    """Start the image; afterwards no container and no volume of it or of its tasks may be left."""
    started: list[Agent] = []

    def start(volumes: dict[str, str], **environment: str) -> Agent:
        agent = Agent(gateway_dashboard, volumes, environment)
        started.append(agent)
        agent.start()
        return agent

    yield start
    for agent in started:
        container = agent.container
        container.stop(timeout=60)
        code = container.wait()["StatusCode"]
        log = agent.log()
        agent.stop()
        left = engine.purge(agent.agent_id, label="agp.agent_id")
        assert (code, left) == (0, []), log


def _check_runs(agent: Agent, dashboard: DashboardStub, kind: str) -> None:
    """It hands playbooks over in this way, and what they become reaches the dashboard."""
    assert [line["playbooks_by"] for line in agent.logged("engine found")] == [kind]
    agent.accept_task(f"{kind} {agent.agent_id}", 'echo "$((6 * 7))"; exit 3')
    agent.accept_task(f"plays {agent.agent_id}", PLAYS, "site.yml")
    assert dashboard.result(f"{kind} {agent.agent_id}") == {
        "task_id": f"{kind} {agent.agent_id}",
        "status": "failed",
        "output": "42\n",
        "error": "exit code 3",
    }
    assert dashboard.result(f"plays {agent.agent_id}")["status"] == "completed"


def test_the_image_runs_tasks_with_its_state_at_another_path(
    start: Start, state: Path, gateway_dashboard: DashboardStub, engine: EngineSide
) -> None:
    """It finds the host's path by inspecting its own container; killed and started again it adopts what runs."""
    agent = start({str(state): INSIDE})
    _check_runs(agent, gateway_dashboard, "translated path")
    task_id = f"adopted {agent.agent_id}"
    agent.accept_task(task_id, WAITING)
    container = agent.task_container(task_id)
    (mount,) = engine.inspect(container)["Mounts"]
    assert mount["Source"].startswith(f"{state}/slots/")
    engine.wait_printed(container, b"before")
    agent.container.kill()
    agent.container.wait()
    agent.container.start()
    agent.connect()
    engine.let_go(container)
    assert gateway_dashboard.result(task_id) == {"task_id": task_id, **WAITED}


def test_the_image_runs_tasks_with_its_state_at_the_same_path(
    start: Start, state: Path, gateway_dashboard: DashboardStub
) -> None:
    """The recommended layout needs no look at the agent's own container."""
    agent = start({str(state): str(state)}, AGP_STATE_DIR=str(state))
    _check_runs(agent, gateway_dashboard, "same path")


def test_the_image_runs_tasks_with_its_state_in_a_named_volume(
    volume: str, start: Start, gateway_dashboard: DashboardStub
) -> None:
    """An engine mounts no part of its own folders into a container: the playbooks come in volumes too."""
    agent = start({volume: INSIDE})
    _check_runs(agent, gateway_dashboard, "volume")


def test_the_image_is_locked_down_and_becomes_healthy(start: Start, state: Path) -> None:
    """Its user is not root, it writes nowhere but to its state, and its health check asks the agent."""
    agent = start({str(state): INSIDE})
    eventually(lambda: agent.container.attrs["State"]["Health"]["Status"] == "healthy", "healthy")
    config = agent.container.attrs["Config"]
    assert config["Healthcheck"]["Test"] == ["CMD", "agp-agent", "healthcheck"]
    assert agent.container.image is not None
    assert agent.container.image.attrs["Config"]["User"] == f"{AGENT_UID}:{AGENT_UID}"
    look = "id -u; touch /x /usr/x /tmp/x 2>&1 | grep -c 'Read-only file system'; grep CapEff /proc/1/status"
    seen = agent.container.exec_run(["sh", "-c", look]).output
    assert isinstance(seen, bytes)
    uid, read_only, capabilities = seen.decode().splitlines()
    assert int(uid) != 0
    assert (int(read_only), capabilities.split()[1]) == (3, "0" * 16)
    heartbeat = f"{agent.url}/heartbeat"
    right, wrong = ({"Authorization": f"Bearer {token}"} for token in (agent.token, "nonsense"))
    assert httpx.post(heartbeat, headers=right, trust_env=False).json() == {"status": "ok"}
    assert httpx.post(heartbeat, headers=wrong, trust_env=False).status_code == 401
    log = agent.log()
    assert agent.token not in log
    assert all(isinstance(json.loads(line), dict) for line in log.splitlines())
