"""Row 12: what is below the engine dies: its containerd, or the shim that holds a container."""

from pathlib import Path
from typing import Final

from fault.conftest import StartWatched
from support.doomed import UNTIL_LET_GO
from support.ledger import LOST_WITH_ENGINE
from support.own_engine import SHELL_IMAGE, OwnEngine

TIMEOUT_S: Final = 5
TIMED_OUT: Final = f"timed out after {TIMEOUT_S} s"
CATALOG: Final = f"""
runners:
  shell:
    image: {SHELL_IMAGE}
    match: {{suffixes: [.sh]}}
    command: [agp-shell, "{{playbook}}"]
  short:
    image: {SHELL_IMAGE}
    match: {{suffixes: [.short]}}
    command: [agp-shell, "{{playbook}}"]
    timeout_s: {TIMEOUT_S}
"""
"""``.short`` playbooks have a deadline that may be over before containerd is back."""
FOREVER: Final = "echo before\nwhile :; do sleep 0.05; done\n"
SOON: Final = "echo before\nsleep 2\necho after\n"
BY_ITSELF: Final = "echo before\nkill -KILL $$\n"


def test_a_container_whose_shim_died_is_lost_with_its_engine(
    own_engine: OwnEngine, start_watched: StartWatched
) -> None:
    """Row 12: it is told from a playbook that a signal ended, though both leave exit code 137."""
    watched = start_watched({"AGP_TASK_TIMEOUT_S": 300})
    agent = watched.agent
    held, by_itself = watched.send(FOREVER), watched.send(BY_ITSELF)
    container = agent.container_of(held)
    agent.engine.wait_printed(container, b"before")
    own_engine.kill_shim(container)
    watched.neighbours()
    results = watched.check()
    assert agent.wait_audited("task lost", task_id=held)["reason"] == "engine_lost"
    assert results[held]["output"].endswith("before\n")
    assert results[by_itself]["error"] == "exit code 137 (SIGKILL)"


def test_while_containerd_is_away_nothing_hangs_and_nothing_fails(
    own_engine: OwnEngine, start_watched: StartWatched, tmp_path: Path
) -> None:
    """Row 12: what runs runs on and ends as it would; deadlines hold when containerd is back; what comes waits.

    Of what ended without containerd dockerd may never hear: that is noticed at its deadline at the latest.
    """
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    watched = start_watched({"AGP_TASK_TIMEOUT_S": 300, "AGP_CATALOG": tmp_path / "catalog.yaml"})
    agent = watched.agent
    held = watched.send(UNTIL_LET_GO, ends_well=True)
    for task_id, script in (("overdue", FOREVER), ("ended meanwhile", SOON)):
        agent.accept_task(task_id, script, "playbook.short")
        watched.note(task_id)
    for task_id in (held, "overdue", "ended meanwhile"):
        agent.engine.wait_printed(agent.container_of(task_id), b"before")
    own_engine.kill_containerd()
    neighbours = watched.neighbours()
    agent.wait_audited("task requeued")  # the first of them that found no container waiting
    watched.dashboard.result(neighbours[-1])  # containerd is back
    agent.engine.let_go(agent.container_of(held))
    results = watched.check()
    assert results[held]["output"].endswith("before\nafter\n")
    assert results["overdue"]["error"] == TIMED_OUT
    assert results["ended meanwhile"]["error"] in {None, TIMED_OUT, LOST_WITH_ENGINE}
    assert results["ended meanwhile"]["output"] == "before\nafter\n"
