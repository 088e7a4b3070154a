"""Rows 5 and 34: the agent dies while playbooks run, alone or with its machine; the next one tells how they ended."""

import uuid
from pathlib import Path
from typing import Final

from fault.conftest import StartWatched
from support.namespaces import with_bind
from support.own_engine import OwnEngine
from support.playbooks import WAITING

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def test_a_running_playbook_is_adopted(start_watched: StartWatched) -> None:
    """Row 5: the container runs on untouched; its exit code and its whole output arrive."""
    watched = start_watched()
    agent = watched.agent
    task_id = watched.send(WAITING)
    watched.neighbours()
    container = agent.container_of(task_id)
    agent.engine.wait_printed(container, b"before")
    agent.kill()
    agent.start()
    agent.wait_audited("task adopted", task_id=task_id)
    agent.engine.let_go(container)
    result = watched.check()[task_id]
    assert result["error"] == "exit code 7"
    assert result["output"].endswith("before\nafter\n")


def test_a_reboot(own_engine: OwnEngine, start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 34: after it, what had ended has its result, what ran or is gone is lost and never run again, the rest runs.

    Agent and engine end, no process of a container lives on, and the next agent sees another boot id.
    """
    watched = start_watched({"AGP_MAX_RUNNING": 3})
    agent = watched.agent
    ended, running, gone = (watched.send(WAITING) for _ in range(3))
    containers = [agent.container_of(task_id) for task_id in (ended, running, gone)]
    for container in containers:
        agent.engine.wait_printed(container, b"before")
    watched.neighbours()
    agent.kill()
    agent.engine.let_go(containers[0])
    agent.engine.wait_ended(containers[0])
    agent.engine.client.api.remove_container(containers[2], force=True)
    own_engine.stop()
    own_engine.start()
    (tmp_path / "boot_id").write_text(f"{uuid.uuid4()}\n")
    agent.command = (*with_bind(tmp_path / "boot_id", BOOT_ID), *agent.command)
    agent.start()
    assert Path(f"/proc/{agent.process.pid}/root{BOOT_ID}").read_text() != BOOT_ID.read_text()
    results = watched.check()
    assert results[ended]["error"] == "exit code 7"
    printed = results[ended]["output"].splitlines()[1:]
    # No engine is left that saw its end: a line may say that more than this may have been printed.
    assert [line for line in printed if not line.startswith("[agp-agent: ")] == ["before", "after"]
    assert results[running]["error"].startswith("lost: the container engine")
    assert "\nbefore\n" in results[running]["output"]
    assert results[gone]["error"] == "lost: its container is gone, and nobody saw how it ended"
