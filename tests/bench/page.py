"""The tables and charts of ``docs/performance.md``: made anew between its markers, the words around them left alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import plot
from bench.history import Figures
from bench.stats import Row

DOCS: Final = Path(__file__).parents[2] / "docs"
_BEGIN: Final = "<!-- bench:{name} -->"
_END: Final = "<!-- /bench:{name} -->"
SINGLE: Final = "One task at a time, `echo ok`"
STAGES: Final = "Stages of `echo ok`, {start}, by the agent's own trace"


def write(figures: Figures, docs: Path = DOCS) -> list[Path]:
    """Write the page's tables and the charts beside it; return the files."""
    page = docs / "performance.md"
    text = page.read_text()
    blocks = {"machine": machine(figures.machine), "goals": goals(figures.rows), "table": tables(figures.rows)}
    for name, block in blocks.items():
        text = replaced(text, name, block)
    page.write_text(text)
    files = [page]
    for name, drawn in charts(figures.rows).items():
        files.append(docs / name)
        files[-1].write_text(drawn)
    return files


def replaced(text: str, name: str, block: str) -> str:
    """The text with ``block`` between the markers of this name.

    Raises:
        ValueError: the text has no such markers.
    """
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page lacks the markers {begin} and {end}")
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"


def machine(facts: Mapping[str, str]) -> str:
    """What the figures come from, as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def goals(rows: Sequence[Row]) -> str:
    """Every goal with what was measured."""
    lines = ["| measured | median | beside it | goal |", "|---|---|---|---|"]
    lines += [
        f"| {row.section}: {row.what} | {_median(row)} | {row.ratio} | {_bold_if_missed(row.goal)} |"
        for row in rows
        if row.goal
    ]
    return "\n".join(lines)


def _bold_if_missed(goal: str) -> str:
    return f"**{goal}**" if goal.endswith("missed") else goal


def tables(rows: Sequence[Row]) -> str:
    """A table a section, those over a load as one that has a line a load."""
    blocks = []
    for section in dict.fromkeys(row.section for row in rows):
        of_it = [row for row in rows if row.section == section]
        over = [row for row in of_it if row.at is not None]
        plain = [row for row in of_it if row.at is None]
        parts = [_table(plain)] if plain else []
        parts += [_over_a_load(over)] if over else []
        blocks.append("\n\n".join([f"### {section}", *parts]))
    return "\n\n".join(blocks)


def _table(rows: Iterable[Row]) -> str:
    lines = ["| measured | median | p10 to p90 | n | beside it | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = f"{row.p10:,.{row.digits}f} to {row.p90:,.{row.digits}f}"
        goal = _bold_if_missed(row.goal)
        lines.append(f"| {row.what} | {_median(row)} | {spread} | {len(row.samples)} | {row.ratio} | {goal} |")
    return "\n".join(lines)


def _over_a_load(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.of for row in rows))
    cells = {(row.at, row.of): _median(row) for row in rows}
    lines = [f"| how many | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {load:,.0f} | {' | '.join(cells.get((load, name), '') for name in names)} |"
        for load in dict.fromkeys(row.at for row in rows)
    ]
    return "\n".join(lines)


def _median(row: Row) -> str:
    unit = f" {row.unit}" if row.unit and not row.unit.startswith("/") else row.unit
    return f"{row.median:,.{row.digits}f}{unit}"


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """The SVG files by name; those of which nothing was measured are left out."""
    made: dict[str, str] = {}
    single = {row.what: row.median for row in rows if row.section == SINGLE and row.unit == "ms"}
    if single:
        made["performance-single.svg"] = plot.bars(f"{SINGLE}: median", single, "ms")
    stages = {start: _stages(rows, start) for start in ("cold", "warm")}
    if any(stages.values()):
        title = "Where the milliseconds go: `echo ok`, from the order to its acknowledgement"
        made["performance-stages.svg"] = plot.stacked(title, {name: one for name, one in stages.items() if one}, "ms")
    for section in dict.fromkeys(row.section for row in rows if row.at is not None):
        panels: dict[str, dict[float, float]] = {}
        for row in rows:
            if row.section == section and row.at is not None:
                panels.setdefault(f"{row.of}{f', {row.unit}' if row.unit else ''}", {})[row.at] = row.median
        made[f"performance-{_slug(section)}.svg"] = plot.lines(section, panels)
    return made


def _stages(rows: Sequence[Row], start: str) -> dict[str, float]:
    """The stages that follow one another: what runs beside them is left out."""
    found = {row.what: row.median for row in rows if row.section == STAGES.format(start=start)}
    return {name: value for name, value in found.items() if name not in {"output", "removed"}}


def _slug(section: str) -> str:
    words = "".join(char if char.isalnum() else " " for char in section.lower()).split()
    return "-".join(words[:3])
