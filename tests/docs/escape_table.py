"""Prints the tables of escape attempts for SECURITY.md and README.md, from what the last run of tests/isolation saw.

``PYTHONPATH=tests python -m docs.escape_table``, after ``pytest tests/isolation``.
"""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "build" / "escape-table.md"
BEGIN: Final = "<!-- escape: made by tests/docs/escape_table.py -->"
END: Final = "<!-- end of escape -->"
_SHORT_HEAD: Final = "| # | attempt | held by | under the lockdown | in a container without it |\n|---|---|---|---|---|"


def written(page: Path) -> str:
    """The table that stands in a page."""
    return page.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def rows(table: str) -> dict[int, list[str]]:
    """The cells of each attempt by its number."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {int(row[0]): row for row in cells}


def short(table: str) -> str:
    """The README's form: what was tried, what holds it, and what happened with and without the lockdown."""
    lines = [f"| {row[0]} | {row[1]} | {row[2]} | {row[4]} | {row[6]} |" for row in rows(table).values()]
    return "\n".join([_SHORT_HEAD, *lines])


def without_numbers(cell: str) -> str:
    """How a cell is compared: amounts differ from run to run."""
    return re.sub(r"\d+", "0", cell)


if __name__ == "__main__":
    table = RESULTS.read_text().strip()
    print(f"SECURITY.md:\n\n{table}\n\nREADME.md:\n\n{short(table)}")  # noqa: T201  that is what it is for
