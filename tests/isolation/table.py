"""The table of escape attempts, as the last run saw them."""

from dataclasses import dataclass, field
from typing import Final

HEAD: Final = (
    "| # | attempt | held by | under the lockdown | control: a container with | there |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Row:
    """What both arms of one attempt gave."""

    number: int
    title: str
    held_by: str
    locked: str
    hole: str
    control: str


@dataclass(slots=True)
class Table:
    """Rows by number; a test adds its own."""

    rows: dict[int, Row] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take a row; one attempt has one."""
        self.rows[row.number] = row

    def markdown(self) -> str:
        """All rows in order."""
        lines = [
            f"| {row.number} | {row.title} | {row.held_by} | {row.locked} | {row.hole} | {row.control} |"
            for _, row in sorted(self.rows.items())
        ]
        return "\n".join([HEAD, *lines])
