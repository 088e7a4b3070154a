"""A catalog that is changed while the agent runs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import COMMAND, AgentProcess
from support.catalogs import shell_runner, write_catalog
from support.dashboard_stub import DashboardStub
from support.waiting import eventually


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """A catalog with one runner, which says hello."""
    return write_catalog(tmp_path / "catalog.yaml", {"greeter": greeter("hello")})


@pytest.fixture
def agent(dashboard: DashboardStub, tmp_path: Path, catalog: Path) -> Iterator[AgentProcess]:
    """An agent that runs one task at a time."""
    settings = {"AGP_CATALOG": catalog, "AGP_MAX_RUNNING": 1}
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings) as process:
        yield process


def greeter(word: str, suffix: str = ".greet") -> dict[str, object]:
    """A runner whose playbooks find this word."""
    return shell_runner(suffix, env={"WORD": word})


def greeting(agent: AgentProcess, dashboard: DashboardStub, task_id: str, name: str = "a.greet") -> str:
    """What a playbook finds now."""
    agent.accept_task(task_id, "echo $WORD", name)
    return str(dashboard.result(task_id)["output"])


def wait_loaded(agent: AgentProcess, number: int) -> None:
    """Return once so many catalogs were taken over, the first one included."""
    eventually(lambda: len(agent.audit("config loaded")) >= number or None, f"{number} catalogs")


def test_a_valid_change_is_in_force_for_tasks_accepted_from_then_on(
    agent: AgentProcess, dashboard: DashboardStub, catalog: Path
) -> None:
    """A task that was waiting keeps the runner it was accepted under, even where the catalog has it no more."""
    agent.accept_task("holder", "until [ -e /work/go ]; do sleep 0.05; done", "a.greet")
    container = agent.container_of("holder")
    agent.accept_task("accepted before", "echo $WORD", "a.greet")
    write_catalog(catalog, {"other": greeter("goodbye", ".other")})
    agent.wait_log("catalog in force", runners=["shell", "python", "ansible", "other"])
    agent.accept_task("accepted after", "echo $WORD", "a.other")
    agent.engine.let_go(container)
    assert dashboard.result("accepted before")["output"] == "hello\n"
    assert dashboard.result("accepted after")["output"] == "goodbye\n"
    agent.accept_task("nobody's", "echo $WORD", "a.greet")
    assert dashboard.result("nobody's")["error"].startswith("no runner for 'a.greet'; known runners: ")
    wait_loaded(agent, 2)


def test_an_invalid_change_is_loud_and_changes_nothing(
    agent: AgentProcess, dashboard: DashboardStub, catalog: Path
) -> None:
    """The old one stays in force and the agent ready; log and audit say what is wrong, and when it is well again."""
    catalog.write_text("runners: {greeter: {image: 5, comand: x}}")
    why = agent.wait_audited("agent degraded", part="catalog")["why"]
    for sentence in ("greeter, image: expected text.", "greeter, comand: is not a known key."):
        assert f"AGP_CATALOG: {catalog}: runner {sentence}" in why
    agent.wait_log("the changed catalog cannot be used; the one before stays in force")
    assert agent.http.get("/readyz").status_code == 200
    assert greeting(agent, dashboard, "under the old one") == "hello\n"
    catalog.unlink()
    eventually(lambda: "cannot be read: No such file" in agent.log_text(), "the missing file is told")
    write_catalog(catalog, {"greeter": greeter("mended")})
    agent.wait_audited("agent recovered", part="catalog")
    assert greeting(agent, dashboard, "under the new one") == "mended\n"


def test_a_link_that_is_swapped_is_a_change(dashboard: DashboardStub, tmp_path: Path) -> None:
    """As Kubernetes does it with a ConfigMap: the file's path stays, a folder's link leads elsewhere."""
    for version in ("hello", "goodbye"):
        (tmp_path / version).mkdir()
        write_catalog(tmp_path / version / "catalog.yaml", {"greeter": greeter(version)})
    data = tmp_path / "..data"
    data.symlink_to("hello")
    settings = {"AGP_CATALOG": data / "catalog.yaml"}
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings) as agent:
        assert greeting(agent, dashboard, "before the swap") == "hello\n"
        new = tmp_path / "..data_tmp"
        new.symlink_to("goodbye")
        new.replace(data)
        wait_loaded(agent, 2)
        assert greeting(agent, dashboard, "after the swap") == "goodbye\n"


def test_the_schema_is_printed(environment: dict[str, str]) -> None:
    """For editors and pipelines."""
    printed = subprocess.run(
        [COMMAND, "runners", "schema"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert '"additionalProperties": false' in printed
