"""Rows 1 to 8: the agent is killed before and after each durable write and each call of the engine.

Where it is killed, see ``support.strikes``. Two playbooks run through all deaths of a test, adopted each time; eight
more good ones run beside the first.
"""

import json
from typing import Final

import pytest

from support.doomed import SHORT_S, UNTIL_LET_GO, Doomed, die_at_start
from support.strikes import Needs, steps_of

pytest_plugins = ("fault.gated",)

SHORT: Final = "echo one\nsleep 0.1\necho two\nexit 3\n"
SHORT_ENDED: Final = ("one\ntwo\n", "exit code 3")
HELD: Final = f"{UNTIL_LET_GO}exit 7\n"
HELD_ENDED: Final = ("before\nafter\n", "exit code 7")
DEAF: Final = "trap '' TERM\necho deaf\nwhile :; do sleep 0.05; done\n"
DEAF_ENDED: Final = ("deaf\n", f"timed out after {SHORT_S} s")


def _check(doomed: Doomed, expected: dict[str, tuple[str, str]]) -> None:
    """Check the ledger, and that these tasks ended so: what stands behind the line that tells the start, and how."""
    doomed.let_bystanders_go()
    results = doomed.watched.check()
    ends = {task_id: results[task_id] for task_id in expected}
    assert {task_id: (one["output"].split("\n", 1)[1], one["error"]) for task_id, one in ends.items()} == expected


def _started(doomed: Doomed, task_id: str) -> int:
    """How often the agents said that they start this task."""
    lines = [json.loads(line) for line in doomed.watched.agent.log_text().splitlines()]
    return sum((line["event"], line.get("task_id")) == ("task started", task_id) for line in lines)


def test_death_before_the_acceptance_is_durable(doomed: Doomed) -> None:
    """Row 1: the sender sees a reset, nothing runs, and sending it again is accepted as if it were the first time."""
    tasks = []
    for step in steps_of(1):
        task_id = doomed.strike(step, SHORT)
        assert _started(doomed, task_id) == 0
        tasks.append(doomed.watched.send(SHORT, task_id))
        doomed.settle(task_id)
        doomed.watched.agent.wait_log("task delivered", task_id=task_id)
    _check(doomed, dict.fromkeys(tasks, SHORT_ENDED))


def test_death_between_the_durable_acceptance_and_its_answer(doomed: Doomed) -> None:
    """Row 2: it runs, once, though its sender saw a reset; sending it again is 409, as for a running task."""
    agent, tasks = doomed.watched.agent, []
    for step in steps_of(2):
        task_id = doomed.strike(step, HELD)
        container = agent.container_of(task_id)
        again = agent.post_task(task_id, HELD)
        assert (again.status_code, again.json()["detail"]) == (409, "A task with the same task_id is already running.")
        agent.engine.let_go(container)
        doomed.settle(task_id)
        agent.wait_log("task delivered", task_id=task_id)
        tasks.append(task_id)
    _check(doomed, dict.fromkeys(tasks, HELD_ENDED))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_death_before_the_release(doomed: Doomed, *, every: bool) -> None:
    """Row 3: queued, prepared or half prepared, it runs once after the restart; what was prepared for it is gone."""
    tasks = []
    for step in steps_of(3, every=every):
        tasks.append(doomed.strike(step, SHORT))
        doomed.settle(tasks[-1])
        doomed.watched.agent.wait_log("task delivered", task_id=tasks[-1])
    _check(doomed, dict.fromkeys(tasks, SHORT_ENDED))


def test_death_around_the_release(doomed: Doomed) -> None:
    """Row 4: the container's end is awaited, and its marker decides whether the playbook started; it runs once."""
    tasks = []
    for step in steps_of(4):
        tasks.append(doomed.strike(step, SHORT))
        doomed.settle(tasks[-1])
    _check(doomed, dict.fromkeys(tasks, SHORT_ENDED))


def test_death_while_it_runs(doomed: Doomed) -> None:
    """Row 5: the next agent adopts the running container; all of its output and its exact exit code arrive."""
    agent, tasks = doomed.watched.agent, []
    for step in steps_of(5):
        task_id = doomed.strike(step, HELD)
        agent.wait_log("task adopted", task_id=task_id)
        agent.engine.let_go(agent.container_of(task_id))
        doomed.settle(task_id)
        assert _started(doomed, task_id) == 1
        tasks.append(task_id)
    _check(doomed, dict.fromkeys(tasks, HELD_ENDED))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_death_while_it_is_stopped(doomed: Doomed, *, every: bool) -> None:
    """Row 5: killed around the note that it is to be stopped, TERM and KILL: the next agent ends it, as timed out."""
    tasks = []
    for step in steps_of(5, needs=Needs.A_DEAF_TASK, every=every):
        tasks.append(doomed.strike(step, DEAF, "deaf.short"))
        doomed.settle(tasks[-1])
        assert _started(doomed, tasks[-1]) == 1
    _check(doomed, dict.fromkeys(tasks, DEAF_ENDED))


def test_death_while_the_engines_log_is_read(doomed: Doomed) -> None:
    """Row 6: an agent that took up another's task is killed around its look at the log; the third tells it all."""
    watched, tasks = doomed.watched, []
    for step in steps_of(6, needs=Needs.AN_ADOPTED_TASK):
        tasks.append(watched.send(HELD))
        container = watched.agent.container_of(tasks[-1])
        watched.agent.engine.wait_printed(container, b"before")
        watched.agent.kill()
        watched.agent.engine.let_go(container)
        watched.agent.engine.wait_ended(container)
        die_at_start(watched.agent, doomed.gates, step.name, step.prepare)
        doomed.restart()
        doomed.settle(tasks[-1])
    _check(doomed, dict.fromkeys(tasks, HELD_ENDED))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_death_between_the_exit_and_its_record(doomed: Doomed, *, every: bool) -> None:
    """Row 6: how it ended and what it printed is taken from the engine, and a torn record is no record."""
    tasks = []
    for step in steps_of(6, every=every):
        tasks.append(doomed.strike(step, SHORT))
        doomed.settle(tasks[-1])
        assert _started(doomed, tasks[-1]) == 1
    _check(doomed, dict.fromkeys(tasks, SHORT_ENDED))


def test_death_around_the_delivery(doomed: Doomed) -> None:
    """Row 7: the result is sent again under the same key and with the same bytes until that is written down."""
    tasks, dashboard = [], doomed.watched.dashboard
    for step in steps_of(7):
        tasks.append(doomed.strike(step, SHORT))
        doomed.settle(tasks[-1])
    _check(doomed, dict.fromkeys(tasks, SHORT_ENDED))
    twice = {task_id for task_id in tasks if len(dashboard.deliveries(task_id)) > 1}
    assert twice == {"delivery: answer lost", "delivered: nothing written", "delivered: commit torn"}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_death_before_all_is_removed(doomed: Doomed, *, every: bool) -> None:
    """Row 8: what is left of it is removed after the restart, and what is noted as delivered is not sent again."""
    tasks, dashboard = [], doomed.watched.dashboard
    for step in steps_of(8, every=every):
        tasks.append(doomed.strike(step, SHORT))
        doomed.settle(tasks[-1])
    _check(doomed, dict.fromkeys(tasks, SHORT_ENDED))
    once = {"delivered: written", "delivered, remove not called"}
    assert [task_id for task_id in once if len(dashboard.deliveries(task_id)) > 1] == []
