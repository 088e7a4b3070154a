"""The chart on a real cluster, with an engine of the pod's own: for nodes that have containerd and no Docker."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agp_agent import __version__
from cluster.conftest import DIND, Cluster
from support.playbooks import WAITED, WAITING
from support.waiting import eventually

pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the sidecar is to load, as a file on the node."""
    archive = tmp_path_factory.mktemp("images") / "runners.tar"
    subprocess.run(("docker", "save", f"agp/runner-shell:{__version__}", "--output", archive), check=True)
    yield archive
    archive.unlink()


@pytest.fixture
def with_dind(cluster: Cluster, images: Path) -> dict[str, object]:
    """The values of this mode."""
    assert cluster.namespace
    return {
        "engine__mode": "dind",
        "engine__dind__image": DIND,
        "engine__dind__pullPolicy": "Never",
        "engine__dind__imagesPath": images,
        "settings__warm": 0,
    }


def test_a_task_runs_in_the_pods_own_engine(cluster: Cluster, with_dind: dict[str, object]) -> None:
    """It is the sidecar's container, not the node's, and its result arrives outside."""
    cluster.release("install", **with_dind)
    cluster.send("first", "echo hello from a pod\n")
    assert cluster.dashboard.result("first")["output"] == "hello from a pod\n"
    eventually(lambda: zombies(cluster) == [], "what its container's shim left is reaped")
    cluster.helm("test", "agp", "--timeout", "60s")


def test_a_pod_killed_without_grace_tells_each_task_as_lost(cluster: Cluster, with_dind: dict[str, object]) -> None:
    """The engine dies with its pod; the next agent finds the journal, and says what it does not know."""
    cluster.release("install", drainTimeoutSeconds=1, **with_dind)
    for number in range(3):
        cluster.send(f"held {number}", WAITING)
    before = cluster.pod()["metadata"]["name"]
    eventually(lambda: len(printed(cluster, before)) == 3, "all of them run")
    cluster.kubectl("delete", "pod", before, "--grace-period=0", "--force")
    for number in range(3):
        result = cluster.dashboard.result(f"held {number}", patience_s=180)
        assert result["status"] == "failed"
        assert result["error"].startswith("lost: ")
    eventually(lambda: cluster.pod()["metadata"]["name"] != before, "another pod", patience_s=120)
    cluster.send("afterwards", "echo goes on\n")
    assert cluster.dashboard.result("afterwards")["output"] == "goes on\n"


def test_an_upgrade_gives_running_tasks_their_time(cluster: Cluster, with_dind: dict[str, object]) -> None:
    """The sidecar stops after the agent: what ends within the drain is told as it ended."""
    cluster.release("install", drainTimeoutSeconds=60, **with_dind)
    cluster.send("short", "echo before; sleep 5; echo after\n")
    name = cluster.pod()["metadata"]["name"]
    eventually(lambda: printed(cluster, name), "it runs")
    cluster.release("upgrade", drainTimeoutSeconds=60, podLabels__changed="once", **with_dind)
    assert cluster.dashboard.result("short")["output"] == WAITED["output"]


def zombies(cluster: Cluster) -> list[str]:
    """What ended in the sidecar and nobody asked for."""
    look = "cat /proc/[0-9]*/stat 2>/dev/null || true"
    shown = cluster.kubectl("exec", cluster.pod()["metadata"]["name"], "--container", "dind", "--", "sh", "-c", look)
    return [line for line in shown.splitlines() if ") Z " in line]


def printed(cluster: Cluster, pod: str) -> list[str]:
    """The containers of the pod's engine that have printed their first line."""
    inside = ("exec", pod, "--container", "dind", "--")
    found = cluster.kubectl(*inside, "docker", "ps", "--quiet").split()
    return [one for one in found if "before" in cluster.kubectl(*inside, "docker", "logs", one)]
