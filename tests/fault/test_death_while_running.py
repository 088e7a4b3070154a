"""The agent dies while playbooks run: the containers do not notice, and the next agent tells how they ended."""

from fault.conftest import StartWatched

WAITING = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\nexit 7\n"


def test_a_running_playbook_is_adopted(start_watched: StartWatched) -> None:
    """The container runs on untouched; its exit code and its whole output arrive."""
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
