"""Row 9: the engine dies, or is stopped, while playbooks run; whether they live on is its operator's choice."""

from collections.abc import Callable
from typing import Final

import pytest

from fault.conftest import StartWatched
from support.ledger import LOST_WITH_ENGINE
from support.own_engine import OwnEngine
from support.waiting import eventually

COUNTING: Final = """\
number=0
until [ -e /work/go ]; do number=$((number + 1)); echo "line $number"; sleep 0.02; done
echo "last line $number"
exit 7
"""
FLOOD: Final = """\
until [ -e /work/go ]; do number=${next:-1}; next=$((number + 20000)); seq $number $((next - 1)); sleep 0.05; done
"""
"""Numbers without end, far more than an engine passes on at once."""
POLITE: Final = "trap 'exit 0' TERM\necho before\nwhile :; do sleep 0.05; done\n"
"""Ends well when it is told to end: what it would have done is not done all the same."""

ENDS: Final[dict[str, Callable[[OwnEngine], object]]] = {"SIGKILL": OwnEngine.kill, "SIGTERM": OwnEngine.stop}


@pytest.mark.parametrize("way", ENDS)
def test_with_live_restore_the_result_is_the_same(own_engine: OwnEngine, start_watched: StartWatched, way: str) -> None:
    """Row 9: containers live on without their engine; output and exit code are those of an undisturbed run.

    Where the engine forgot how a playbook ended without it, that is told, never made up.
    """
    own_engine.restart(live_restore=True)
    watched = start_watched({"AGP_TASK_TIMEOUT_S": 300})
    agent = watched.agent
    counting, ending = watched.send(COUNTING), watched.send("echo before\nsleep 2\necho after\n")
    container = agent.container_of(counting)
    for task_id, text in ((counting, b"line 5\n"), (ending, b"before")):
        agent.engine.wait_printed(agent.container_of(task_id), text)
    ENDS[way](own_engine)
    eventually(lambda: agent.http.get("/readyz").status_code == 503, "not ready")
    waiting = watched.neighbours()
    ends = agent.container_of(ending)
    eventually(lambda: not own_engine.processes_of(ends), "the end of a playbook without its engine")
    own_engine.start(live_restore=True)
    watched.dashboard.result(waiting[0])  # what ends before the agent looks again may be said to have a gap
    agent.engine.let_go(container)
    results = watched.check()
    assert results[ending]["error"] in {None, LOST_WITH_ENGINE}
    assert results[ending]["output"].endswith(("before\nafter\n", "bytes omitted]\n"))
    assert results[counting]["error"] == "exit code 7"
    lines = results[counting]["output"].splitlines()[1:]
    assert lines[:-1] == [f"line {number}" for number in range(1, len(lines))]
    assert lines[-1] == f"last line {len(lines) - 1}"


@pytest.mark.parametrize("way", ["SIGKILL", pytest.param("SIGTERM", marks=pytest.mark.campaign)])
def test_a_flood_that_the_engine_took_along_is_said_to_be_missing(
    own_engine: OwnEngine, start_watched: StartWatched, way: str
) -> None:
    """Row 9: what died inside the engine cannot be had back; the output is never short without saying so."""
    own_engine.restart(live_restore=True)
    watched = start_watched({"AGP_TASK_TIMEOUT_S": 300, "AGP_OUTPUT_LIMIT_BYTES": 64 * 2**20})
    agent = watched.agent
    flood = watched.send(FLOOD)
    container = agent.container_of(flood)
    api = agent.engine.client.api
    eventually(lambda: len(bytes(api.logs(container, tail=1)).strip()) == len("60000"), "a flood")
    ENDS[way](own_engine)
    own_engine.start(live_restore=True)
    watched.neighbours()
    agent.engine.let_go(container)
    result = watched.check()[flood]
    assert result["status"] == "completed"
    before, gap, after = result["output"].partition("[agp-agent: ")
    numbers = [int(line) for line in before.splitlines()[1:-1]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    assert gap, f"nothing is said to be missing behind line {len(numbers)}"
    assert "bytes omitted]" in after


@pytest.mark.parametrize("way", ENDS)
def test_without_live_restore_it_is_told_so(own_engine: OwnEngine, start_watched: StartWatched, way: str) -> None:
    """Row 9: what the engine took along failed with engine_lost, even where the playbook ended by exit code 0."""
    watched = start_watched({"AGP_TASK_TIMEOUT_S": 300})
    agent = watched.agent
    tasks = [watched.send(COUNTING), watched.send(POLITE)]
    containers = [agent.container_of(task_id) for task_id in tasks]
    for container, text in zip(containers, (b"line 5\n", b"before"), strict=True):
        agent.engine.wait_printed(container, text)
    ENDS[way](own_engine)
    watched.neighbours()
    own_engine.start()
    results = watched.check()
    for task_id, printed in zip(tasks, ("line 5\n", "before\n"), strict=True):
        assert printed in results[task_id]["output"]
        assert agent.wait_audited("task lost", task_id=task_id)["reason"] == "engine_lost", results[task_id]
