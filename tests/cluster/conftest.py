"""What the suite on a real cluster needs: its node is this machine, so the node's Docker is the machine's engine."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from chart.rendering import CHART, HELM
from support.dashboard_stub import DashboardStub
from support.waiting import PATIENCE_S, eventually

SOCKET: Final = Path("/var/run/docker.sock")
BRIDGE: Final = "agp-cni0"
DIND: Final = "agp-test/dind:1"
"""An image with an engine in it."""


@dataclass(slots=True)
class Cluster:
    """A namespace of the cluster, and the chart in it."""

    namespace: str
    dashboard: DashboardStub
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    state: Path = field(default_factory=lambda: Path(f"/var/lib/agp-test-{secrets.token_hex(4)}"))

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl in the namespace; return what it prints."""
        command = ("kubectl", "--namespace", self.namespace, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + ("" if check else done.stderr)

    def helm(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run helm in the namespace."""
        command = (HELM, *arguments, "--namespace", self.namespace)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def release(self, action: str, **values: object) -> None:
        """Install or upgrade the chart with these values, and return once the pods are ready."""
        self.helm(action, "agp", str(CHART), *self.settings(**values))
        self.kubectl("rollout", "status", "daemonset/agp-agp-agent", "--timeout=120s")

    def settings(self, **values: object) -> list[str]:
        """The least that works here, with these values besides; a double underscore stands for a dot."""
        given = {
            "dashboard.url": self.dashboard.url,
            "tokens.token": self.token,
            "tokens.dashboardToken": self.dashboard.token,
            "exposure.podNetwork": "true",
            "image.pullPolicy": "Never",
            "engine.hostSocket.group": SOCKET.stat().st_gid,
            "state.hostPath": self.state,
        } | {name.replace("__", "."): value for name, value in values.items()}
        if given["exposure.podNetwork"] == "true":  # nobody enforces it here, but the API server has to take it
            given["networkPolicy.from[0].ipBlock.cidr"] = "0.0.0.0/0"
        return [part for name, value in given.items() for part in ("--set", f"{name}={value}")]

    def pods(self) -> list[dict[str, Any]]:
        """The agents' pods as they are now."""
        found = self.kubectl("get", "pods", "--selector", "app.kubernetes.io/name=agp-agent", "--output", "json")
        pods: list[dict[str, Any]] = json.loads(found)["items"]
        return pods

    def stays_unready(self) -> bool:
        """Whether no pod becomes ready while its probe asks twice."""
        waited = ("wait", "pods", "--selector", "app.kubernetes.io/name=agp-agent", "--for=condition=Ready")
        said = self.kubectl(*waited, "--timeout=21s", check=False)
        return bool(self.pods()) and "timed out waiting" in said

    def pod(self) -> dict[str, Any]:
        """The one that is ready."""

        def look() -> list[dict[str, Any]]:
            return [
                one
                for one in self.pods()
                if "deletionTimestamp" not in one["metadata"]
                and any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", ()))
            ]

        found = eventually(look, "a pod that is ready")
        return found[0]

    def send(self, task_id: str, content: str) -> None:
        """Send a task to the pod's address; it must be accepted."""
        body = {"task_id": task_id, "playbook": {"name": "a.sh", "content": content}}
        answer = httpx.post(
            f"http://{self.pod()['status']['podIP']}:8470/execute_task",
            json=body,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=PATIENCE_S,
            trust_env=False,
        )
        assert answer.status_code == 202, answer.text


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, with a dashboard outside the cluster; both are gone afterwards, and so is the state."""
    assert "KUBECONFIG" in os.environ, "there is no cluster: run `make test-kubernetes`"
    namespace = f"agp-{secrets.token_hex(4)}"
    subprocess.run(("kubectl", "create", "namespace", namespace), check=True, capture_output=True)
    with DashboardStub(host=_address_of_the_node()) as dashboard:
        made = Cluster(namespace, dashboard)
        try:
            yield made
        finally:
            made.helm("uninstall", "agp", "--ignore-not-found", "--wait", check=False)
            subprocess.run(
                ("kubectl", "delete", "namespace", namespace, "--wait=false"), check=True, capture_output=True
            )
            subprocess.run(("rm", "-rf", str(made.state)), check=True)


def _address_of_the_node() -> str:
    """Where pods find this machine."""
    shown = subprocess.run(("ip", "-json", "address", "show", BRIDGE), capture_output=True, text=True, check=False)
    if shown.returncode == 0:
        return str(json.loads(shown.stdout)[0]["addr_info"][0]["local"])
    node = subprocess.run(
        ("kubectl", "get", "nodes", "--output", "jsonpath={.items[0].status.addresses[0].address}"),
        capture_output=True,
        text=True,
        check=True,
    )
    return node.stdout
