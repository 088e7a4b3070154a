"""Row 12: what is below the engine dies: its containerd, or the shim that holds a container."""

from typing import Final

from fault.conftest import StartWatched
from support.own_engine import OwnEngine

TIMEOUT_S: Final = 10
"""Longer than a busy machine is without its containerd: what ends meanwhile must not be overdue when it is back."""
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
    own_engine: OwnEngine, start_watched: StartWatched
) -> None:
    """Row 12: what runs runs on and ends as it would; deadlines hold when containerd is back; what comes waits."""
    watched = start_watched({"AGP_TASK_TIMEOUT_S": TIMEOUT_S})
    agent = watched.agent
    overdue, ended_meanwhile = watched.send(FOREVER), watched.send(SOON, ends_well=True)
    for task_id in (overdue, ended_meanwhile):
        agent.engine.wait_printed(agent.container_of(task_id), b"before")
    own_engine.kill_containerd()
    neighbours = watched.neighbours()
    agent.wait_audited("task requeued", task_id=neighbours[0])
    results = watched.check()
    assert results[overdue]["error"] == f"timed out after {TIMEOUT_S} s"
    assert results[ended_meanwhile]["output"].endswith("before\nafter\n")
