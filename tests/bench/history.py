"""The figures of the last run that was stored, and how those of this one stand to them. Pure but for reading a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.stats import Row

STORED: Final = Path(__file__).parent / "figures.json"
FAILED: Final = "failed"
"""Stands among the facts of the machine for a part that could not be measured."""
_WORSE: Final = 0.15
"""Noise of a quiet machine is below this."""
_SAMPLES_MAX: Final = 200
"""So many samples of a row are kept: of a latency there are thousands."""
_SAME_MACHINE: Final = ("processor", "memory", "engine", "kernel")


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: the machine, and all rows in the order in which they were measured."""

    machine: Mapping[str, str]
    rows: Sequence[Row]


def read(file: Path = STORED) -> Figures:
    """What was stored; nothing where there is no file."""
    if not file.exists():
        return Figures({}, ())
    document: dict[str, Any] = json.loads(file.read_text())
    return Figures(document["machine"], tuple(_row(stored) for stored in document["rows"]))


def merged(old: Figures, new: Figures) -> Figures:
    """The new figures, and of the old ones those of sections that were not measured this time; in the old order."""
    measured = {row.section for row in new.rows}
    kept = [row for row in old.rows if row.section not in measured]
    order = list(dict.fromkeys(row.section for row in (*old.rows, *new.rows)))
    rows = sorted((*map(_thinned, new.rows), *kept), key=lambda row: order.index(row.section))
    known = {name: value for name, value in old.machine.items() if value != FAILED}
    return Figures({**known, **new.machine}, tuple(rows))


def changes(old: Figures, new: Figures) -> list[str]:
    """One sentence a figure that got slower or larger by more than 15 %, or one that none did."""
    if not old.rows:
        return ["There are no stored figures to compare with."]
    before = {(row.section, row.what): row for row in old.rows}
    pairs = [(before[key], row) for row in new.rows if (key := (row.section, row.what)) in before]
    worse = [_sentence(was, row) for was, row in pairs if is_worse(was, row)]
    better = sum(is_worse(row, was) for was, row in pairs)
    head = f"Compared with the last stored run: {len(pairs)} figures, {len(worse)} worse, {better} better by over 15 %."
    others = [name for name in _SAME_MACHINE if old.machine.get(name) != new.machine.get(name)]
    odd = [f"The stored run was on another machine: {', '.join(others)} differ."] if others else []
    return [head, *odd, *worse]


def ratio(was: Row, row: Row) -> float:
    """How many times its former median a figure is; a figure that was nothing is compared with the least there is."""
    return row.median / max(was.median, 10**-9)


def is_worse(was: Row, row: Row) -> bool:
    """Whether ``row`` is worse than ``was`` by more than noise."""
    if row.more_is_better:
        return row.median < was.median * (1 - _WORSE)
    return row.median > was.median * (1 + _WORSE)


def _sentence(was: Row, row: Row) -> str:
    figures = f"{was.median:,.{row.digits}f} → {row.median:,.{row.digits}f} {row.unit}".rstrip()
    return f"WORSE  {row.section}: {row.what}: {figures} ({ratio(was, row):.2f} x)"


def _thinned(row: Row) -> Row:
    """The same with fewer samples, evenly taken from its ordered ones."""
    if len(row.samples) <= _SAMPLES_MAX:
        return row
    ordered = sorted(row.samples)
    last = len(ordered) - 1
    kept = tuple(ordered[round(number * last / (_SAMPLES_MAX - 1))] for number in range(_SAMPLES_MAX))
    fields = {name: getattr(row, name) for name in Row.__slots__}
    return Row(**{**fields, "samples": kept})


def _row(stored: Mapping[str, Any]) -> Row:
    fields = {name: stored[name] for name in Row.__slots__ if name != "samples"}
    return Row(**fields, samples=tuple(stored["samples"]))
