"""States, verdicts and their sentences."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agp_agent import lifecycle
from agp_agent.lifecycle import ContainerExit, Outcome, Reason, State, Verdict, describe_exit_code, judge
from agp_agent.models import TaskStatus

TIMEOUT_S = 300.0
MEMORY_BYTES = 512 * 2**20

EXITS = st.builds(
    ContainerExit,
    exit_code=st.integers(0, 255),
    oom_killed=st.booleans(),
    asked=st.sampled_from([None, Reason.DEADLINE, Reason.CANCEL_REQUESTED]),
    killed_externally=st.booleans(),
    lost_with_engine=st.booleans(),
)


def judged(exit_code: int, **seen: object) -> Verdict:
    """Return the verdict on a container that ended so."""
    return judge(ContainerExit(exit_code, **seen), timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES)  # type: ignore[arg-type]


def test_success_is_exit_code_zero() -> None:
    """Only that is completed on the wire."""
    verdict = judged(0)
    assert verdict == Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0)
    assert verdict.status is TaskStatus.COMPLETED


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (ContainerExit(2), Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 2", 2)),
        (ContainerExit(137), Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 137 (SIGKILL)", 137)),
        (ContainerExit(139), Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 139 (SIGSEGV)", 139)),
        (
            ContainerExit(137, oom_killed=True),
            Verdict(Outcome.FAILED, Reason.OOM_KILLED, "killed: out of memory (limit 512 MiB)", 137),
        ),
        (ContainerExit(0, oom_killed=True), Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0)),
        (
            ContainerExit(143, asked=Reason.DEADLINE),
            Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, "timed out after 300 s", 143),
        ),
        (
            ContainerExit(0, asked=Reason.DEADLINE),
            Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, "timed out after 300 s", 0),
        ),
        (
            ContainerExit(137, asked=Reason.CANCEL_REQUESTED),
            Verdict(Outcome.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled", 137),
        ),
        (
            ContainerExit(137, killed_externally=True),
            Verdict(Outcome.FAILED, Reason.KILLED_EXTERNALLY, "killed from outside", 137),
        ),
        (ContainerExit(3, killed_externally=True), Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 3", 3)),
        (
            ContainerExit(0, lost_with_engine=True),
            lifecycle.lost(
                Reason.ENGINE_LOST, "the container engine, or what held the container for it, ended and took it along"
            ),
        ),
    ],
)
def test_what_was_seen_becomes_a_verdict(ended: ContainerExit, verdict: Verdict) -> None:
    """Outcome, reason and sentence follow from the exit and from what the agent had asked for."""
    assert judge(ended, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES) == verdict


def test_a_container_that_died_with_its_engine_is_lost() -> None:
    """Nobody asked, nobody killed it, and the engine is another process than before."""
    verdict = judged(137, lost_with_engine=True)
    assert (verdict.outcome, verdict.reason) == (Outcome.LOST, Reason.ENGINE_LOST)
    assert verdict.error is not None
    assert verdict.error.startswith("lost: ")


@given(EXITS)
def test_every_exit_has_a_verdict_that_keeps_the_rules(ended: ContainerExit) -> None:
    """Success has no error and code 0, everything else has a sentence; success is never claimed for a signal."""
    verdict = judge(ended, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES)
    assert (verdict.outcome is Outcome.SUCCEEDED) == (verdict.error is None)
    assert (verdict.status is TaskStatus.COMPLETED) == (verdict.outcome is Outcome.SUCCEEDED)
    if verdict.outcome is Outcome.SUCCEEDED:
        assert ended.exit_code == 0
        assert ended.asked is None


@given(st.integers(0, 255))
def test_exit_codes_read_as_numbers_and_signals_by_name(code: int) -> None:
    """128 + n is named where n is a signal."""
    text = describe_exit_code(code)
    assert text.startswith(f"exit code {code}")
    names = {128 + number: number.name for number in signal.Signals}
    assert text == (f"exit code {code} ({names[code]})" if code in names else f"exit code {code}")


def test_the_sentences_begin_as_the_contract_says() -> None:
    """The dashboard may tell them apart by their beginning."""
    assert lifecycle.lost(Reason.ENGINE_LOST, "why").error == "lost: why"
    assert lifecycle.no_runner("x.foo", ["shell", "python"]) == Verdict(
        Outcome.REJECTED, Reason.NO_RUNNER, "no runner for 'x.foo'; known runners: shell, python"
    )
    assert lifecycle.image_unavailable("agp/x", "why") == Verdict(
        Outcome.ERROR, Reason.IMAGE_UNAVAILABLE, "image agp/x is not available: why"
    )
    assert lifecycle.cancelled_before_start() == Verdict(Outcome.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled")
    assert lifecycle.queue_timeout(1.5).error == "timed out after 1.5 s in the queue; it never started"
    assert lifecycle.engine_refused("why").outcome is Outcome.ERROR


def test_a_long_timeout_reads_as_a_plain_number() -> None:
    """Not in powers of ten."""
    ended = ContainerExit(137, asked=Reason.DEADLINE)
    assert judge(ended, timeout_s=86_400.0, memory_bytes=0).error == "timed out after 86400 s"
    assert judge(ended, timeout_s=2_592_000.0, memory_bytes=0).error == "timed out after 2592000 s"


def test_transitions_lead_from_every_state_to_the_end_and_nowhere_after_it() -> None:
    """Finished is final, and can be reached from everywhere."""
    assert set(lifecycle.TRANSITIONS) == set(State)
    assert lifecycle.TRANSITIONS[State.FINISHED] == frozenset()
    assert all(State.FINISHED in following for state, following in lifecycle.TRANSITIONS.items() if following)


def test_the_wire_calls_waiting_states_pending() -> None:
    """The dashboard knows four words only."""
    assert {state: lifecycle.WIRE_STATUS[state].value for state in lifecycle.WIRE_STATUS} == {
        State.QUEUED: "pending",
        State.PREPARING: "pending",
        State.RUNNING: "running",
    }
