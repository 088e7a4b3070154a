"""The commands that ask a running agent, or its journal where none runs."""

import hashlib
import json
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import COMMAND, AgentProcess
from support.certificates import issue
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
    assert (again.returncode, "The task has ended already: cancelled." in again.stderr) == (1, True)


def test_older_tasks_are_reached_by_the_cursor_that_is_told(operator: Cli, agent: AgentProcess) -> None:
    """Page by page, each task once."""
    for number in (1, 2, 3):
        agent.accept_task(f"page {number}", "true\n")
    first = operator("tasks", "list", "--limit", "2")
    cursor = first.stderr.rpartition("--cursor ")[2].rstrip(".\n")
    second = operator("tasks", "list", "--limit", "1", "--cursor", cursor)
    told = [line.split("\t")[3] for line in (first.stdout + second.stdout).splitlines()]
    assert told == ["page 3", "page 2", "page 1"]


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


def test_a_follower_hears_that_its_agent_went_away(dashboard: DashboardStub, tmp_path: Path) -> None:
    """And goes on with the next one, without a repetition."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        settings = {"AGP_PORT": free.getsockname()[1]}
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
        agent.accept_task("follow me", WAITING)
        followed = subprocess.Popen(
            (COMMAND, "logs", "-f", "follow me"), env=agent.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert followed.stdout is not None
        assert followed.stderr is not None
        assert followed.stdout.readline() == b"before\n"
        agent.kill()
        assert b"does not answer any more" in followed.stderr.readline()
        agent.start()
        with EngineSide() as engine:
            engine.let_go(agent.container_of("follow me"))
        assert followed.communicate(timeout=60)[0] == b"after\n"
        assert followed.returncode == 0


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
        assert operator("logs", "kept").stdout == operator("logs", "-f", "kept").stdout == "still here\n"
        assert "outcome" in operator("tasks", "show", "kept").stdout
        alias = f"~{hashlib.sha256(b'kept').hexdigest()}"
        assert operator("logs", alias).stdout == "still here\n"
        assert json.loads(operator("tasks", "show", alias, "--json").stdout)["task_id"] == "kept"
        assert "outbox pending" in operator("status").stdout
        refused = operator("cancel", "kept")
        assert (refused.returncode, "`agp-agent serve` starts one" in refused.stderr) == (1, True)
    nothing = operator("tasks", "list", AGP_STATE_DIR=str(tmp_path / "none"))
    assert (nothing.returncode, "there is no journal" in nothing.stderr) == (78, True)


def test_a_journal_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    """Damaged, and older than the agent's tables: where the operator looks because the agent does not start."""
    operator = command_line(
        {"AGP_TOKEN": "a-token-that-is-long-enough", "AGP_STATE_DIR": str(tmp_path), "AGP_PORT": "9"}
    )
    journal = tmp_path / "journal.db"
    journal.write_bytes(b"no database at all" * 100)
    damaged = operator("tasks", "list")
    journal.unlink()
    sqlite3.connect(journal).execute("CREATE TABLE tasks (id)").connection.close()
    older = operator("status")
    for ended in (damaged, older):
        assert (ended.returncode, "Traceback" in ended.stderr) == (78, False)
        assert "the next start of the agent checks and mends it" in ended.stderr


def test_whoever_may_not_read_the_state_is_told(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Another user, without the agent's own rights: one sentence for the journal and one for the trail."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token) as agent:
        agent.stop()
        outside = command_line(agent.environment | {"AGP_PORT": "9"})
        unprivileged = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--")
        agent.state.chmod(0)  # without its capabilities root is a user like others
        for command in (("tasks", "list"), ("audit", "tail")):
            ended = outside(*command, wrapper=unprivileged)
            assert (ended.returncode == 0, "Traceback" in ended.stderr) == (False, False), ended.stderr
            assert "Permission denied" in ended.stderr
        agent.state.chmod(0o700)


def test_an_agent_behind_tls_is_known_by_its_certificate(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Whoever issued it, and for whatever name; another certificate is no agent that went away."""
    tls, other = tmp_path / "tls", tmp_path / "other"
    for folder in (tls, other):
        folder.mkdir()
        issue(folder, "192.0.2.1")
    settings = {"AGP_TLS_CERT_FILE": str(tls / "cert.pem"), "AGP_TLS_KEY_FILE": str(tls / "key.pem")}
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings, ready=False) as agent:
        operator = command_line(agent.environment | {"AGP_PORT": str(agent.port)})
        assert (operator("pause").returncode, operator("status").stderr) == (0, "")
        stranger = {"AGP_TLS_CERT_FILE": str(other / "cert.pem"), "AGP_TLS_KEY_FILE": str(other / "key.pem")}
        ended = operator("status", **stranger)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "has another certificate than the first one in AGP_TLS_CERT_FILE" in ended.stderr


def test_what_looks_like_the_end_of_a_line_is_followed(operator: Cli, agent: AgentProcess) -> None:
    """Separators of Unicode, which readers of lines split at, come through as they were printed."""
    agent.accept_task("separators", r"printf 'a\342\200\250b\342\200\251c\302\205d\n'")
    assert operator("logs", "-f", "separators").stdout == "a\u2028b\u2029c\x85d\n"
