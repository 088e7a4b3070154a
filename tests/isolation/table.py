"""The table of escape attempts, as the last run saw them."""

from dataclasses import dataclass, field
from typing import Final

from agp_agent.doctor.escape.attempt import records

HEAD: Final = (
    "| # | attempt | held by | tries | lockdown | control: a container with | there | tries that worked there |\n"
    "|---|---|---|---|---|---|---|---|"
)
_NOT_THERE: Final = ("ENOSYS", "ENOENT", "ENODEV", "ENXIO", "not on this processor")


@dataclass(frozen=True, slots=True)
class Row:
    """What both arms of one attempt gave."""

    number: int
    title: str
    held_by: str
    tries: int
    locked: str
    hole: str
    harm: str
    """What became of the host of the control arm."""
    worked: str = "the attempt as a whole"


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
            f"| {row.number} | {row.title} | {row.held_by} | {row.tries or '-'} | {row.locked} | {row.hole} "
            f"| {row.harm} | {row.worked} |"
            for _, row in sorted(self.rows.items())
        ]
        return "\n".join([HEAD, *lines])


def worked(output: bytes) -> str:
    """How many tries a control container let through, and which had nothing to act on: not in this kernel or image."""
    answers = {record["tried"]: record["answer"] for record in records(output) if "tried" in record}
    done = sum(answer == "done" for answer in answers.values())
    missing = ", ".join(what for what, answer in answers.items() if answer in _NOT_THERE)
    return f"{done} of {len(answers)}" + (f"; not there at all: {missing}" if missing else "")
