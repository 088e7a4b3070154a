"""Row 13: an operator lays hands on what the agent made, with the engine's own commands."""

from typing import Final

from fault.conftest import StartWatched
from support.own_engine import SHELL_IMAGE, OwnEngine
from support.playbooks import WAITING

TIMEOUT_S: Final = 6
FOREVER: Final = "echo before\nwhile :; do sleep 0.05; done\n"


def test_what_an_operator_does_to_a_running_container_is_told(start_watched: StartWatched) -> None:
    """Row 13: killed: told so, with the output so far; removed: lost; paused: the deadline still counts."""
    watched = start_watched({"AGP_TASK_TIMEOUT_S": TIMEOUT_S})
    engine = watched.agent.engine
    tasks = {hand: watched.send(FOREVER) for hand in ("kill", "rm", "pause")}
    containers = {hand: watched.agent.container_of(task_id) for hand, task_id in tasks.items()}
    for container in containers.values():
        engine.wait_printed(container, b"before")
    engine.client.api.pause(containers["pause"])
    engine.client.api.kill(containers["kill"])
    engine.client.api.remove_container(containers["rm"], force=True)
    watched.neighbours()
    results = watched.check()
    told = {hand: results[task_id] for hand, task_id in tasks.items()}
    assert told["kill"]["error"] == "killed from outside"
    assert told["rm"]["error"] in {"lost: the container was removed from outside", "killed from outside"}
    assert told["pause"]["error"] == f"timed out after {TIMEOUT_S} s"
    assert [told[hand]["output"].splitlines()[1:] for hand in ("kill", "pause")] == [["before"]] * 2
    assert "\nbefore\n" in told["rm"]["output"]


def test_an_engine_that_is_tidied_up_takes_no_running_task_along(
    own_engine: OwnEngine, start_watched: StartWatched
) -> None:
    """Row 13: a prune of everything leaves what runs alone; a removed image is told, and used again when it is back."""
    # One that waits would still be of the image, in the moment in which it is removed.
    watched = start_watched({"AGP_TASK_TIMEOUT_S": 300, "AGP_WARM": 0})
    agent = watched.agent
    client = agent.engine.client
    running = watched.send(WAITING)
    container = agent.container_of(running)
    agent.engine.wait_printed(container, b"before")
    image = client.images.get(SHELL_IMAGE)
    for prune in (client.containers.prune, client.networks.prune, client.volumes.prune):
        prune()
    client.images.prune({"dangling": False})
    agent.engine.let_go(container)
    watched.dashboard.result(running)
    image.tag("agp/kept", "1")
    client.images.remove(SHELL_IMAGE, force=True)
    try:
        missing = watched.send("echo never\n")
        watched.dashboard.result(missing)
    finally:
        repository, _, tag = SHELL_IMAGE.partition(":")
        image.tag(repository, tag)
        client.images.remove("agp/kept:1")
    agent.wait_ready()
    watched.neighbours()
    results = watched.check()
    assert results[running]["error"] == "exit code 7"
    assert results[running]["output"].endswith("before\nafter\n")
    assert results[missing]["error"].startswith(f"image {SHELL_IMAGE} is not available: ")
    assert agent.wait_audited("task finished", task_id=missing)["reason"] == "image_unavailable"
    assert own_engine.answers()
