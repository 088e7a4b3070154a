"""What the campaign prints: one line a round, a bar on a terminal, and the table in the end."""

import json
import statistics
from collections import Counter
from dataclasses import asdict
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from campaign.book import FAULTS, LOST
from campaign.course import Outcome, Round
from campaign.strikes import STEP
from support.strikes import STEPS

_SHOWN: Final = 20
_WIDTH: Final = 120
"""Of a pipe or a file, which have none of their own."""
_COUNTS: Final = (
    "gaps stated",
    "answers lost",
    "run again on request",
    "delivered again",
    "starts seen",
    "starts reported, not seen",
)


class Printer:
    """Tells the person who waits. Use it as a context manager: the bar lives as long."""

    def __init__(self, rounds: int) -> None:
        """``rounds`` there will be."""
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
        columns = (TextColumn("campaign"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._rounds = rounds
        self._task = self._bar.add_task("rounds", total=rounds)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line, as it is."""
        self.console.print(line, markup=False, style="red" if line.startswith("!!") else None)

    def round(self, told: Round) -> None:
        """Print a round."""
        ready = "lived on" if told.ready_s is None else f"ready in {told.ready_s:4.1f} s"
        self.say(
            f"{told.number:5} of {self._rounds}  {told.strike:34} {told.weather:10} accepted {told.accepted:6}  "
            f"reported {told.reported:6}  pending {told.pending:3}  {ready}"
        )
        self._bar.advance(self._task)

    def end(self, outcome: Outcome, seed: str, taken_s: float) -> None:
        """Print the table, and where to look if anything is wrong."""
        self.console.print(_table(outcome, seed, taken_s))
        for violation in outcome.book.violations[:_SHOWN]:
            self.say(f"!! {violation.fault}: {violation.where}: {violation.what}")
        if outcome.kept is not None:
            self.say(f"state and log are kept in {outcome.kept}")


def as_json(outcome: Outcome, seed: str) -> str:
    """The counts, and everything that was wrong."""
    book = outcome.book
    faults = Counter(violation.fault for violation in book.violations)
    document = {
        "rounds": outcome.rounds,
        "seed": seed,
        **{fault: faults[fault] for fault in FAULTS},
        "pending": len(book.unreported),
        "counts": {name: book.counts[name] for name in ("accepted", "reported", "reported lost", *_COUNTS)},
        "kinds": book.kinds,
        "strikes": outcome.strikes,
        "steps reached": sorted(_reached(outcome)),
        "long life": outcome.long_life,
        "left": outcome.left,
        "fresh": outcome.fresh,
        "violations": [asdict(violation) for violation in book.violations],
    }
    return json.dumps(document, indent=1)


def _reached(outcome: Outcome) -> set[str]:
    """The steps of the walk at which the agent died."""
    return {name.removeprefix(STEP) for name in outcome.strikes} & {step.name for step in STEPS}


def _table(outcome: Outcome, seed: str, taken_s: float) -> Table:
    book = outcome.book
    table = Table(title=f"{outcome.rounds} rounds in {taken_s / 60:.1f} min, seed {seed}", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("which")
    kinds = ", ".join(f"{number} {kind}" for kind, number in book.kinds.most_common())
    table.add_row("accepted", str(book.counts["accepted"]), kinds)
    table.add_row("reported", str(book.counts["reported"]))
    table.add_row("pending", str(len(book.unreported)))
    reasons = "; ".join(f"{number} x {reason}" for reason, number in book.lost_reasons.most_common())
    table.add_row("reported lost", str(book.counts["reported lost"]), reasons)
    for name in _COUNTS:
        table.add_row(name, str(book.counts[name]))
    table.add_section()
    for fault in FAULTS:
        number = sum(violation.fault == fault for violation in book.violations)
        table.add_row(f"[bold]{fault}[/bold]", f"[bold]{number}[/bold]", "of those accepted" if fault == LOST else "")
    table.add_row("tasks of one long life", str(outcome.long_life), "then was counted what is left")
    for name, number in outcome.left.items():
        table.add_row(f"{name} in the end", str(number), f"a fresh agent has {outcome.fresh[name]}")
    table.add_section()
    if outcome.ready_s:
        figures = f"median {statistics.median(outcome.ready_s):.2f} s, longest {max(outcome.ready_s):.2f} s"
        table.add_row("restarts", str(len(outcome.ready_s)), f"to ready: {figures}")
    struck = {name: number for name, number in outcome.strikes.items() if name.startswith(STEP)}
    reached = f"{len(_reached(outcome))} of {len(STEPS)} steps were reached"
    table.add_row("at a named step", str(sum(struck.values())), reached)
    for name, number in sorted(outcome.strikes.items()):
        if name not in struck:
            table.add_row(name, str(number))
    return table
