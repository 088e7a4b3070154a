"""The chart on a real cluster, with an engine elsewhere: one that sees nothing of the pod's files, behind TLS."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agp_agent import __version__
from chart.rendering import CHART
from cluster.conftest import DIND, Cluster
from support.certificates import certify
from support.playbooks import WAITED, WAITING
from support.waiting import eventually

pytestmark = pytest.mark.kubernetes

SHELL = f"agp/runner-shell:{__version__}"


@dataclass(frozen=True)
class Remote:
    """A Docker on another host: another file system, another network."""

    host: str
    certificates: Path

    def docker(self, *arguments: str, check: bool = True) -> str:
        """What its client is answered."""
        environment = {"DOCKER_HOST": self.host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates)}
        command = ("docker", *arguments)
        return subprocess.run(command, env=os.environ | environment, check=check, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A pod of its own that is nothing but an engine, with the shell runner's image.

    Its certificate is for its address, which it has before the certificate: dockerd waits for that.
    """
    folder, name = tmp_path_factory.mktemp("certificates"), f"agp-engine-{secrets.token_hex(4)}"
    dockerd = (
        "until [ -e /tls/ready ]; do sleep 0.1; done; exec dockerd --host=tcp://0.0.0.0:2376"
        " --tlsverify --tlscacert=/tls/ca.pem --tlscert=/tls/cert.pem --tlskey=/tls/key.pem"
    )
    engine = {
        "name": "engine",
        "image": DIND,
        "imagePullPolicy": "Never",
        "command": ["sh", "-ec", dockerd],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/docker"}, {"name": "tls", "mountPath": "/tls"}],
    }
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "tls", "hostPath": {"path": str(folder)}}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    pod |= {"spec": {"containers": [engine], "volumes": volumes, "terminationGracePeriodSeconds": 5}}
    subprocess.run(("kubectl", "apply", "--filename=-"), input=json.dumps(pod), text=True, check=True)
    try:
        where = ("kubectl", "get", "pod", name, "--output=jsonpath={.status.podIP}")
        address = eventually(lambda: subprocess.check_output(where, text=True), "its address")
        certify(folder, address)
        (folder / "ready").touch()
        made = Remote(f"tcp://{address}:2376", folder)
        eventually(lambda: "Server" in made.docker("version", check=False), "the engine answers")
        archive = folder / "shell.tar"
        subprocess.run(("docker", "save", SHELL, "--output", archive), check=True)
        made.docker("load", "--input", str(archive))
        yield made
    finally:
        subprocess.run(("kubectl", "delete", "pod", name), check=True, capture_output=True)


def with_remote(cluster: Cluster, remote: Remote, certificates: Path) -> dict[str, object]:
    """The values of this mode, and the Secret that they name."""
    files = [f"--from-file={certificates}/{name}.pem" for name in ("ca", "cert", "key")]
    cluster.kubectl("create", "secret", "generic", "engine-tls", *files)
    return {
        "engine__mode": "remote",
        "engine__remote__host": remote.host,
        "engine__remote__tlsSecret": "engine-tls",
        "settings__warm": 0,
    }


def test_what_runs_elsewhere_outlives_the_pod(cluster: Cluster, remote: Remote) -> None:
    """The playbook comes there without a folder that both see, and the next pod takes over what runs."""
    values = with_remote(cluster, remote, remote.certificates)
    cluster.release("install", drainTimeoutSeconds=1, **values)
    cluster.helm("test", "agp", "--timeout", "60s")
    cluster.send("held", WAITING)
    running = "ps", "--quiet", "--filter", "label=agp.agent_id"
    (container,) = eventually(lambda: remote.docker(*running).split(), "it is a container of the engine elsewhere")
    eventually(lambda: "before" in remote.docker("logs", container), "it runs")
    before = cluster.pod()["metadata"]["name"]
    cluster.kubectl("delete", "pod", before, "--grace-period=0", "--force")
    eventually(lambda: cluster.pod()["metadata"]["name"] != before, "another pod")
    remote.docker("exec", container, "touch", "/work/go")
    assert cluster.dashboard.result("held") == {"task_id": "held", **WAITED}
    cluster.send("next", "echo hello from elsewhere\n")
    assert cluster.dashboard.result("next")["output"] == "hello from elsewhere\n"
    eventually(lambda: not remote.docker("ps", "--all", "--quiet"), "no container is left there")


def test_an_engine_that_nobody_vouches_for_gets_no_task(cluster: Cluster, remote: Remote, tmp_path: Path) -> None:
    """Another authority's certificate: the agent's log says so, and the pod does not become ready."""
    certify(tmp_path, "192.0.2.1")
    cluster.helm("install", "agp", str(CHART), *cluster.settings(**with_remote(cluster, remote, tmp_path)))

    def logged() -> str:
        return cluster.kubectl("logs", "daemonset/agp-agp-agent", "--container", "agent", check=False)

    eventually(lambda: "certificate verify failed" in logged(), "the agent's log says so")
    assert cluster.stays_unready()
