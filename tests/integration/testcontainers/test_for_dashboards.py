"""What those who write a dashboard copy into their own suite: the agent's image, driven by ``agp_agent.testing``."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config

from agp_agent.models import TaskStatus
from agp_agent.testing import AgentContainer, ResultInbox
from support.engine_side import EngineSide
from support.waiting import eventually


@pytest.fixture(scope="module")
def inbox() -> Iterator[ResultInbox]:
    """Where results arrive, in place of a dashboard."""
    with ResultInbox() as inbox:
        yield inbox


@pytest.fixture(scope="module", autouse=True)
def _without_ryuk() -> None:
    """Everything is removed here, and asserted to be."""
    testcontainers_config.ryuk_disabled = True


@pytest.fixture(scope="module")
def agent(inbox: ResultInbox, engine: EngineSide) -> Iterator[AgentContainer]:
    """One agent for all tests of this file; nothing of it or of its tasks is left."""
    with AgentContainer(inbox.url, inbox.token, environment={"AGP_WARM": "0", "AGP_MAX_RUNNING": "2"}) as agent:
        yield agent
    assert engine.purge(agent.agent_id, label="agp.agent_id") == []
    assert agent.agent_id not in [volume.name for volume in engine.client.volumes.list()]


def test_a_task_runs_and_its_result_arrives(agent: AgentContainer, inbox: ResultInbox) -> None:
    """The main job, as a dashboard sees it."""
    answer = agent.send("hello", "echo hello\n", name="hello.sh")
    assert (answer.status, answer.body) == (
        202,
        {"message": "Task execution started", "task_id": "hello", "status": "running"},
    )
    result = inbox.wait("hello")
    assert (result.status, result.output, result.error) == (TaskStatus.COMPLETED, "hello\n", None)


def test_a_failure_is_told_with_its_exit_code(agent: AgentContainer, inbox: ResultInbox) -> None:
    """What a dashboard shows to the author of a playbook."""
    assert agent.send("fails / 1", "echo no; exit 3\n").status == 202
    result = inbox.wait("fails / 1")
    assert (result.status, result.error) == (TaskStatus.FAILED, "exit code 3")
    assert agent.task("fails / 1")["exit_code"] == 3


def test_an_unknown_task_is_an_error(agent: AgentContainer) -> None:
    """The agent's own endpoints answer as they do to operators."""
    assert agent.get("/tasks/never%20sent").json() == {"detail": "There is no task with this id."}


def test_an_agent_that_cannot_start_says_why(inbox: ResultInbox, engine: EngineSide) -> None:
    """The helper fails with the agent's own message, and leaves nothing."""
    wrong = AgentContainer(inbox.url, inbox.token, environment={"AGP_NO_SUCH_SETTING": "1"})
    with pytest.raises(TimeoutError, match="AGP_NO_SUCH_SETTING"):
        wrong.start()
    assert wrong.agent_id not in [volume.name for volume in engine.client.volumes.list()]
    assert engine.purge(wrong.agent_id, label="agp.agent_id") == []


def test_it_runs_for_a_user_who_is_not_root(inbox: ResultInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As most developers are: the volume of its own belongs to the image's user, whoever asks for it."""
    for call in ("getuid", "geteuid", "getgid"):
        monkeypatch.setattr(os, call, lambda: 4711)
    with AgentContainer(inbox.url, inbox.token, environment={"AGP_WARM": "0"}) as agent:
        assert agent.send("not root", "echo hello\n").status == 202
        assert inbox.wait("not root").output == "hello\n"


def test_without_the_engines_socket_its_group_is_asked_for(inbox: ResultInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is elsewhere, and nobody here knows whose its socket is."""
    monkeypatch.setattr("agp_agent.testing.SOCKET", "/nowhere/docker.sock")
    with pytest.raises(ValueError, match="give socket_group"):
        AgentContainer(inbox.url, inbox.token)
    AgentContainer(inbox.url, inbox.token, socket_group=999)


def test_the_documented_suite_runs(tmp_path: Path) -> None:
    """docs/testing.md, as somebody copies it."""
    page = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    (tmp_path / "test_dashboard.py").write_text(page.split("```python\n")[1].split("```")[0])
    command = (sys.executable, "-m", "pytest", "--quiet", "--rootdir", str(tmp_path), str(tmp_path))
    environment = {"PATH": os.environ["PATH"], "TESTCONTAINERS_RYUK_DISABLED": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_task_that_still_runs_goes_with_its_agent(inbox: ResultInbox, engine: EngineSide) -> None:
    """Its agent would leave it to the next one on the same state; here there is none."""
    with AgentContainer(inbox.url, inbox.token, environment={"AGP_WARM": "0", "AGP_DRAIN_TIMEOUT_S": "1"}) as agent:
        assert agent.send("long", "echo begun; sleep 3000\n", name="long.sh").status == 202
        eventually(lambda: engine.containers(agent.agent_id, label="agp.agent_id"), "it runs")
    assert engine.purge(agent.agent_id, label="agp.agent_id") == []
    assert agent.agent_id not in [volume.name for volume in engine.client.volumes.list()]


def test_an_image_that_is_not_there_is_told_and_never_pulled(inbox: ResultInbox, engine: EngineSide) -> None:
    """Whoever owns its name in a registry would get the engine's socket."""
    missing = AgentContainer(inbox.url, inbox.token, image="agp-test/nowhere:0")
    with pytest.raises(LookupError, match=r"has no image agp-test/nowhere:0: `make images` builds it.*never pulled"):
        missing.start()
    assert missing.agent_id not in [volume.name for volume in engine.client.volumes.list()]
