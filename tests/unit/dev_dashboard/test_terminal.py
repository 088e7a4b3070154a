"""What the dashboard prints."""

import io
from typing import Literal

import pytest

from agp_agent.dev_dashboard.store import ResultStore
from agp_agent.dev_dashboard.terminal import PatientConsole, Terminal
from agp_agent.models import TaskResult, TaskStatus


class BrokenPipe(io.StringIO):
    """A reader that went away."""

    def write(self, _text: str) -> int:
        """Fail as a closed pipe does."""
        raise BrokenPipeError


class FullDisk(io.StringIO):
    """A disk without room."""

    def write(self, _text: str) -> int:
        """Fail as a full disk does."""
        raise OSError(28, "No space left on device")


def printed(store: ResultStore, *results: TaskResult, color: bool = False, no_color: bool = False) -> str:
    """Receive results under one key each, show them, and return what was written."""
    out = io.StringIO()
    system: Literal["auto", "standard"] = "standard" if color else "auto"
    terminal = Terminal(PatientConsole(file=out, force_terminal=color, no_color=no_color, color_system=system))
    for result in results:
        terminal.received(store.add(result, result.task_id))
    return out.getvalue()


def test_a_result_is_plain_lines_when_piped(store: ResultStore) -> None:
    """One head line, the error, and the output indented; long lines are not wrapped."""
    result = TaskResult(
        task_id="t", status=TaskStatus.FAILED, output=f"one [bold]\n\n{'x' * 200}\n", error="exit code 2"
    )
    assert printed(store, result) == (
        f"2026-01-02T03:04:06Z failed t\n  error: exit code 2\n  | one [bold]\n  | \n  | {'x' * 200}\n"
    )


def test_a_hostile_output_cannot_steer_the_terminal(store: ResultStore, result: TaskResult) -> None:
    """Not one raw control character but newline is written, and no line poses as a head line."""
    text = printed(store, result)
    assert {char for char in text if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0} == {"\n"}
    assert r"\x1b[31mred\x1b]52;c;aGk=\x07\x9b2J \x00" in text
    assert [line[:4] for line in text.splitlines()] == ["2026", "  er", "  | ", "  | ", "  | "]


def test_colours_only_on_a_terminal_that_wants_them(store: ResultStore, result: TaskResult) -> None:
    """A terminal gets colours; with NO_COLOR not one escape sequence is written."""
    assert "\x1b[31mfailed\x1b[0m" in printed(store, result, color=True)
    other = result.model_copy(update={"task_id": "other"})
    assert "\x1b" not in printed(store, other, color=True, no_color=True)


def test_no_color_of_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable alone is enough."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert PatientConsole(force_terminal=True).no_color


def test_a_duplicate_is_one_line(store: ResultStore, result: TaskResult) -> None:
    """The output is not shown again."""
    assert printed(store, result, result).splitlines()[-1].endswith("(again: received 2 times, kept once)")


def test_a_long_output_shows_its_ends(store: ResultStore) -> None:
    """First and last lines, and how many are missing between."""
    output = "".join(f"{number}\n" for number in range(1000)) + "y" * 5000
    lines = printed(store, TaskResult(task_id="t", status=TaskStatus.COMPLETED, output=output)).splitlines()
    assert len(lines) == 82
    assert lines[41] == "  | [dashboard: 921 lines not shown here; the page has them]"
    assert lines[-1] == f"  | {'y' * 1000} [dashboard: 4000 characters not shown here]"


def test_characters_that_the_terminal_lacks_are_spelled_out(store: ResultStore) -> None:
    """A terminal without UTF-8 is no reason to fail."""
    raw = io.BytesIO()
    terminal = Terminal(PatientConsole(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True)))
    terminal.received(store.add(TaskResult(task_id="é🦊", status=TaskStatus.COMPLETED, output="")))
    assert raw.getvalue().endswith(b"completed \\xe9\\U0001f98a\n")


@pytest.mark.parametrize("out", [BrokenPipe(), FullDisk()])
def test_a_reader_that_went_away_is_no_reason_to_stop(store: ResultStore, result: TaskResult, out: io.StringIO) -> None:
    """Receiving goes on without a terminal."""
    terminal = Terminal(PatientConsole(file=out))
    terminal.received(store.add(result))
    terminal.started("http://127.0.0.1:1", "key", "memory")


def test_the_start_names_page_and_address(store: ResultStore) -> None:
    """The link stands alone at the end of its line, so that a script can cut it out."""
    out = io.StringIO()
    Terminal(PatientConsole(file=out)).started("http://127.0.0.1:1", "k", f"a file of {store.counts()[0]} results")
    assert "Page:   http://127.0.0.1:1/?key=k\n" in out.getvalue()
    assert "AGP_DASHBOARD_URL=http://127.0.0.1:1\n" in out.getvalue()
