"""Puts findings and attempts before people and programs: a table on a terminal, plain lines in a pipe, JSON."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Final, TextIO

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from agp_agent.doctor.checks import Finding, Level
from agp_agent.doctor.escape import Attempt, Outcome, Verdict

Tried = tuple[Attempt, Outcome]

_STYLE: Final = {
    Level.OK: "green",
    Level.WARN: "yellow",
    Level.FAIL: "bold red",
    Verdict.HELD: "green",
    Verdict.UNKNOWN: "yellow",
    Verdict.ESCAPED: "bold red",
}


def is_bad(findings: Sequence[Finding], tried: Sequence[Tried]) -> bool:
    """Whether the exit code is 1: a check failed, or an attempt was not held."""
    failed = any(finding.level is Level.FAIL for finding in findings)
    return failed or any(outcome.verdict is not Verdict.HELD for _, outcome in tried)


def as_json(findings: Sequence[Finding], tried: Sequence[Tried] | None) -> str:
    """One document; ``escape`` is null where no attempt was made."""
    attempts = None
    if tried is not None:
        attempts = [
            {"number": attempt.number, "attempt": attempt.title, "held_by": attempt.held_by, **asdict(outcome)}
            for attempt, outcome in tried
        ]
    return json.dumps({"checks": [asdict(finding) for finding in findings], "escape": attempts}, indent=2)


def show_findings(findings: Sequence[Finding], out: TextIO) -> None:
    """Each check with its level; what it means and how to mend it where it is not ok."""
    rows = [(finding.level, finding.check, _sentences(finding)) for finding in findings]
    _show(("", "check", "found"), rows, out)


def show_attempts(tried: Sequence[Tried], out: TextIO) -> None:
    """Each attempt, what stands against it, and what became of it."""
    rows = [
        (outcome.verdict, f"{attempt.number} {attempt.title}", f"{attempt.held_by}{_answers(outcome)}")
        for attempt, outcome in tried
    ]
    _show(("", "attempt", "held by"), rows, out)


@contextlib.contextmanager
def progress(what: str, total: int, out: TextIO) -> Iterator[Callable[[], None]]:
    """Show on a terminal that something goes on: yields what tells of one step more. Elsewhere it is silent."""
    with Progress(console=Console(file=out), transient=True, disable=not out.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def summary(findings: Sequence[Finding], tried: Sequence[Tried] | None) -> str:
    """The last line."""
    counts = ", ".join(f"{sum(one.level is level for one in findings)} {level}" for level in Level)
    if tried is None:
        return f"{counts}. The attempts to escape: agp-agent doctor --escape."
    held = sum(outcome.verdict is Verdict.HELD for _, outcome in tried)
    return f"{counts}; {held} of {len(tried)} attempts to escape were held."


def _answers(outcome: Outcome) -> str:
    return f" ({outcome.tried} tries: {outcome.why})" if outcome.why else ""


def _sentences(finding: Finding) -> str:
    return "  ".join(part for part in (finding.said, finding.means, finding.mend) if part)


def _show(head: tuple[str, str, str], rows: Sequence[tuple[Level | Verdict, str, str]], out: TextIO) -> None:
    if not out.isatty():
        width = max(len(name) for _, name, _ in rows)
        out.writelines(f"{level:<7} {name:<{width}}  {text}\n" for level, name, text in rows)
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for title in head:
        table.add_column(title)
    for level, name, text in rows:
        table.add_row(Text(level, _STYLE[level]), *(Text(cell, overflow="fold") for cell in (name, text)))
    Console(file=out).print(table)
