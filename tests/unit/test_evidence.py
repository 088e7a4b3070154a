"""How a container ended, from what is known of it: a table of verdicts."""

import pytest

from agp_agent.engine import ContainerState, History
from agp_agent.evidence import Evidence
from agp_agent.lifecycle import ContainerExit, Reason

CREATED = History(created=True, died=True)
KILLED = History(created=True, kills=1, died=True)
FORGOTTEN = History()
ENDED_S = 100.0


def state(code: int, **more: object) -> ContainerState:
    """Return what inspect says of a container that has ended."""
    return ContainerState("c1", running=False, ended=True, exit_code=code, **more)  # type: ignore[arg-type]


def of(ended: ContainerState, history: History = FORGOTTEN, *, same: bool = False, **more: object) -> Evidence:
    """Return evidence; unless ``same``, contact to the engine was broken in between."""
    return Evidence(ended, same_contact=same, history=history, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evidence", "ended"),
    [
        (of(state(0), same=True), ContainerExit(0)),
        (of(state(7), same=True), ContainerExit(7)),
        (of(state(137, oom_killed=True)), ContainerExit(137, oom_killed=True)),
        (of(state(0, killed=True), KILLED, same=True), ContainerExit(0, killed_externally=True)),
        (of(state(0, killed=True), same=True, before_its_stop=True), ContainerExit(0)),
        (of(state(137), KILLED, same=True), ContainerExit(137, killed_externally=True)),
        (of(state(139), CREATED, same=True), ContainerExit(139)),
        (of(state(137), KILLED), ContainerExit(137, killed_externally=True)),
        (of(state(5)), ContainerExit(5)),
        (of(state(129)), ContainerExit(129)),
        (of(state(137)), ContainerExit(137, lost_with_engine=True)),
        (of(state(143)), ContainerExit(143, lost_with_engine=True)),
        (of(state(143), History(died=True)), ContainerExit(143)),
        (of(state(143), History(kills=1, died=True)), ContainerExit(143, lost_with_engine=True)),
        (of(state(0, killed=True)), ContainerExit(0, lost_with_engine=True)),
        (of(state(255)), ContainerExit(255, lost_with_engine=True)),
        (of(state(255), History(died=True)), ContainerExit(255)),
        (of(state(255, ended_s=ENDED_S), History(remembers_from_s=ENDED_S + 1)), ContainerExit(255)),
        (of(state(137), History(created=True, died=True, exit_code=255)), ContainerExit(137, lost_with_engine=True)),
        (of(state(143), same=True, asked_before=Reason.DEADLINE), ContainerExit(143, asked=Reason.DEADLINE)),
        (of(state(0), KILLED, asked_before=Reason.DEADLINE), ContainerExit(0, asked=Reason.DEADLINE)),
        (of(state(0), asked_before=Reason.DEADLINE), ContainerExit(0)),
    ],
)
def test_who_ended_it_is_told_from_all_that_is_known(evidence: Evidence, ended: ContainerExit) -> None:
    """A bare exit code may be anything; what nobody can know is the engine's loss, never somebody's kill."""
    assert evidence.exit == ended


@pytest.mark.parametrize(
    ("evidence", "unseen"),
    [
        (of(state(0, ended_s=ENDED_S)), True),
        (of(state(0, ended_s=ENDED_S), same=True), False),
        (of(state(0, ended_s=ENDED_S), CREATED), False),
        (of(state(0, ended_s=ENDED_S, seen_ending=True)), False),
        (of(state(0, ended_s=ENDED_S), History(remembers_from_s=ENDED_S + 1)), False),
        (of(state(0, ended_s=ENDED_S), History(died=True, died_s=ENDED_S + 0.03)), False),
        (of(state(0, ended_s=ENDED_S), History(died=True, died_s=ENDED_S + 0.4)), True),
        (of(state(0), History(died=True, died_s=ENDED_S)), False),
    ],
)
def test_an_end_is_unseen_where_no_engine_can_have_been_there(evidence: Evidence, *, unseen: bool) -> None:
    """What it printed last may be missing then; an engine whose memory is full proves nothing."""
    assert evidence.ended_unseen is unseen


@pytest.mark.parametrize(
    ("evidence", "is_plain"),
    [
        (of(state(0), same=True), True),
        (of(state(0)), False),
        (of(state(137, oom_killed=True), same=True), True),
        (of(state(137), same=True), False),
        (of(state(0, killed=True), same=True), False),
        (of(state(0), same=True, asked_before=Reason.DEADLINE), False),
    ],
)
def test_a_plain_end_needs_no_memory_of_the_engine(evidence: Evidence, *, is_plain: bool) -> None:
    """Only where contact was never broken, and nobody but the playbook, or its memory limit, can have ended it."""
    assert evidence.is_plain is is_plain
