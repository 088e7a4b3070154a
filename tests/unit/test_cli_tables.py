"""Tables on terminals of every width, and where a program reads them."""

import io
import re
import sys

import pytest

from agp_agent.cli.tables import print_table

HEADS = ("accepted", "state", "delivery", "task", "error")
ROW = ("2026-11-26 21:00:00", "failed", "", "deploy 42", "exit code 2: \x1b[31mno template")


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def printed(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    """What a terminal of this width shows, without its bold letters."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(HEADS, [ROW, ROW])
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in terminal.getvalue().split("\n")]


def test_a_wide_terminal_has_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under their heads."""
    lines = printed(monkeypatch, 120)
    assert lines[1].split() == list(HEADS)
    assert "deploy 42" in lines[3]


@pytest.mark.parametrize("columns", [20, 40, 59])
def test_a_narrow_terminal_loses_nothing_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """A cell a line, within the width; what is empty is left out."""
    lines = printed(monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    text = "".join(lines)
    assert text.count("task: deploy 42") == 2
    assert "delivery" not in text
    assert "\\x1b[31mno" in text.replace(" ", "").replace("\n", "")


def test_a_program_reads_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    """One row a line, no heads."""
    print_table(HEADS, [ROW])
    assert capsys.readouterr().out == "\t".join((*ROW[:4], "exit code 2: \\x1b[31mno template")) + "\n"
