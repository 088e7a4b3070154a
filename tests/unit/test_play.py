"""What a playbook's tool tells is untrusted: bounded, checked, masked, on one line, and the ground of nothing."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agp_agent import lifecycle
from agp_agent.lifecycle import ContainerExit, Outcome, Reason, Verdict
from agp_agent.play import FAILURES_MAX, HOSTS_MAX, Failure, HostRecap, Play, read

COUNTS = {"ok": 1, "changed": 0, "unreachable": 0, "failed": 1, "skipped": 0, "rescued": 0, "ignored": 0}
FAILED = {"kind": "failed", "host": "web1", "task": "Render the config", "message": "no template"}


def event(**content: object) -> bytes:
    """One line of the channel."""
    return b"agp1 event " + json.dumps(content).encode() + b"\n"


def failure(**other: object) -> bytes:
    """A failed task, with something else about it."""
    return event(failure=FAILED | other)


def test_failures_and_recap_are_read_behind_the_marker() -> None:
    """In their order."""
    told = read(b"agp1 started 00\n" + failure() + event(recap={"host": "web1"} | COUNTS))
    assert told == Play(recap=(HostRecap(host="web1", **COUNTS),), failures=(Failure.model_validate(FAILED),))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello\n",
        b"agp1 event\n",
        b"agp1 event {}\n",
        b"agp1 event null\n",
        b"agp1 event \xff\xfe\n",
        b"agp1 event " + b"[" * 100_000 + b"\n",
        failure().rstrip(b"\n"),  # torn
        failure(kind="succeeded"),
        failure(more=1),
        failure(task=None),
        failure(message="x" * 1001),
        event(failure={"kind": "failed"}),
        event(recap={"host": "h"} | COUNTS | {"ok": -1}),
        event(recap={"host": "h"} | COUNTS | {"ok": "1"}),
        event(recap={"host": "h"} | COUNTS | {"ok": 10**12}),
        event(recap={"host": "h"} | COUNTS, more=1),
    ],
)
def test_what_is_no_event_is_as_if_it_had_not_come(line: bytes) -> None:
    """Whatever it is instead; what is around it counts."""
    assert read(line) is None
    if line.endswith(b"\n") or not line:
        assert read(failure() + line + failure()) == read(failure() + failure())


@given(st.binary())
def test_nothing_that_comes_breaks_the_reader(noise: bytes) -> None:
    """Random bytes, and random bytes that begin like an event."""
    assert read(noise + b"\n") is None
    assert read(b"agp1 event " + noise.replace(b"\n", b"") + b"\n") is None


def test_more_than_the_bounds_is_left_out() -> None:
    """Of failures and of hosts; a host that is told twice counts once, as it was told last."""
    recaps = b"".join(event(recap={"host": f"h{number}"} | COUNTS) for number in range(HOSTS_MAX + 50))
    told = read(failure() * (FAILURES_MAX + 5) + recaps + event(recap={"host": "h0"} | COUNTS | {"ok": 9}))
    assert told is not None
    assert (len(told.failures), len(told.recap)) == (FAILURES_MAX, HOSTS_MAX)


def test_texts_are_one_line_that_no_terminal_obeys() -> None:
    """However they came."""
    told = read(failure(task="a\n\tb", message="\x1b[31mred\x1b[0m \u202eevil \u2028", host="  h  "))
    assert told is not None
    assert told.failures[0] == Failure(kind="failed", host="h", task="a b", message="[31mred [0m evil")


def test_long_texts_are_shortened() -> None:
    """A sentence is for reading."""
    told = read(failure(message="x" * 1000, task="t" * 300))
    assert told is not None
    assert (told.failures[0].message, told.failures[0].task) == ("x" * 399 + "…", "t" * 199 + "…")


def test_secrets_are_masked_before_lines_are_joined_and_texts_are_shortened() -> None:
    """And whoever masks is told of an end that was cut."""
    seen = []

    def mask(text: str, is_cut: bool) -> str:  # noqa: FBT001  as ``Mask`` has it
        seen.append((text[:4], is_cut))
        return text.replace("two\nlines", "***")

    told = read(failure(message="two\nlines") + failure(message="y" * 1000), mask)
    assert told is not None
    assert told.failures[0].message == "***"
    assert seen == [
        ("web1", False),
        ("Rend", False),
        ("two\n", False),
        ("web1", False),
        ("Rend", False),
        ("yyyy", True),
    ]


def test_the_error_of_a_failed_playbook_names_the_first_failure() -> None:
    """As the issue has it; others are counted."""
    first, second = Failure.model_validate(FAILED), Failure.model_validate(FAILED | {"kind": "unreachable"})
    verdict = lifecycle.judge(ContainerExit(2), timeout_s=1, memory_bytes=1)
    assert replace(verdict, play=Play(failures=(first,))).sentence == (
        'exit code 2: task "Render the config" failed on web1: no template'
    )
    assert replace(verdict, play=Play(failures=(second, first))).sentence == (
        'exit code 2: task "Render the config" could not reach web1: no template (and 1 more)'
    )
    assert replace(verdict, play=Play()).sentence == "exit code 2"


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0),
        Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, "timed out after 5 s", 143),
        Verdict(Outcome.FAILED, Reason.OOM_KILLED, "killed: out of memory (limit 1 MiB)", 137),
        Verdict(Outcome.LOST, Reason.ENGINE_LOST, "lost: gone"),
    ],
)
def test_a_tale_changes_no_other_verdict(verdict: Verdict) -> None:
    """What the agent saw itself is what it says."""
    lied = replace(verdict, play=Play(failures=(Failure.model_validate(FAILED),)))
    assert (lied.sentence, lied.status) == (verdict.error, verdict.status)
