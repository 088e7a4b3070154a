"""The commands that ask a running agent, or its journal where none runs."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import COMMAND, AgentProcess
from support.cli import Cli, command_line
from support.dashboard_stub import DashboardStub, Reply
from support.engine_side import EngineSide
from support.playbooks import WAITING
from support.waiting import eventually


@pytest.fixture(scope="module")
def agent(folder: Path, dashboard: DashboardStub) -> Iterator[AgentProcess]:
    """A running agent, at a port of its own."""
    with AgentProcess(folder, dashboard.url, dashboard.token, {"AGP_WARM": 0}) as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Cli:
    """A command line with the agent's own settings."""
    return command_line(agent.environment | {"AGP_PORT": str(agent.port), "COLUMNS": "160"})


def test_tasks_are_listed_shown_and_read(operator: Cli, agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Plain lines with tabs where a program reads them; JSON where it is asked for."""
    agent.accept_task("deploy 42/é", "echo done; exit 3\n")
    dashboard.result("deploy 42/é")
    eventually(lambda: "acknowledged" in operator("tasks", "list").stdout, "acknowledged")
    line = operator("tasks", "list", "--outcome", "failed").stdout.splitlines()[0].split("\t")
    assert line[1:] == ["failed", "acknowledged", "deploy 42/é", "exit code 3"]
    listed = json.loads(operator("tasks", "list", "--json", "--limit", "1").stdout)
    assert [one["task_id"] for one in listed["tasks"]] == ["deploy 42/é"]
    shown = dict(line.split("  ", 1) for line in operator("tasks", "show", "deploy 42/é").stdout.splitlines())
    assert (shown["exit_code"].strip(), shown["delivery attempts"].strip()) == ("3", "1")
    assert json.loads(operator("tasks", "show", "deploy 42/é", "--json").stdout)["outcome"] == "failed"
    assert operator("logs", "deploy 42/é").stdout == "done\n"


def test_a_running_task_is_followed_and_cancelled(
    operator: Cli, agent: AgentProcess, engine: EngineSide, dashboard: DashboardStub
) -> None:
    """As `docker logs -f` does, and how it ended on stderr."""
    agent.accept_task("followed", WAITING)
    engine.wait_printed(agent.container_of("followed"), b"before")
    following = subprocess.Popen(
        (COMMAND, "logs", "-f", "followed"),
        env=agent.environment | {"AGP_PORT": str(agent.port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "before\n"
    assert operator("cancel", "followed").stdout == "Task is being cancelled\n"
    rest, said = following.communicate(timeout=90)
    assert (rest, said, following.returncode) == ("", "agp-agent: cancelled\n", 0)
    assert dashboard.result("followed")["error"] == "cancelled"
    again = operator("cancel", "followed")
    assert (again.returncode, "no task with this id that is waiting or running" in again.stderr) == (1, True)


def test_dead_letters_are_listed_delivered_and_dropped(
    operator: Cli, agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """Giving one up is asked for twice."""
    for task_id in ("first", "second"):
        dashboard.script(task_id, Reply(400, b'{"detail":"no"}'))
        agent.accept_task(task_id, "true")
        eventually(lambda task_id=task_id: task_id in operator("outbox", "list").stdout, "a dead letter")  # type: ignore[misc]
    assert operator("outbox", "retry").returncode == 2
    assert operator("outbox", "retry", "first").stdout == "The result is being delivered\n"
    assert dashboard.acknowledged("first").result["status"] == "completed"
    refused = operator("outbox", "drop", "second", stdin="n\n")
    assert (refused.returncode, "second" in operator("outbox", "list").stdout) == (1, True)
    assert operator("outbox", "drop", "second", "--yes").stdout == "The result is forgotten\n"
    assert operator("outbox", "list").stdout == ""
    assert operator("outbox", "retry", "--all").stdout == "0 dead letters are being delivered\n"


def test_the_agent_is_paused_and_tells_how_it_is(operator: Cli) -> None:
    """The same words as the endpoints have."""
    assert operator("pause").stdout.startswith("Paused")
    found = operator("status")
    assert found.returncode == 0
    assert "paused               True\n" in found.stdout
    assert operator("resume").stdout == "Tasks are started again\n"
    assert json.loads(operator("status", "--json").stdout)["paused"] is False


def test_what_is_wrong_is_one_sentence(operator: Cli, agent: AgentProcess, tmp_path: Path) -> None:
    """Unknown tasks, a wrong token, a token file that is a directory; a pipe that closes ends quietly."""
    for command in (("tasks", "show", "never"), ("logs", "never"), ("logs", "-f", "never")):
        ended = operator(*command)
        assert (ended.returncode, ended.stderr) == (1, "agp-agent: There is no task with this id.\n")
    wrong = operator("status", AGP_TOKEN="another-token-than-that")
    assert (wrong.returncode, wrong.stderr) == (1, "agp-agent: The bearer token is missing or invalid.\n")
    folder = operator("status", AGP_TOKEN="", AGP_TOKEN_FILE=str(tmp_path))
    assert (folder.returncode, "Traceback" in folder.stderr) == (78, False)
    environment = agent.environment | {"AGP_PORT": str(agent.port)}
    piped = subprocess.run(
        ("sh", "-c", f"{COMMAND} tasks list | true"), env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in piped.stderr


def test_without_an_agent_the_journal_is_read(dashboard: DashboardStub, tmp_path: Path) -> None:
    """It says so; what only a running agent can do is refused."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token) as agent:
        agent.accept_task("kept", "echo still here\n")
        dashboard.result("kept")
        eventually(lambda: agent.request("GET", "/tasks?delivery=pending").json()["tasks"] == [], "acknowledged")
        agent.stop()
        operator = command_line(agent.environment | {"AGP_PORT": str(agent.port)})
        shown = operator("tasks", "list")
        assert "\tkept\t" in shown.stdout
        assert f"no agent answers at http://127.0.0.1:{agent.port}" in shown.stderr
        assert "This is what its journal says:" in shown.stderr
        assert operator("logs", "kept").stdout == "still here\n"
        assert "outcome" in operator("tasks", "show", "kept").stdout
        assert "outbox pending" in operator("status").stdout
        refused = operator("cancel", "kept")
        assert (refused.returncode, "`agp-agent serve` starts one" in refused.stderr) == (1, True)
    nothing = operator("tasks", "list", AGP_STATE_DIR=str(tmp_path / "none"))
    assert (nothing.returncode, "there is no journal" in nothing.stderr) == (78, True)
