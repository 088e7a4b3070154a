"""Rows 26 and 32: one task from a hundred senders at once, and a thousand tasks at once."""

import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.crowd import post_at_once
from support.engine_events import EngineEvents
from support.ledger import MORE_THREADS, Ledger, Sent, threads
from support.starts_seen import numbered

LONG_S = 1500.0
TASKS = 1000
PLACES = 6
BLOCKED_S = 5.0
"""Nobody waits so long for an API that works; on a quiet machine p99 is under 0.1 s."""


def test_of_100_who_send_one_task_one_is_taken(start_watched: StartWatched) -> None:
    """Row 26: the same task_id 100 times at once with 100 different playbooks: one 202 and one run, 99 times 409."""
    watched = start_watched()
    watched.neighbours()
    marks = [secrets.token_hex(4) for _ in range(100)]
    scripts = [numbered(mark, "sleep 1\necho ran\n") for mark in marks]
    answers = post_at_once(watched.agent, [("wanted", script) for script in scripts])
    (taken,) = [mark for mark, (status, _) in zip(marks, answers, strict=True) if status == 202]
    watched.accepted["wanted"] = Sent("wanted", taken)
    refused = [json.loads(body)["detail"] for status, body in answers if status == 409]
    assert len(refused) == 99
    assert set(refused) <= {
        "A task with the same task_id is already queued.",
        "A task with the same task_id is already running.",
    }
    result = watched.check()["wanted"]
    assert (result["output"].partition("\n")[2], result["error"]) == ("ran\n", None)
    assert {mark for mark in marks if watched.starts.numbers(mark)} == {taken}


def test_of_1000_tasks_at_once_those_are_taken_that_can_wait(start_watched: StartWatched) -> None:
    """Row 32: 1,000 at once, the queue full: all others 503; never more containers than places; in order; API quick."""
    queue = 40
    watched = start_watched({"AGP_MAX_RUNNING": PLACES, "AGP_MAX_QUEUED": queue})
    answers = _crowd(watched, patience_s=120)
    assert answers[202] >= PLACES + queue
    assert answers[202] + answers[503] == TASKS


@pytest.mark.campaign
@pytest.mark.timeout(LONG_S)
def test_of_1000_tasks_at_once_all_run(start_watched: StartWatched) -> None:
    """Row 32: 1,000 at once, and all of them wait their turn, run and are reported."""
    watched = start_watched({"AGP_MAX_RUNNING": PLACES, "AGP_MAX_QUEUED": TASKS})
    assert _crowd(watched, patience_s=LONG_S) == {202: TASKS}


def _crowd(watched: Ledger, *, patience_s: float) -> Counter[int]:
    """Send a thousand tasks at one moment; see to it that everything goes its way; return the answers' statuses."""
    agent = watched.agent
    threads_before = threads(agent)
    marks = {f"one of many {number}": secrets.token_hex(4) for number in range(TASKS)}
    tasks = [(task_id, numbered(mark, "echo good\n")) for task_id, mark in marks.items()]
    with EngineEvents(agent.instance) as events:
        answers = post_at_once(agent, tasks)
        taken = {task_id for task_id, (status, _) in zip(marks, answers, strict=True) if status == 202}
        watched.accepted |= {one: Sent(one, marks[one], ends_well=True) for one in taken}
        waits, most_threads = _look_on(agent, lambda: len(watched.dashboard.deliveries()) < len(taken))
        watched.check(patience_s=patience_s)
        most = events.most_at_once()
    assert 1 < most <= PLACES
    assert most_threads <= threads_before + MORE_THREADS
    _check_order(agent)
    refused = {text for status, text in answers if status == 503}
    assert all("The queue is full" in text for text in refused)
    p99_s = sorted(waits)[len(waits) * 99 // 100]
    sys.stdout.write(f"{len(taken)} taken; API p99 {p99_s * 1000:.0f} ms of {len(waits)}; {most} containers at once\n")
    assert p99_s < BLOCKED_S
    return Counter(status for status, _ in answers)


def _look_on(agent: AgentProcess, goes_on: Callable[[], bool]) -> tuple[list[float], int]:
    """How long an honest client waits for its answers meanwhile, and how many threads the agent has at most."""
    waits, most = [0.0], 0
    while goes_on():
        began_s = time.monotonic()
        assert agent.request("POST", "/heartbeat").status_code == 200
        waits.append(time.monotonic() - began_s)
        most = max(most, threads(agent))
        time.sleep(0.01)  # the next client
    return waits, most


def _check_order(agent: AgentProcess) -> None:
    """First come, first served: nobody starts before somebody who came more than one round of places earlier."""
    order = [line["task_id"] for line in agent.audit("task accepted")]
    started = [line["task_id"] for line in agent.audit("task started")]
    assert sorted(order) == sorted(started)
    came = {task_id: place for place, task_id in enumerate(order)}
    worst = max(abs(place - came[task_id]) for place, task_id in enumerate(started))
    assert worst <= 2 * PLACES, worst
