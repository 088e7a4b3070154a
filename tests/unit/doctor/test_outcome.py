"""What is made of an attempt: from what its program told, and from what the judge saw on the host."""

import json

import pytest

from agp_agent.doctor.escape import SAFE_ATTEMPTS, Verdict, outcome
from agp_agent.doctor.escape.programs import playbook

REFUSED = b'{"tried": "a", "answer": "EPERM"}\n{"tried": "b", "answer": "EROFS"}\n{"tried": "c", "answer": "EPERM"}\n'
END = b'{"finished": true}\n'


def test_an_attempt_is_held_where_all_was_refused_and_the_host_is_unharmed() -> None:
    """The answers are told once each."""
    seen = outcome(REFUSED + END, None)
    assert (seen.verdict, seen.tried, seen.why) == (Verdict.HELD, 3, "EPERM, EROFS")


@pytest.mark.parametrize(
    ("output", "harm", "why"),
    [
        (REFUSED + END, "the host was reached", "the host was reached"),
        (REFUSED + b'{"tried": "mount", "answer": "done"}\n' + END, None, "mount"),
        (REFUSED + b'{"tried": "mount", "answer": "done"}\n', None, "mount"),
        (REFUSED + b'{"found": "x", "path": "/host/token"}\n' + END, None, "found something in /host/token"),
        (b'{"tried": "mount", "answer": "done"}\n' + END, "a mount", "a mount; mount"),
    ],
)
def test_harm_or_one_answer_that_it_was_done_is_an_escape(output: bytes, harm: str | None, why: str) -> None:
    """The judge's word comes first; a program that was cut off afterwards has escaped all the same."""
    seen = outcome(output, harm)
    assert (seen.verdict, seen.why) == (Verdict.ESCAPED, why)


@pytest.mark.parametrize("output", [b"", REFUSED, b"Traceback\nNameError: x\n", b'[1]\n"finished"\n3\n\xff{}\n'])
def test_what_did_not_come_to_its_end_proves_nothing(output: bytes) -> None:
    """Whatever it printed until then."""
    assert outcome(output, None).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("attempt", SAFE_ATTEMPTS, ids=lambda attempt: f"{attempt.number:02}")
def test_every_program_is_one_playbook_that_needs_nothing_of_ours(attempt: object) -> None:
    """Its text compiles, imports the standard library alone, and carries its facts, whatever is in them."""
    program = next(one for one in SAFE_ATTEMPTS if one is attempt).program
    facts = {"name": 'it\'s "quoted" \\ and\nbroken', "pid": 1}
    text = playbook(program, facts)
    compile(text, "playbook.py", "exec")
    assert "agp_agent" not in text.replace("agp-agent", "")
    assert f"run({program.__name__}, json.loads({json.dumps(facts)!r}))" in text


def test_numbers_are_each_given_once_and_in_order() -> None:
    """17 and 18 need an agent at work: only the tests make them."""
    assert [attempt.number for attempt in SAFE_ATTEMPTS] == [n for n in range(1, 26) if n not in (17, 18)]
    assert all(attempt.safe for attempt in SAFE_ATTEMPTS)
