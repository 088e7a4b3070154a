"""The engine may not be there, or go away; and other agents may stand beside this one."""

import subprocess
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.engine_proxy import EngineProxy
from support.namespaces import with_bind
from support.own_engine import OwnEngine
from support.playbooks import WAITED, WAITING
from support.waiting import eventually


def test_tasks_wait_for_an_engine_that_is_not_there_yet(
    dashboard: DashboardStub, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They are accepted as pending, the log tells why, and they run when the engine appears."""
    proxy = EngineProxy(tmp_path_factory.mktemp("e") / "docker.sock")
    settings = {"DOCKER_HOST": proxy.docker_host}
    with proxy, AgentProcess(tmp_path, dashboard.url, dashboard.token, settings, ready=False) as agent:
        missing = agent.wait_log("not available: tasks are accepted and wait", part="engine")
        assert str(proxy.path) in missing["why"]
        answer = agent.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
        assert agent.http.get("/healthz").status_code == 200
        for task_id in ("early", "early too"):
            accepted = agent.post_task(task_id, "echo ran")
            message = "Task accepted; it waits for a free place"
            assert (accepted.status_code, accepted.json()) == (
                202,
                {"message": message, "task_id": task_id, "status": "pending"},
            )
        proxy.open()
        for task_id in ("early", "early too"):
            assert dashboard.result(task_id)["output"] == "ran\n"
        agent.wait_ready()


def test_an_engine_that_goes_away_takes_nothing_with_it(
    dashboard: DashboardStub, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What runs runs on unseen, its output is completed when the engine is back; what comes meanwhile waits."""
    proxy = EngineProxy(tmp_path_factory.mktemp("e") / "docker.sock")
    settings = {"DOCKER_HOST": proxy.docker_host}
    with proxy.open(), AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
        for task_id in ("runs on", "ends unseen"):
            agent.accept_task(task_id, WAITING)
            agent.engine.wait_printed(agent.container_of(task_id), b"before")
        proxy.close()
        eventually(lambda: agent.http.get("/readyz").status_code == 503, "not ready")
        unseen = agent.container_of("ends unseen")
        agent.engine.let_go(unseen)
        agent.engine.wait_ended(unseen)
        assert agent.post_task("meanwhile", "echo ran").json()["status"] == "pending"
        proxy.open()
        assert dashboard.result("ends unseen") == {"task_id": "ends unseen", **WAITED}
        assert dashboard.result("meanwhile")["output"] == "ran\n"
        agent.engine.let_go(agent.container_of("runs on"))
        assert dashboard.result("runs on") == {"task_id": "runs on", **WAITED}


def test_a_second_agent_on_one_state_directory_is_refused(dashboard: DashboardStub, tmp_path: Path) -> None:
    """It ends with exit code 78 and one sentence; the first one is not disturbed."""
    with AgentProcess(tmp_path / "one", dashboard.url, dashboard.token) as first:
        settings = {"AGP_STATE_DIR": first.state}
        second = AgentProcess(tmp_path / "two", dashboard.url, dashboard.token, settings)
        ended = subprocess.run(second.command, env=second.environment, capture_output=True, text=True, check=False)
        second.close()
        assert ended.returncode == 78
        assert ended.stderr == (
            f"agp-agent: {first.state}: another agent is running on this state directory; "
            "stop it, or give this one another AGP_STATE_DIR.\n"
        )
        first.accept_task("undisturbed", "echo ran")
        assert dashboard.result("undisturbed")["output"] == "ran\n"


def test_two_agents_on_one_engine_leave_each_other_alone(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Also where they have the same name: only what carries the state directory's own mark is ever touched."""
    settings = {"AGP_AGENT_ID": "twin"}
    with (
        AgentProcess(tmp_path / "one", dashboard.url, dashboard.token, settings) as one,
        AgentProcess(tmp_path / "two", dashboard.url, dashboard.token, settings) as two,
    ):
        assert one.instance != two.instance
        for agent in (one, two):
            agent.accept_task(f"of {agent.instance}", WAITING)
        containers = {agent.instance: agent.container_of(f"of {agent.instance}") for agent in (one, two)}
        for agent in (one, two):
            agent.engine.wait_printed(containers[agent.instance], b"before")
        one.kill()
        one.start()  # reconciles, and finds a container of the other's beside its own
        one.wait_audited("task adopted", task_id=f"of {one.instance}")
        assert two.engine.inspect(containers[two.instance])["State"]["Running"]
        for agent in (one, two):
            agent.engine.let_go(containers[agent.instance])
            task_id = f"of {agent.instance}"
            assert dashboard.result(task_id) == {"task_id": task_id, **WAITED}
            assert len(dashboard.deliveries(task_id)) == 1


def test_a_socket_that_was_made_anew_under_a_mount_ends_the_agent(dashboard: DashboardStub, tmp_path: Path) -> None:
    """As in a pod: the mount keeps the old file, so the agent says so and ends, and its next start goes on."""
    mounted = tmp_path / "docker.sock"
    mounted.touch()
    with OwnEngine() as own:
        own.start().load_runner_images()
        where = Path(own.docker_host.removeprefix("unix://"))
        agent = AgentProcess(
            tmp_path / "agent",
            dashboard.url,
            dashboard.token,
            {"DOCKER_HOST": f"unix://{mounted}", "AGP_WARM": 0},
            wrapper=with_bind(where, mounted),
            docker_host=own.docker_host,
        )
        with agent:
            own.stop()
            own.start()
            assert agent.wait() == 69
            assert "the engine has made its socket anew" in agent.log_text()
            agent.start()
            agent.accept_task("afterwards", "echo again\n")
            assert dashboard.result("afterwards")["output"] == "again\n"
