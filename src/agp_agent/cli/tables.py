"""Tables and fields: drawn on a terminal, plain lines where a program reads them."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

import typer

from agp_agent.visible import visible_line

_COLUMN_CHARS: Final = 12
"""A column that is narrower breaks words to pieces."""


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their heads; without a terminal one row a line, with tabs between, and no heads.

    On a terminal that is too narrow for columns each row is a few lines, one a cell.
    """
    shown = [[visible_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            typer.echo("\t".join(row))
        return
    from rich import box  # noqa: PLC0415  programs that read lines need not wait for it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    if console.width < _COLUMN_CHARS * len(heads):
        for row in shown:
            for head, cell in zip(heads, row, strict=True):
                if cell:
                    console.print(Text(f"{head}: {cell}", overflow="fold"))
            console.print()
        return
    table = Table(*heads, box=box.SIMPLE_HEAD)
    for row in shown:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One field a line; what is null is left out."""
    known = [(visible_line(name), visible_line(str(value))) for name, value in fields if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        typer.echo(f"{name:{width}}  {value}")
