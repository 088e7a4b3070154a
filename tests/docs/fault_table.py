"""Prints the table of tests/fault/README.md: which test causes which fault, and what it sees. From their docstrings.

``PYTHONPATH=tests python -m docs.fault_table``
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BEGIN: Final = "<!-- faults: made by tests/docs/fault_table.py -->"
END: Final = "<!-- end of faults -->"
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
    has_long_form: bool
    """Whether ``make test-long`` runs it at full length too."""


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
        long = " (`make test-long`)" if test.is_long else " (longer: `make test-long`)" if test.has_long_form else ""
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
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    is_long = "pytest.mark.campaign" in decorators
    return FaultTest(rows, path.name, node.name, seen, is_long, any("campaign" in one for one in decorators))


if __name__ == "__main__":
    print(table())  # noqa: T201  that is what it is for
