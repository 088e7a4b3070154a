"""Row 11: the engine is frozen. Nobody who asks the agent something notices more than that it is not ready."""

import statistics
import threading
import time
from collections import defaultdict
from typing import Final

import pytest

from fault.conftest import StartWatched
from support.ledger import Ledger
from support.own_engine import OwnEngine

BOUND_S: Final = 1.0
"""The requirement for every answer. The median is held to it: one slow answer of a loaded machine proves nothing."""
TIMEOUT_S: Final = 4
AFTER_S: Final = 20.0
"""By then an overdue task must have ended: grace, its removal from the engine's backlog, and much slack."""
FOREVER: Final = "echo before\nwhile :; do sleep 0.05; done\n"
SOON: Final = "echo before\nsleep 2\necho after\n"


@pytest.mark.parametrize("frozen_s", [10.0, pytest.param(60.0, marks=pytest.mark.campaign)])
def test_a_frozen_engine_slows_no_answer_and_stretches_no_deadline(
    own_engine: OwnEngine, start_watched: StartWatched, frozen_s: float
) -> None:
    """Row 11: answers stay under 1 s, /readyz says no; then what is overdue ends at once, and the rest as ever."""
    watched = start_watched({"AGP_TASK_TIMEOUT_S": TIMEOUT_S})
    agent = watched.agent
    overdue, ended_meanwhile = watched.send(FOREVER), watched.send(SOON, ends_well=True)
    for task_id in (overdue, ended_meanwhile):
        agent.engine.wait_printed(agent.container_of(task_id), b"before")
    own_engine.pause()
    try:
        took = _ask_meanwhile(watched, frozen_s)
        assert agent.http.get("/readyz").status_code == 503
        assert watched.dashboard.deliveries() == []
    finally:
        own_engine.resume()
    watched.dashboard.result(overdue, patience_s=AFTER_S)
    assert "does not answer" in agent.wait_audited("agent degraded", part="engine")["why"]
    assert {path: seconds for path, seconds in took.items() if statistics.median(seconds) >= BOUND_S} == {}
    agent.wait_ready()
    agent.wait_audited("agent recovered", part="engine")
    results = watched.check()
    assert results[overdue]["error"] == f"timed out after {TIMEOUT_S} s"
    assert results[overdue]["output"].endswith("before\n")
    assert results[ended_meanwhile]["output"].endswith("before\nafter\n")


def _ask_meanwhile(watched: Ledger, for_s: float) -> dict[str, list[float]]:
    """Ask all the time, and send ten good tasks; how long each answer took, by path."""
    took: dict[str, list[float]] = defaultdict(list)
    begun_s, pace = time.monotonic(), threading.Event()
    while time.monotonic() - begun_s < for_s:
        for path in ("/healthz", "/readyz"):
            asked_s = time.monotonic()
            watched.agent.http.get(path)
            took[path].append(time.monotonic() - asked_s)
        if len(took["/execute_task"]) < 10:
            asked_s = time.monotonic()
            watched.send("echo one\n", ends_well=True)
            took["/execute_task"].append(time.monotonic() - asked_s)
        pace.wait(0.2)
    return took
