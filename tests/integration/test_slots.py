"""The three ways of handing a playbook over, each found by the real probe, each with a task that runs in it."""

import hashlib
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.namespaces import with_bind, with_tmpfs
from support.playbooks import PLAYS, WAITING
from support.waiting import eventually

CONTENT = 'sha256sum <"$0" | cut -d " " -f 1\nif : >>"$0"; then echo writable; fi 2>/dev/null\nexit 6\n'
EXPECTED = f"{hashlib.sha256(CONTENT.encode()).hexdigest()}\n"


def _check_runs(agent: AgentProcess, dashboard: DashboardStub, kind: str) -> None:
    """The agent chose this way; playbooks arrive whole and read-only, and what was made for them goes away."""
    assert agent.wait_log("engine found")["playbooks_by"] == kind
    agent.accept_task(f"by {kind}", CONTENT)
    agent.accept_task(f"plays by {kind}", PLAYS, "site.yml")
    result = dashboard.result(f"by {kind}")
    assert (result["output"], result["error"]) == (EXPECTED, "exit code 6")
    assert dashboard.result(f"plays by {kind}")["status"] == "completed"
    for task_id in (f"by {kind}", f"plays by {kind}"):
        agent.engine.wait_removed(agent.container_of(task_id))


def _mount_of(agent: AgentProcess, dashboard: DashboardStub, task_id: str) -> dict[str, object]:
    """The one mount of a task's container, while it runs."""
    agent.accept_task(task_id, WAITING)
    container = agent.container_of(task_id)
    (mount,) = agent.engine.inspect(container)["Mounts"]
    agent.engine.let_go(container)
    assert dashboard.result(task_id)["error"] == "exit code 7"
    return {key: mount.get(key) for key in ("Type", "Source", "Destination", "RW", "Name")}


def test_the_same_path(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Agent and engine see the state directory under one path: the playbook is a file in it."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token) as agent:
        _check_runs(agent, dashboard, "same path")
        mount = _mount_of(agent, dashboard, "mounted from the same path")
        assert (mount["Type"], mount["RW"], mount["Destination"]) == ("bind", False, "/playbook")
        assert str(mount["Source"]).startswith(str(agent.state / "slots"))


def test_a_translated_path(dashboard: DashboardStub, tmp_path: Path) -> None:
    """The agent sees the directory elsewhere than the engine's host, and the operator says where it is there."""
    real, seen = tmp_path / "real", tmp_path / "agent" / "state"
    real.mkdir()
    seen.mkdir(parents=True)
    settings = {"AGP_ENGINE_STATE_DIR": real}
    wrapper = with_bind(real, seen)
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings, wrapper=wrapper) as agent:
        _check_runs(agent, dashboard, "translated path")
        mount = _mount_of(agent, dashboard, "mounted from a translated path")
        assert (mount["Type"], mount["RW"]) == ("bind", False)
        assert str(mount["Source"]).startswith(str(real / "slots"))
        assert list(seen.iterdir()) == []
    assert {path.name for folder in ("slots", "spool") for path in (real / folder).iterdir()} == set()


def test_a_named_volume(dashboard: DashboardStub, tmp_path: Path) -> None:
    """The engine sees nothing of the agent's files: each playbook comes in a volume, and the volume goes with it."""
    state = tmp_path / "state"
    state.mkdir()
    wrapper = with_tmpfs(state, "128m")
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, wrapper=wrapper) as agent:
        _check_runs(agent, dashboard, "volume")
        mount = _mount_of(agent, dashboard, "mounted from a volume")
        assert (mount["Type"], mount["RW"], mount["Destination"]) == ("volume", False, "/playbook")
        agent.engine.wait_no_volumes(agent.instance)
        eventually(lambda: not [*(agent.state_inside / "slots").iterdir()], "notes of the slots removed")


def test_volumes_of_a_killed_agent_are_found_again(dashboard: DashboardStub, tmp_path: Path) -> None:
    """A task in a volume is adopted after a kill as well, and its volume is removed in the end."""
    real, seen = tmp_path / "real", tmp_path / "agent" / "state"
    real.mkdir()
    seen.mkdir(parents=True)
    # The engine's host has another, empty folder where the agent has its state, and nobody says where it really is.
    wrapper = with_bind(real, seen)
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, wrapper=wrapper) as agent:
        assert agent.wait_log("engine found")["playbooks_by"] == "volume"
        agent.accept_task("adopted with its volume", WAITING)
        container = agent.container_of("adopted with its volume")
        agent.engine.wait_printed(container, b"before")
        agent.kill()
        agent.start()
        agent.wait_audited("task adopted", task_id="adopted with its volume")
        assert len(agent.engine.volumes(agent.instance)) == 1
        agent.engine.let_go(container)
        assert dashboard.result("adopted with its volume")["error"] == "exit code 7"
        agent.engine.wait_no_volumes(agent.instance)


@pytest.mark.parametrize("where", ["nowhere", "elsewhere"])
def test_a_wrong_word_of_the_operator_is_said(dashboard: DashboardStub, tmp_path: Path, where: str) -> None:
    """No other way is taken behind the operator's back: the agent is not ready and says which path is wrong."""
    (tmp_path / "elsewhere").mkdir()
    settings = {"AGP_ENGINE_STATE_DIR": tmp_path / where}
    agent = AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings, ready=False)
    with agent:
        line = agent.wait_log("not available: tasks are accepted and wait", why=_why(tmp_path / where))
        assert line["part"] == "engine"
        assert agent.http.get("/readyz").status_code == 503
        assert agent.post_task("waiting", "echo").json()["status"] == "pending"


def _why(path: Path) -> str:
    return (
        f"AGP_ENGINE_STATE_DIR: containers do not see the agent's files under {path}; "
        "expected the path of the state directory on the engine's host."
    )
