"""The one table, and the same as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.stats import Row

_WIDTH: Final = 150
"""Of a pipe or a file, which have none of their own."""


def print_table(machine: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Print the machine and the table to stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for name, value in machine.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)
    table = Table(show_edge=False)
    table.add_column("measured")
    for name in ("median", "p10 to p90"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("ratio of medians (p10 to p90 by round)")
    table.add_column("goal")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_section()
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(f"  {row.what}", *_figures(row), row.ratio, row.goal)
    console.print(table)


def print_changes(changes: Sequence[str]) -> None:
    """Print how the figures stand to those of the last run."""
    console = Console(width=None if Console().is_terminal else _WIDTH)
    for change in changes:
        console.print(change, highlight=False, markup=False)


def _figures(row: Row) -> tuple[str, str, str]:
    unit = f" {row.unit}" if row.unit and not row.unit.startswith("/") else row.unit
    spread = f"{row.p10:,.{row.digits}f} to {row.p90:,.{row.digits}f}"
    return f"{row.median:,.{row.digits}f}{unit}", spread, str(len(row.samples))


def as_json(machine: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Everything, each sample included."""
    measured = [
        {
            "section": row.section,
            "what": row.what,
            "unit": row.unit,
            "digits": row.digits,
            "median": row.median,
            "p10": row.p10,
            "p90": row.p90,
            "ratio": row.ratio,
            "goal": row.goal,
            "of": row.of,
            "at": row.at,
            "samples": [round(sample, 4) for sample in row.samples],
        }
        for row in rows
    ]
    return json.dumps({"machine": dict(machine), "rows": measured}, indent=1) + "\n"
