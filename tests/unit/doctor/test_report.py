"""How findings and attempts are shown: plain in a pipe, a table on a terminal, JSON for programs."""

import io
import json

import pytest

from agp_agent.doctor import report
from agp_agent.doctor.checks import Finding, Level
from agp_agent.doctor.escape import SAFE_ATTEMPTS, Outcome, Verdict

OK = Finding("engine", Level.OK, "28.5.2")
WARN = Finding("live restore", Level.WARN, "off", "It ends tasks.", "Switch it on.")
FAIL = Finding("seccomp", Level.FAIL, "not there [bold]", "None.", "Get it.")
HELD = (SAFE_ATTEMPTS[0], Outcome(Verdict.HELD, 9, "EPERM"))
ESCAPED = (SAFE_ATTEMPTS[1], Outcome(Verdict.ESCAPED, 1, "a container was made"))
UNKNOWN = (SAFE_ATTEMPTS[2], Outcome(Verdict.UNKNOWN, 0, "nothing"))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_plain_lines_for_a_pipe() -> None:
    """One line a check: level, name, what was found, what it means, how to mend it."""
    out = io.StringIO()
    report.show_findings([OK, WARN], out)
    assert out.getvalue() == (
        "ok      engine        28.5.2\nwarn    live restore  off  It ends tasks.  Switch it on.\n"
    )


def test_a_table_for_a_terminal_in_which_nothing_is_markup() -> None:
    """What came from outside is shown as it is."""
    out = Terminal()
    report.show_findings([OK, FAIL], out)
    assert "not there [bold]" in out.getvalue()
    assert "check" in out.getvalue()


def test_a_narrow_terminal_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty columns: words are folded, and each character is there."""
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    report.show_findings([Finding("address", Level.WARN, "127.0.0.1 AGP_INTERFACE", "", "")], out)
    shown = "".join(line[7:] for line in out.getvalue().splitlines())
    assert "…" not in shown
    assert "AGP_INTERFACE" in shown.replace(" ", "").replace("address", "")


def test_attempts_are_shown_with_what_holds_them() -> None:
    """Number, title, what stands against it, and how many tries were answered how."""
    out = io.StringIO()
    report.show_attempts([HELD], out)
    assert out.getvalue().startswith("held    1 write, replace or remount the playbook  read-only bind mount")
    assert "(9 tries: EPERM)" in out.getvalue()


def test_json_has_everything() -> None:
    """Checks with all their fields; attempts, or null where none were made."""
    document = json.loads(report.as_json([WARN], [HELD, ESCAPED]))
    assert document["checks"] == [
        {"check": "live restore", "level": "warn", "said": "off", "means": "It ends tasks.", "mend": "Switch it on."}
    ]
    assert [(one["number"], one["verdict"]) for one in document["escape"]] == [(1, "held"), (2, "ESCAPED")]
    assert json.loads(report.as_json([OK], None))["escape"] is None


def test_warnings_are_no_failure_and_an_escape_is_one() -> None:
    """So is an attempt of which nobody knows how it ended."""
    assert not report.is_bad([OK, WARN], [HELD])
    assert report.is_bad([OK, FAIL], [])
    assert report.is_bad([OK], [HELD, ESCAPED])
    assert report.is_bad([OK], [UNKNOWN])


def test_the_last_line_counts() -> None:
    """And tells how to make the attempts, where none were made."""
    assert report.summary([OK, WARN, WARN, FAIL], None).startswith("1 ok, 2 warn, 1 fail. ")
    assert report.summary([OK], [HELD, ESCAPED]) == "1 ok, 0 warn, 0 fail; 1 of 2 attempts to escape were held."


def test_progress_is_shown_on_a_terminal_alone() -> None:
    """A pipe gets nothing of it."""
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        with report.progress("attempts", 2, out) as step:
            step()
            step()
    assert "attempts" in terminal.getvalue()
    assert pipe.getvalue() == ""


def test_an_attempt_without_an_answer_is_shown_without_one() -> None:
    """As one that stops itself: it was ended from outside."""
    out = io.StringIO()
    report.show_attempts([(SAFE_ATTEMPTS[0], Outcome(Verdict.HELD, 0, ""))], out)
    assert out.getvalue().rstrip().endswith("no capability")
