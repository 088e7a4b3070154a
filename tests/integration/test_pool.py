"""Containers that wait on the real engine: each serves one task, and nothing that hits one loses or doubles a task."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

Start = Callable[..., AgentProcess]


@pytest.fixture
def start(dashboard: DashboardStub, tmp_path: Path) -> Iterator[Start]:
    """Start agents; after a test that passed, nothing of any of them may be left."""
    agents: list[AgentProcess] = []

    def start(**settings: object) -> AgentProcess:
        settings = {"AGP_WARM": 1, "AGP_WARM_BEFORE_READY": "true"} | settings
        agents.append(AgentProcess(tmp_path / f"agent{len(agents)}", dashboard.url, dashboard.token, settings))
        return agents[-1].start()

    yield start
    ends = [agent.close() for agent in agents]
    assert ends == [(0, [])] * len(ends)


def warm(agent: AgentProcess, runner: str = "shell") -> dict[str, int]:
    """How it stands with a runner's warm containers."""
    status: dict[str, Any] = agent.request("GET", "/status").json()["runners"][runner]["warm"]
    return status


def filled(agent: AgentProcess, runner: str = "shell") -> Container:
    """Wait until those of a runner wait; return the oldest of them."""

    def look() -> Container | None:
        status = warm(agent, runner)
        found = [one for one in agent.engine.containers(agent.instance) if one.labels.get("agp.runner") == runner]
        return found[0] if status["ready"] == status["wanted"] == len(found) else None

    found = eventually(look, f"warm containers of {runner}")
    assert found is not None
    return found


def run(agent: AgentProcess, dashboard: DashboardStub, task_id: str, script: str = "echo hi\n") -> str:
    """Run a task that ends well; return the id of its container."""
    agent.accept_task(task_id, script)
    result = dashboard.result(task_id)
    assert (result["status"], result["output"]) == ("completed", "hi\n"), result
    return agent.container_of(task_id)


def test_forty_tasks_have_forty_containers(start: Start, dashboard: DashboardStub) -> None:
    """In order and at once, some warm and some not: none serves two."""
    agent = start(AGP_WARM=2, AGP_MAX_RUNNING=4)
    filled(agent)
    for number in range(20):
        run(agent, dashboard, f"one by one {number}")
    for number in range(20):
        agent.accept_task(f"at once {number}", "echo hi\n")
    for number in range(20):
        dashboard.result(f"at once {number}")
    used = Counter(line["container_id"] for line in agent.log_lines("task started") if line["event"] == "task started")
    assert (len(used), set(used.values())) == (40, {1})
    status = warm(agent)
    assert status["hits"] + status["misses"] == 40
    assert status["hits"] >= 2


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_a_thousand_tasks_have_a_thousand_containers(start: Start, dashboard: DashboardStub) -> None:
    """In bursts, each into a pool that is full again or not: every container's id served one task."""
    agent = start(AGP_WARM=4, AGP_MAX_RUNNING=6)
    for burst in range(100):
        if burst % 2:
            filled(agent)
        tasks = [f"{burst}/{number}" for number in range(10)]
        for task_id in tasks:
            agent.accept_task(task_id, "echo hi\n")
        for task_id in tasks:
            assert dashboard.result(task_id)["output"] == "hi\n"
    used = Counter(line["container_id"] for line in agent.log_lines("task started") if line["event"] == "task started")
    assert (len(used), set(used.values())) == (1000, {1})
    assert warm(agent)["hits"] >= 200
    assert warm(agent)["misses"] > 0


def test_every_built_in_runner_has_one(start: Start, dashboard: DashboardStub) -> None:
    """The first task of each runs in the container that waited for it."""
    agent = start()
    playbooks = {
        "shell": ("a.sh", "echo hi\n"),
        "python": ("a.py", "print('hi')\n"),
        "ansible": ("a.yml", "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - debug: {msg: hi}\n"),
    }
    for runner, (name, content) in playbooks.items():
        waiting = filled(agent, runner)
        agent.accept_task(runner, content, name)
        assert dashboard.result(runner)["status"] == "completed"
        assert agent.container_of(runner) == waiting.id


@pytest.mark.parametrize("fate", ["kill", "remove", "pause"])
def test_one_that_is_disturbed_is_not_used(start: Start, dashboard: DashboardStub, fate: str) -> None:
    """An operator kills, removes or pauses it: another takes its place, and the task never hears of it."""
    agent = start()
    waiting = filled(agent)
    with contextlib.suppress(Exception):
        waiting.remove(force=True) if fate == "remove" else getattr(waiting, fate)()
    if fate == "pause":  # nothing tells of it but the engine's event: a task that came first would wait in it
        agent.engine.wait_removed(str(waiting.id))
    assert run(agent, dashboard, f"after {fate}") != waiting.id
    agent.engine.wait_removed(str(waiting.id))
    assert filled(agent).id != waiting.id


def test_a_killed_agent_leaves_none_that_runs(start: Start, dashboard: DashboardStub) -> None:
    """Their stdin closes with it; the next agent removes them and fills its own pool."""
    agent = start(AGP_WARM=2)
    before = {one.id for one in agent.engine.containers(agent.instance)}
    agent.kill()
    eventually(lambda: not agent.engine.containers(agent.instance, running=True), "all have ended")
    agent.start()
    filled(agent)
    assert not before & {one.id for one in agent.engine.containers(agent.instance)}
    run(agent, dashboard, "after a kill")


def test_an_agent_that_is_killed_while_it_fills_leaves_nothing(start: Start, tmp_path: Path) -> None:
    """At any moment of a fill: what is half made is removed at the next start."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(_catalog("32MiB, warm: 30"))
    agent = start(AGP_WARM=0, AGP_WARM_BEFORE_READY="false", AGP_CATALOG=catalog)
    for number in (1, 4, 7):
        eventually(lambda: len(agent.engine.containers(agent.instance)) >= number, "being filled")  # noqa: B023
        agent.kill()
        agent.start()


def test_a_catalog_that_changes_changes_what_waits(start: Start, dashboard: DashboardStub, tmp_path: Path) -> None:
    """The next task has the limits of the new one; an image whose tag moves is seen too."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(_catalog("64MiB"))
    agent = start(AGP_CATALOG=catalog)
    image = agent.engine.client.images.get("agp/runner-shell:0.2.0")
    old = filled(agent)
    catalog.write_text(_catalog("96MiB"))
    eventually(lambda: filled(agent).id != old.id, "replaced")
    container = run(agent, dashboard, "other limits")
    lines = [line for line in agent.audit("task started") if line["container_id"] == container]
    assert len(lines) == 1
    assert filled(agent).attrs["HostConfig"]["Memory"] == 96 * 2**20
    assert image.id == filled(agent).attrs["Image"]


def _catalog(memory: str) -> str:
    shell = 'image: "agp/runner-shell:0.2.0", match: {suffixes: [.sh]}, command: [agp-shell, "{playbook}"]'
    return f"runners:\n  shell: {{{shell}, pull: never, memory: {memory}}}\n"


def test_a_tag_that_moves_changes_what_waits(start: Start, dashboard: DashboardStub, tmp_path: Path) -> None:
    """What waits is of the old image: it is replaced within seconds."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        _catalog("64MiB").replace("agp/runner-shell:0.2.0", "agp-test/moving:1").replace("agp-shell", "sh")
    )
    shell, other = "agp/runner-shell:0.2.0", "agp/runner-python:0.2.0"
    with contextlib.ExitStack() as stack:
        agent: AgentProcess | None = None
        images = stack.enter_context(_client()).images
        images.get(shell).tag("agp-test/moving", "1")
        stack.callback(lambda: images.remove("agp-test/moving:1", force=True))
        agent = start(AGP_CATALOG=catalog)
        old = filled(agent)
        images.get(other).tag("agp-test/moving", "1")
        eventually(lambda: filled(agent).id != old.id, "replaced")
        assert filled(agent).attrs["Image"] == images.get(other).id
        run(agent, dashboard, "of the new image")
        agent.stop()


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    import docker  # noqa: PLC0415

    client = docker.from_env()
    try:
        yield client
    finally:
        client.close()


def test_none_waits_where_none_is_wanted(start: Start, dashboard: DashboardStub) -> None:
    """AGP_WARM=0: as without a pool."""
    agent = start(AGP_WARM=0)
    assert warm(agent) == {"wanted": 0, "ready": 0, "hits": 0, "misses": 0}
    run(agent, dashboard, "cold")
    eventually(lambda: agent.engine.containers(agent.instance) == [], "nothing left")


def test_an_old_one_is_replaced(start: Start) -> None:
    """After its age."""
    agent = start(AGP_WARM_MAX_AGE_S=2)
    old = filled(agent)
    agent.engine.wait_removed(str(old.id))
    assert filled(agent).id != old.id


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"AGP_WARM": 3, "AGP_UID_RANGE": "20000-20008"}, "need 9 and a task that runs needs 1"),
        ({"AGP_WARM": 1000, "AGP_UID_RANGE": "20000-25000"}, "of the memory of the engine's host are"),
    ],
)
def test_more_than_the_machine_holds_is_refused(
    dashboard: DashboardStub, tmp_path: Path, settings: dict[str, object], sentence: str
) -> None:
    """With the arithmetic, and exit code 78: at the start, or at the first contact where only that can tell."""
    agent = AgentProcess(tmp_path, dashboard.url, dashboard.token, settings)
    with contextlib.suppress(AssertionError):
        agent.start(ready=False)
    assert agent.wait() == 78
    assert sentence in agent.log_text()
    agent.http.close()
    agent.engine.close()
