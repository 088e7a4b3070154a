"""Row 8 and row 4: the agent dies while it takes up what earlier agents left, again and again, and it converges."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from fault.conftest import StartWatched
from support.deaths import Death, Gates, Syscall
from support.doomed import UNTIL_LET_GO, die_at_start
from support.http_gate import HttpGate, Moment
from support.own_engine import OwnEngine
from support.playbooks import WAITING
from support.strikes import STEPS

pytest_plugins = ("fault.gated",)

_ID: Final = "[0-9a-f]{64}"
_AT_LOG: Final = rf"^GET /containers/{_ID}/logs"
_REMOVE: Final = "^DELETE /containers/agp-"
_REPORT: Final = "^POST .*/report_result"
_WAL: Final = "journal.db-wal"
_NOWHERE: Final = "http://127.0.0.1:9"


def _call(call: str, moment: Moment = Moment.CALL) -> Callable[[Death, Gates], None]:
    return lambda death, gates: gates.engine.at(moment, call, death.kill)


def _answer(call: str) -> Callable[[Death, Gates], None]:
    return _call(call, Moment.ANSWER)


def _after(call: str, names: str, number: int, file: str | None = None) -> Callable[[Death, Gates], None]:
    then = Syscall(names, number, file)
    return lambda death, gates: gates.engine.at(Moment.ANSWER, call, lambda: death.kill_at(then))


def _delivery(moment: Moment) -> Callable[[Death, Gates], None]:
    def arm(death: Death, gates: Gates) -> None:
        gates.engine.at(Moment.CALL, _REMOVE, lambda: False)  # side by side with it: nothing would be left to remove
        gates.dashboard.at(moment, _REPORT, death.kill)

    return arm


RECOVERY: Final = (
    _call("^GET /info"),
    _answer("^GET /events"),
    _call("^POST /containers/create"),
    _answer("^POST /containers/create"),
    _answer("^GET /containers/.*/archive"),
    _call(f"^DELETE /containers/{_ID}"),
    _answer(f"^DELETE /containers/{_ID}"),
    _call("^GET /containers/json"),
    _answer("^GET /containers/json"),
    _call(f"^GET /containers/{_ID}/json"),
    _answer(f"^GET /containers/{_ID}/json"),
    _call(_AT_LOG),
    _answer(_AT_LOG),
    _after(_AT_LOG, "pwrite64", 1),
    _after(_AT_LOG, "pwrite64", 4, _WAL),
    _after(_AT_LOG, "fdatasync", 1, _WAL),
    _delivery(Moment.CALL),
    _delivery(Moment.ANSWER),
    _call(_REMOVE),
    _answer(_REMOVE),
)
"""Twenty moments of an agent's start, in the order in which they come."""
FIVE: Final = tuple(RECOVERY[number] for number in (0, 3, 8, 14, 17))
"""One of each kind: the engine's own calls, torn writes, a lost answer of the dashboard."""


@pytest.mark.parametrize("deaths", [FIVE, pytest.param(RECOVERY, marks=pytest.mark.campaign)], ids=["5", "20"])
def test_deaths_in_a_row_while_it_recovers(
    start_watched: StartWatched,
    gates: Gates,
    deaths: tuple[Callable[[Death, Gates], None], ...],
) -> None:
    """Row 8: each agent dies a little later in taking up the same tasks; the last one ends all, and reports it once.

    One task ended while no agent was there, one still runs, and the container of one that was delivered is left over.
    """
    watched = start_watched(gates.settings)
    agent = watched.agent
    running, ended = watched.send(UNTIL_LET_GO, ends_well=True), watched.send(WAITING)
    container, ended_in = agent.container_of(running), agent.container_of(ended)
    for one in (container, ended_in):
        agent.engine.wait_printed(one, b"before")
    (unremoved,) = (step for step in STEPS if step.name == "delivered, remove not called")
    strike = unremoved.arm(agent, gates)
    delivered = watched.send("echo done\n", ends_well=True)
    strike.wait()
    agent.engine.let_go(ended_in)
    agent.engine.wait_ended(ended_in)
    for number, arm in enumerate(deaths):
        die_at_start(watched.agent, gates, f"death {number}", arm)
    agent.start()
    agent.engine.let_go(container)
    results = watched.check()
    assert results[ended]["error"] == "exit code 7"
    assert results[ended]["output"].endswith("before\nafter\n")
    assert len(watched.dashboard.deliveries(delivered)) == 1
    watched.neighbours()
    watched.check()


def test_a_release_that_nobody_saw_is_lost(own_engine: OwnEngine, start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 4: agent and engine died around a release, and nothing tells whether it started: lost, and not run again."""
    with HttpGate.to_engine(tmp_path) as gate, HttpGate.to_dashboard(_NOWHERE) as unused:
        # A warm container's release comes before the sender's answer: see test_death_with_warm_containers.py.
        watched = start_watched({"DOCKER_HOST": gate.address, "AGP_WARM": 0})
        agent = watched.agent
        (unsent,) = (step for step in STEPS if step.name == "release: line not sent")
        strike = unsent.arm(agent, Gates(gate, unused))
        task_id = watched.send("echo ran\n")
        strike.wait()
        own_engine.kill()
        own_engine.start()
        agent.start()
        result = watched.check()[task_id]
        assert result["error"].startswith("lost: ")
        assert "ran" not in result["output"].splitlines()
        watched.neighbours()
        watched.check()
