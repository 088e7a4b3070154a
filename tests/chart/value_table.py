"""Makes the table of the chart's README.md from the comments in its values.yaml.

``PYTHONPATH=tests python -m chart.value_table`` writes it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from chart.rendering import CHART

BEGIN: Final = "<!-- values: made by tests/chart/value_table.py -->"
END: Final = "<!-- end of values -->"
README: Final = CHART / "README.md"
_COMMENT: Final = re.compile(r"^ *# -- (.+)$")
_KEY: Final = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


def described(text: str) -> Iterator[tuple[str, str]]:
    """Each value that has a comment, by its dotted name, with the comment."""
    path: list[tuple[int, str]] = []
    about = None
    for line in text.splitlines():
        if found := _COMMENT.match(line):
            about = found[1]
        elif found := _KEY.match(line):
            indent = len(found[1])
            path = [(deep, name) for deep, name in path if deep < indent] + [(indent, found[2])]
            if about is not None:
                yield ".".join(name for _, name in path), about
            about = None


def leaves(tree: dict[str, Any], known: set[str], above: str = "") -> Iterator[str]:
    """Every value that nobody can see into further: one that is described, or is no mapping."""
    for key, value in tree.items():
        name = f"{above}{key}"
        if name in known or not isinstance(value, dict) or not value:
            yield name
        else:
            yield from leaves(value, known, f"{name}.")


def table() -> str:
    """The table as Markdown, in the order of the file."""
    text = (CHART / "values.yaml").read_text()
    values, about = yaml.safe_load(text), dict(described(text))
    lines = ["| value | default | |", "|---|---|---|"]
    for name in leaves(values, set(about)):
        default = values
        for key in name.split("."):
            default = default[key]
        lines.append(f"| `{name}` | `{json.dumps(default)}` | {about[name]} |")
    return "\n".join(lines)


def main() -> None:
    """Write it into the README."""
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
