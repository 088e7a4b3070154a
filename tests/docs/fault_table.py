"""Prints the table of tests/fault/README.md: which test causes which fault, and what it sees. From their docstrings.

``PYTHONPATH=tests python -m docs.fault_table``
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUITE: Final = Path(__file__).parents[1] / "fault"
_ROWS: Final = re.compile(r"Rows? (\d+(?:(?:, | and )\d+)*): (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FaultTest:
    """One test of the suite: the rows of the list of faults that it proves, and what is seen in it."""

    rows: tuple[int, ...]
    file: str
    name: str
    seen: str
    is_long: bool
    """Whether only ``make test-long`` runs it."""


def fault_tests() -> list[FaultTest]:
    """All tests of the suite, in the order of their rows.

    Raises:
        ValueError: a test's docstring does not begin with its row's number.
    """
    found = [_read(path, node) for path in sorted(SUITE.glob("test_*.py")) for node in _functions(path)]
    return sorted(found, key=lambda one: (one.rows, one.file))


def table() -> str:
    """The table as Markdown."""
    lines = ["| row | test | what is seen |", "|---|---|---|"]
    for test in fault_tests():
        rows = ", ".join(map(str, test.rows))
        long = " (`make test-long`)" if test.is_long else ""
        lines.append(f"| {rows} | [{test.file}]({test.file}) `{test.name}`{long} | {test.seen} |")
    return "\n".join(lines)


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def _read(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> FaultTest:
    match = _ROWS.fullmatch(ast.get_docstring(node) or "")
    if match is None:
        raise ValueError(f"{path.name}::{node.name}: its docstring must begin with 'Row N: '")
    rows = tuple(int(number) for number in re.findall(r"\d+", match[1]))
    seen = " ".join(match[2].split()).replace("|", "\\|")
    is_long = any("campaign" in ast.unparse(decorator) for decorator in node.decorator_list)
    return FaultTest(rows, path.name, node.name, seen, is_long)


if __name__ == "__main__":
    print(table())  # noqa: T201  that is what it is for
