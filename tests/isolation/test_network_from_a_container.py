"""The agent in a container of its own, with nothing but the engine's socket: its network runners are fenced in too.

It has no right on the host, and does not know the host's addresses.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import docker
import httpx
import pytest
from docker.models.containers import Container

from agp_agent import __version__
from isolation.network_tries import (
    FENCED,
    OPEN,
    REACHED,
    Plain,
    Target,
    address_of,
    gateway_of,
    runners,
    trying,
    verdicts,
)
from support.dashboard_stub import DashboardStub
from support.elsewhere import HERE, METADATA, PRIVATE, PUBLIC, SHARED, Elsewhere, listening_here
from support.waiting import eventually

pytest_plugins = ("isolation.network_world",)

SOCKET: Final = Path("/var/run/docker.sock")
STATE: Final = "/var/lib/agp-agent"
CATALOG: Final = "/etc/agp-agent/catalog.yaml"
PORT: Final = 8470
HOST_PORT: Final = 8093


@pytest.fixture(scope="module")
def reachable_dashboard(client: docker.DockerClient, plain: Plain) -> Iterator[DashboardStub]:
    """A dashboard on the address at which containers of the engine's own network find this machine."""
    with DashboardStub(host=gateway_of(client, str(plain.start("sleep 300").id))) as stub:
        yield stub


@pytest.fixture(scope="module")
def agent(
    client: docker.DockerClient, reachable_dashboard: DashboardStub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """The agent's image; in the end nothing of it or of its tasks may be left."""
    catalog = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    catalog.write_text(runners(net={}))
    catalog.chmod(0o444)
    name = f"agp-from-a-container-{secrets.token_hex(4)}"
    environment = {
        "AGP_TOKEN": secrets.token_urlsafe(32),
        "AGP_DASHBOARD_URL": reachable_dashboard.url,
        "AGP_DASHBOARD_TOKEN": reachable_dashboard.token,
        "AGP_AGENT_ID": name,
        "AGP_HOST": "0.0.0.0",  # noqa: S104  inside a container, none of whose ports is published
        "AGP_CATALOG": CATALOG,
    }
    container = client.containers.run(
        f"agp/agent:{__version__}",
        name=name,
        detach=True,
        environment=environment,
        volumes={
            name: {"bind": STATE, "mode": "rw"},
            str(SOCKET): {"bind": str(SOCKET), "mode": "rw"},
            str(catalog): {"bind": CATALOG, "mode": "ro"},
        },
        user=None if os.geteuid() == 0 else f"{os.getuid()}:{os.getgid()}",
        group_add=[SOCKET.stat().st_gid],
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
    )
    try:
        yield container
        container.stop(timeout=60)
        log = container.logs().decode()
        assert container.wait()["StatusCode"] == 0, log
        mine: dict[str, Any] = {"label": f"agp.agent_id={name}"}
        assert client.containers.list(all=True, filters=mine) == [], log
        assert client.networks.list(filters=mine) == [], log
    finally:
        container.remove(force=True)
        client.volumes.get(name).remove()


def post(agent: Container, address: str, task_id: str, content: str) -> None:
    """Send a task for the network runner, as soon as the agent takes one."""
    environment = dict(line.partition("=")[::2] for line in agent.attrs["Config"]["Env"])
    task = {"task_id": task_id, "playbook": {"name": "try.net", "content": content}}
    headers = {"Authorization": f"Bearer {environment['AGP_TOKEN']}"}

    def send() -> bool:
        try:
            answer = httpx.post(f"http://{address}:{PORT}/execute_task", json=task, headers=headers, trust_env=False)
        except httpx.TransportError:  # it does not listen yet
            return False
        return answer.status_code == 202

    eventually(send, f"{task_id} accepted:\n{agent.logs().decode()[-2000:]}")


def test_its_network_runners_are_fenced_in(
    agent: Container,
    client: docker.DockerClient,
    reachable_dashboard: DashboardStub,
    plain: Plain,
    elsewhere: Elsewhere,
) -> None:
    """The internet is there; metadata, private and shared addresses, the host and the agent's own API are not."""
    del elsewhere
    agent.reload()
    address, gateway = address_of(client, str(agent.id)), gateway_of(client, str(agent.id))
    targets: dict[str, Target] = {
        "internet": (PUBLIC, OPEN),
        "metadata": (METADATA, OPEN),
        "private": (PRIVATE, OPEN),
        "shared": (SHARED, OPEN),
        "host": (HERE, HOST_PORT),
        "gateway": (gateway, int(reachable_dashboard.url.rpartition(":")[2])),
        "api": (address, PORT),
    }
    with listening_here(HERE, HOST_PORT):
        post(agent, address, "from a container", trying(targets))
        result = reachable_dashboard.result("from a container")
        assert result["error"] is None, (result, agent.logs().decode()[-4000:])
        assert verdicts(result["output"]) == dict.fromkeys(targets, FENCED) | {"internet": REACHED}
        assert verdicts(plain.run(trying(targets))) == dict.fromkeys(targets, REACHED)
