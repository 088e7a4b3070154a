"""Row 10: there is no engine, at the agent's start or later, for a long while."""

import threading
from typing import Final

import pytest

from fault.conftest import StartWatched
from support.ledger import Ledger
from support.own_engine import OwnEngine
from support.waiting import eventually

QUEUE: Final = 10
WAITING: Final = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\n"


def test_an_engine_that_is_absent_at_the_start_is_waited_for(
    own_engine: OwnEngine, start_watched: StartWatched
) -> None:
    """Row 10: not ready, tasks accepted up to the queue's limit, the next is refused; all run when it is there."""
    watched = start_watched({"AGP_MAX_QUEUED": QUEUE})
    watched.agent.stop()
    own_engine.stop()
    watched.agent.start(ready=False)
    _fill_the_queue(watched)
    own_engine.start()
    watched.agent.wait_ready()
    assert [result["output"].splitlines()[1:] for result in watched.check().values()] == [["ran"]] * QUEUE


@pytest.mark.parametrize("absent_s", [2.0, pytest.param(600.0, marks=(pytest.mark.campaign, pytest.mark.timeout(900)))])
def test_an_engine_that_is_absent_for_a_while_is_waited_for(
    own_engine: OwnEngine, start_watched: StartWatched, absent_s: float
) -> None:
    """Row 10: the same while the agent runs; what ran runs on, and everything resumes by itself."""
    own_engine.restart(live_restore=True)
    watched = start_watched({"AGP_MAX_QUEUED": QUEUE, "AGP_TASK_TIMEOUT_S": 3600})
    agent = watched.agent
    running = watched.send(WAITING, ends_well=True)
    container = agent.container_of(running)
    agent.engine.wait_printed(container, b"before")
    own_engine.stop()
    waiting = _fill_the_queue(watched)
    threading.Event().wait(absent_s)
    own_engine.start(live_restore=True)
    # By then the agent has looked at what runs. What ends before may be said to have a gap: the engine tells it late.
    watched.dashboard.result(waiting[0])
    agent.engine.let_go(container)
    assert watched.check()[running]["output"].endswith("before\nafter\n")


def _fill_the_queue(watched: Ledger) -> list[str]:
    """Send tasks to an agent without an engine: as many as may wait are taken on; return their ids."""
    agent = watched.agent
    eventually(lambda: agent.http.get("/readyz").status_code == 503, "not ready")
    assert agent.http.get("/healthz").status_code == 200
    answers = [watched.try_send("echo ran\n", f"waits {number}", ends_well=True) for number in range(QUEUE + 1)]
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert {answer.json()["status"] for answer in accepted} == {"pending"}
    assert len(accepted) == QUEUE
    refused = answers[-1]
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert "queue is full" in refused.json()["detail"]
    return [answer.json()["task_id"] for answer in accepted]
