"""The chart with its tailnet sidecar, on a real cluster and a real tailnet: only the tailnet reaches the agent."""

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from chart.rendering import CHART
from cluster.conftest import Cluster
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.network_thread import in_network
from support.playbooks import WAITED, WAITING
from support.waiting import PATIENCE_S, eventually
from tailnet.daemons import ControlServer

pytestmark = pytest.mark.kubernetes

IMAGE: Final = "agp-test/tailscale"
SPENT: Final = f"hskey-auth-{'0' * 12}-{'0' * 64}"
"""A key as Headscale makes them, which it does not know (any more)."""
NETWORKS: Final = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class OnTailnet:
    """The chart in a cluster, one of whose pods is a node of the tailnet; the dashboard is another node."""

    cluster: Cluster
    values: dict[str, object]

    def install(self) -> str:
        """Install it; the pod's address in the tailnet."""
        self.cluster.release("install", **self.values)
        return self.address()

    def address(self) -> str:
        """The pod's address in the tailnet."""
        inside = ("exec", self.cluster.pod()["metadata"]["name"], "--container", "tailscale", "--")
        return self.cluster.kubectl(*inside, "tailscale", "--socket=/run/tailscale/tailscaled.sock", "ip", "-4").strip()

    def operate(self, *command: str) -> Any:
        """What a command of the operator's says in the pod, whom the tailnet does not know."""
        inside = ("exec", self.cluster.pod()["metadata"]["name"], "--container", "agent", "--")
        return json.loads(self.cluster.kubectl(*inside, "agp-agent", *command))

    def own_state_says(self) -> str:
        """The log of the step before the agent."""
        return self.cluster.kubectl("logs", "daemonset/agp-agp-agent", "--container", "own-state", check=False)

    def heartbeat(self, network: str, host: str) -> str:
        """What a heartbeat with the right token gets from one of the machines: a status, or the name of its error."""
        headers = {"Authorization": f"Bearer {self.cluster.token}"}

        def ask() -> str:
            try:
                answer = httpx.post(f"http://{host}:8470/heartbeat", headers=headers, timeout=3, trust_env=False)
            except httpx.TransportError as error:
                return type(error).__name__
            return str(answer.status_code)

        return in_network(NETWORKS / os.environ[network], ask)

    def send(self, host: str, task_id: str, content: str) -> int:
        """Send a task from the dashboard's machine."""
        body = {"task_id": task_id, "playbook": {"name": "a.sh", "content": content}}
        headers = {"Authorization": f"Bearer {self.cluster.token}"}
        url = f"http://{host}:8470/execute_task"
        return in_network(
            NETWORKS / os.environ["TAILNET_DASHBOARD_NETNS"],
            lambda: httpx.post(url, json=body, headers=headers, timeout=PATIENCE_S, trust_env=False).status_code,
        )


@pytest.fixture
def dashboard_on_tailnet() -> Iterator[DashboardStub]:
    """A dashboard on its own machine, at its address in the tailnet."""
    assert "TAILNET_AGENT_NETNS" in os.environ, "there is no tailnet: run `make test-kubernetes`"
    network = NETWORKS / os.environ["TAILNET_DASHBOARD_NETNS"]
    stub = in_network(network, lambda: DashboardStub(host=os.environ["TAILNET_DASHBOARD_IP"]))
    with stub:
        yield stub


Joined = Callable[[str], OnTailnet]


@pytest.fixture
def joined(cluster: Cluster, dashboard_on_tailnet: DashboardStub) -> Iterator[Joined]:
    """``joined(mode)``: the values of the sidecar's mode, with the Secret and the ConfigMap that they name."""
    identity = Path(f"/var/lib/agp-test-tailnet-{secrets.token_hex(4)}")
    cluster.dashboard = dashboard_on_tailnet
    key = os.environ["TAILNET_AUTHKEY"]
    cluster.kubectl("create", "secret", "generic", "tailnet-key", f"--from-literal=authkey={key}")
    cluster.kubectl("create", "configmap", "tailnet-ca", f"--from-file=ca.crt={os.environ['TAILNET_CA']}")

    def values(mode: str) -> OnTailnet:
        return OnTailnet(
            cluster,
            {
                "tailnet__enabled": "true",
                "tailnet__mode": mode,
                "tailnet__loginServer": os.environ["TAILNET_LOGIN_SERVER"],
                "tailnet__authKeySecret": "tailnet-key",
                "tailnet__caConfigMap": "tailnet-ca",
                "tailnet__image__repository": IMAGE,
                "tailnet__image__tag": "test",
                "tailnet__image__pullPolicy": "Never",
                "tailnet__statePath": identity,
                "exposure__podNetwork": "false",
                "settings__warm": 0,
            },
        )

    yield values
    subprocess.run(("rm", "-rf", str(identity)), check=True)


@pytest.mark.parametrize("mode", ["userspace", "kernel"])
def test_only_the_tailnet_reaches_the_agent(joined: Joined, mode: str) -> None:
    """The dashboard's node gets in, and its result comes back over the tailnet; nobody else gets in, by any address."""
    node = joined(mode)
    address = node.install()
    assert node.send(address, f"over {mode}", "echo over the tailnet\n") == 202
    result = node.cluster.dashboard.acknowledged(f"over {mode}")
    assert result.result["output"] == "over the tailnet\n"

    pod = node.cluster.pod()["status"]["podIP"]
    assert node.heartbeat("TAILNET_DASHBOARD_NETNS", address) == "200"
    assert node.heartbeat("TAILNET_INTRUDER_NETNS", address) in {"ConnectTimeout", "ConnectError"}
    with pytest.raises(httpx.ConnectError):  # the node itself, and any pod beside it
        httpx.get(f"http://{pod}:8470/healthz", timeout=3, trust_env=False)
    assert node.operate("tasks", "show", f"over {mode}", "--json")["outcome"] == "succeeded"

    before = node.cluster.pod()["metadata"]["name"]
    node.cluster.kubectl("delete", "pod", before, "--grace-period=0", "--force")
    eventually(lambda: node.cluster.pod()["metadata"]["name"] != before, "another pod", patience_s=120)
    assert node.address() == address, "a new pod of the same node is the same node of the tailnet"
    eventually(lambda: node.heartbeat("TAILNET_DASHBOARD_NETNS", address) == "200", "the dashboard gets in again")


def test_an_agent_starts_while_its_control_server_is_away(joined: Joined) -> None:
    """What runs has a supervisor again at once; the pod is ready, and its result arrives, when that server is back."""
    node = joined("userspace")
    cluster = node.cluster
    address = node.install()
    assert node.send(address, "held", WAITING) == 202
    with EngineSide() as engine:
        (container,) = eventually(
            lambda: [one for one in engine.containers("node1", label="agp.agent_id") if b"before" in one.logs()],
            "it runs",
        )
        before = cluster.pod()["metadata"]["name"]
        with ControlServer().frozen():
            cluster.kubectl("delete", "pod", before, "--grace-period=0", "--force")
            (new,) = eventually(lambda: [one for one in names(cluster) if one != before], "another pod")
            agent = ("logs", new, "--container", "agent")
            eventually(lambda: '"event": "listening"' in cluster.kubectl(*agent, check=False), "its agent has started")
            engine.let_go(str(container.id))
            eventually(lambda: '"event": "task finished"' in cluster.kubectl(*agent), "the end is on record")
    assert node.cluster.dashboard.result("held", patience_s=180) == {"task_id": "held", **WAITED}


def names(cluster: Cluster) -> list[str]:
    """Of the agents' pods that are not about to go."""
    return [one["metadata"]["name"] for one in cluster.pods() if "deletionTimestamp" not in one["metadata"]]


def test_a_node_keeps_its_identity_when_its_mode_changes(joined: Joined) -> None:
    """What the sidecar wrote as another user is the other mode's, in both directions."""
    address = joined("userspace").install()
    for mode in ("kernel", "userspace"):
        node = joined(mode)
        node.cluster.release("upgrade", **node.values)
        eventually(lambda node=node: node.address() == address, f"the same node in {mode} mode")  # type: ignore[misc]


def test_a_tailscaled_of_the_nodes_own_keeps_its_folder(joined: Joined) -> None:
    """It is root's, as a kernel sidecar's would be: the pod does not start, says why, and takes nothing over."""
    node = joined("kernel")
    folder = Path(str(node.values["tailnet__statePath"]))
    folder.mkdir(mode=0o755)
    (folder / "tailscaled.state").write_text("{}")
    node.cluster.helm("install", "agp", str(CHART), *node.cluster.settings(**node.values))
    eventually(lambda: "it has files of others in it" in node.own_state_says(), "the log of own-state says so")
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_node_that_joined_is_not_given_other_tags_in_silence(joined: Joined) -> None:
    """Its daemon would keep those that it has: the new pod says what is so, and what to do."""
    node = joined("userspace")
    node.install()
    changed = node.values | {"tailnet__tags[0]": "tag:other"}
    node.cluster.helm("upgrade", "agp", str(CHART), *node.cluster.settings(**changed))
    eventually(lambda: 'and the values say "' in node.own_state_says(), "the log of own-state says so")
    assert "tag:other" in node.own_state_says()


def test_a_spent_key_is_told_by_the_sidecar(joined: Joined) -> None:
    """The sidecar's log says that the control server refuses the key, and the pod is not ready."""
    node = joined("userspace")
    cluster = node.cluster
    cluster.kubectl("delete", "secret", "tailnet-key")
    cluster.kubectl("create", "secret", "generic", "tailnet-key", f"--from-literal=authkey={SPENT}")
    cluster.helm("install", "agp", str(CHART), *cluster.settings(**node.values))

    def logged() -> str:
        return cluster.kubectl("logs", "daemonset/agp-agp-agent", "--container", "tailscale", check=False)

    eventually(lambda: "invalid pre auth key" in logged(), "the log says what the control server answered")
    (pod,) = cluster.pods()
    assert [one["status"] for one in pod["status"]["conditions"] if one["type"] == "Ready"] == ["False"]
