"""A spike: one task as a Pod, with the runner image and its entry as they are. What the engine's port would lack.

docs/scale.md tells what follows from it. Each fact that it lists is an assert here, on a real kubelet.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from agp_agent import __version__
from cluster.conftest import Cluster
from support.waiting import eventually

pytestmark = pytest.mark.kubernetes

NONCE: Final = "0123456789abcdef" * 2
UID: Final = 20000
PLAYBOOK: Final = """\
echo "uid $(id -u), gid $(id -g)"
echo "root $(touch /x 2>&1)"
echo "capabilities $(grep CapEff /proc/self/status | cut -f2)"
echo "devices $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' ')"
echo "files $(ulimit -n)"
echo "token $(ls /var/run/secrets 2>&1)"
for file in /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; do [ ! -r $file ] || echo "pids $(cat $file)"; done
exit 3
"""


def pod_of_task() -> dict[str, Any]:
    """The lockdown of a task's container, as far as a Pod can say it."""
    box = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    memory = {"tmp": "64Mi", "work": "256Mi"}
    volumes: list[dict[str, Any]] = [
        {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}} for name, size in memory.items()
    ]
    volumes.append({"name": "playbook", "configMap": {"name": "slot-1", "defaultMode": 0o444}})
    mounts: list[dict[str, Any]] = [{"name": name, "mountPath": f"/{name}"} for name in memory]
    mounts.append({"name": "playbook", "mountPath": "/playbook", "readOnly": True})
    container = {
        "name": "task",
        "image": f"agp/runner-shell:{__version__}",
        "imagePullPolicy": "Never",
        "args": ["agp-shell", "/playbook/playbook.sh"],
        "stdin": True,
        "stdinOnce": True,
        "workingDir": "/work",
        "securityContext": box,
        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
        "volumeMounts": mounts,
    }
    user = {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": 300,
        "hostname": "runner",
        "securityContext": user,
        "containers": [container],
        "volumes": volumes,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slot-1"}, "spec": spec}


def state_of(cluster: Cluster) -> dict[str, Any]:
    """What the kubelet says of the container now."""
    shown = cluster.kubectl("get", "pod", "slot-1", "--output", "json")
    state: dict[str, Any] = json.loads(shown)["status"]["containerStatuses"][0]["state"]
    return state


@pytest.fixture
def waiting_pod(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """A pod whose entry waits for its release; its playbook had to be there before it."""
    cluster.kubectl("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce=restricted")
    (tmp_path / "playbook.sh").write_text(PLAYBOOK)
    (tmp_path / "pod.json").write_text(json.dumps(pod_of_task()))
    cluster.kubectl("create", "configmap", "slot-1", f"--from-file={tmp_path / 'playbook.sh'}")
    cluster.kubectl("apply", "--filename", str(tmp_path / "pod.json"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/slot-1", "--timeout=60s")
    yield cluster
    cluster.kubectl("delete", "pod", "slot-1", "--grace-period=0", "--force")


def test_one_task_runs_as_a_pod(waiting_pod: Cluster) -> None:
    """Created, released by the same line, read, ended with its exit code; under Pod Security's strictest level."""
    cluster = waiting_pod
    assert "running" in state_of(cluster), "the entry waits, as in a container of Docker's"
    attach = ("kubectl", "--namespace", cluster.namespace, "attach", "--stdin", "--quiet", "slot-1")
    released = subprocess.run(attach, input=f"agp1 release {NONCE}\n", capture_output=True, text=True, check=False)
    assert f"agp1 started {NONCE}" in released.stderr, "the control channel is the stderr of its own, as the port wants"
    ended = eventually(lambda: state_of(cluster).get("terminated") or {}, "the end of the pod")
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")

    printed = dict(line.split(" ", 1) for line in released.stdout.splitlines())
    assert printed["uid"] == f"{UID}, gid {UID}"
    assert "Read-only file system" in printed["root"]
    assert set(printed["capabilities"]) == {"0"}
    assert "No such file" in printed["token"]

    # What the port asks for, and a Pod cannot give or gives otherwise.
    assert "eth0" in printed["devices"], "there is always a network: no Pod has none"
    assert printed["pids"] == "max", "no field of a Pod limits processes; only the kubelet's own setting does"
    assert int(printed["files"]) > 1024, "no field of a Pod sets ulimits"
    log = cluster.kubectl("logs", "slot-1")
    assert f"agp1 started {NONCE}" in log, "the log has both streams in one, and does not tell them apart"
