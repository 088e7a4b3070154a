"""The chart on a real cluster, with the node's own Docker: tasks outlive pods, upgrades and kills."""

import pytest
from docker.models.containers import Container

from chart.rendering import CHART
from cluster.conftest import Cluster
from support.engine_side import EngineSide
from support.playbooks import WAITED, WAITING
from support.waiting import eventually

pytestmark = pytest.mark.kubernetes


def test_a_task_runs_and_its_result_arrives_outside(cluster: Cluster) -> None:
    """Installed with a few values, ready, and used; then nothing is left but what the notes say."""
    cluster.release("install")
    cluster.send("first", "echo hello from a node\n")
    assert cluster.dashboard.result("first")["output"] == "hello from a node\n"
    cluster.helm("test", "agp", "--timeout", "60s")
    cluster.helm("uninstall", "agp", "--wait", "--timeout", "90s")
    eventually(lambda: cluster.pods() == [], "no pod left")
    left = cluster.kubectl("get", "all,configmaps,secrets,serviceaccounts,networkpolicies", "--output", "name").split()
    assert set(left) <= {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    assert (cluster.state / "journal.db").exists()


@pytest.mark.parametrize("how", ["upgrade", "kill"])
def test_what_runs_outlives_its_pod(cluster: Cluster, how: str) -> None:
    """A helm upgrade, or a pod that is killed without grace: the next pod takes over what runs, and loses nothing."""
    cluster.release("install", drainTimeoutSeconds=1)
    for number in range(3):
        cluster.send(f"held {number}", WAITING)
    with EngineSide() as engine:

        def running() -> list[Container]:
            found = [one for one in engine.containers("node1", label="agp.agent_id") if b"before" in one.logs()]
            return found if len(found) == 3 else []

        containers = eventually(running, "they run")
        before = cluster.pod()["metadata"]["name"]
        if how == "upgrade":
            cluster.release("upgrade", drainTimeoutSeconds=1, podLabels__changed="once")
        else:
            cluster.kubectl("delete", "pod", before, "--grace-period=0", "--force")
        eventually(lambda: cluster.pod()["metadata"]["name"] != before, "another pod")
        cluster.send("queued later", "echo later\n")
        for container in containers:
            engine.let_go(str(container.id))
    for number in range(3):
        assert cluster.dashboard.result(f"held {number}") == {"task_id": f"held {number}", **WAITED}
    assert cluster.dashboard.result("queued later")["output"] == "later\n"


def test_a_node_without_docker_says_so(cluster: Cluster) -> None:
    """The pod's events name the socket that is not there; nothing is started."""
    cluster.helm("install", "agp", str(CHART), *cluster.settings(engine__hostSocket__path="/nowhere/docker.sock"))
    text = "/nowhere/docker.sock"
    eventually(
        lambda: text in cluster.kubectl("get", "events", "--output", "jsonpath={.items[*].message}"),
        "an event that names it",
    )
    assert "hostPath type check failed" in cluster.kubectl("get", "events", "--output", "jsonpath={.items[*].message}")


def test_wrong_values_reach_no_cluster(cluster: Cluster) -> None:
    """Refused by helm itself."""
    done = cluster.helm("install", "agp", str(CHART), *cluster.settings(engine__mode="podman"), check=False)
    assert done.returncode != 0
    assert "engine.mode" in done.stderr
    assert cluster.pods() == []


def test_a_socket_without_rights_is_told_in_the_log(cluster: Cluster) -> None:
    """A wrong group: the agent lives and says which group it needs; the pod does not become ready."""
    cluster.helm("install", "agp", str(CHART), *cluster.settings(engine__hostSocket__group=4711))
    log = "permission denied"

    def logged() -> str:
        return cluster.kubectl("logs", "daemonset/agp-agp-agent", "--container", "agent", check=False).lower()

    eventually(lambda: log in logged(), "the agent's log says so")
    assert cluster.stays_unready()


def test_missing_tokens_are_told_in_the_events(cluster: Cluster) -> None:
    """A Secret that is not there keeps the pod from starting, by name."""
    values = cluster.settings(tokens__existingSecret="no-such-secret", tokens__token="", tokens__dashboardToken="")
    cluster.helm("install", "agp", str(CHART), *values)
    eventually(
        lambda: (
            'secret "no-such-secret" not found'
            in cluster.kubectl("get", "events", "--output", "jsonpath={.items[*].message}")
        ),
        "an event that names it",
    )


def test_a_folder_of_somebody_elses_keeps_its_owner(cluster: Cluster) -> None:
    """A path that has other things in it: the pod does not start, says why, and takes nothing over."""
    cluster.state.mkdir()
    (cluster.state / "accounts").touch()
    before = cluster.state.stat()
    cluster.helm("install", "agp", str(CHART), *cluster.settings())

    def logged() -> str:
        return cluster.kubectl("logs", "daemonset/agp-agp-agent", "--container", "own-state", check=False)

    eventually(lambda: "it has files of others in it" in logged(), "the log of own-state says so")
    after = cluster.state.stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


def test_the_state_of_another_agent_is_told_in_the_log(cluster: Cluster) -> None:
    """A folder that another node's agent has used: the pod ends with a sentence that names both."""
    cluster.release("install")
    cluster.helm("uninstall", "agp", "--wait", "--timeout", "90s")
    identity = cluster.state / "agent.lock"
    identity.write_text(identity.read_text().replace('"node1"', '"node2"'))
    cluster.helm("install", "agp", str(CHART), *cluster.settings())

    def logged() -> str:
        return cluster.kubectl("logs", "daemonset/agp-agp-agent", "--container", "agent", check=False)

    eventually(lambda: "node2" in logged() and "node1" in logged(), "the agent's log says so")
