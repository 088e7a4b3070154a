"""The command: measures everything in turn and prints one table; ``--help`` tells the rest."""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import accepts, fleet, history, machine, memory, output, page, playbook, rate, report, scale, single, start
from bench.history import Figures
from bench.problem import BenchError
from bench.stats import Row
from bench.workbench import Workbench, say

_ROUNDS: Final = 30
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class _Part:
    """One measurement. ``rounds``: how many of it make a whole run, in which ``--rounds`` is the default."""

    what: str
    measure: Callable[[Workbench, int], list[Row]]
    rounds: int


def _output(bench: Workbench, percent: int) -> list[Row]:
    return output.measure(bench, 1 + percent // 100, min(1.0, percent / 100))


def _scale(bench: Workbench, percent: int) -> list[Row]:
    return scale.measure(bench, min(1.0, percent / 100))


_PARTS: Final[Mapping[str, _Part]] = {
    "single": _Part("one task at a time, beside its rivals (about 2 min)", single.measure, 30),
    "playbook": _Part("an Ansible playbook, beside its rivals (about 1 min)", playbook.measure, 7),
    "rate": _Part("tasks a second, cold and in a burst (about 1.5 min)", rate.measure, 3),
    "accepts": _Part("durable accepts (about 45 s)", accepts.measure, 3),
    "memory": _Part("memory, idle and busy (about 30 s)", lambda bench, _: memory.measure(bench), 1),
    "output": _Part("much output (about 1 min)", _output, 100),
    "start": _Part("start of the agent (about 20 s)", start.measure, 5),
    "scale": _Part("200 running, 10,000 queued, 100,000 finished (about 2.5 min)", _scale, 100),
}
_FLEET: Final = "fleet"
_FAILURES: Final = (BenchError, AssertionError, subprocess.SubprocessError)
"""The second: something was waited for in vain."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the agent beside its rivals.")
    parser.add_argument(
        "--rounds",
        type=int,
        default=_ROUNDS,
        help="rounds of one task at a time; the other parts, and the loads of the scale, shrink with it (default "
        "%(default)s; 1 tries the bench itself)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE, too")
    parser.add_argument(
        "--store",
        action="store_true",
        help="keep the figures for the next comparison, and write tables and charts of docs/performance.md",
    )
    parser.add_argument("--only", choices=(*_PARTS, _FLEET), action="append", help="only this part; may be repeated")
    parser.add_argument(
        "--dir", type=Path, default=Path("/var/tmp"), help="folder on the disk to measure (default %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=fleet.SEED,
        help="of the fleet's chance; the same gives the same (default %(default)s)",
    )
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    return given


def _on_this_machine(given: argparse.Namespace, names: list[str]) -> Figures:
    begin_s = time.monotonic()
    rows: list[Row] = []
    with Workbench(given.dir) as bench:
        facts = machine.describe(bench.client, bench.folder) | {"load before": machine.load()}
        for name in names:
            part = _PARTS[name]
            say(part.what)
            try:
                rows += part.measure(bench, max(1, round(part.rounds * given.rounds / _ROUNDS)))
            except _FAILURES as error:  # the figures of the others are worth having
                say(f"  {name} is left out: {error}")
                facts[name] = history.FAILED
        facts |= {"load after": machine.load(), "taken": f"{time.monotonic() - begin_s:.0f} s"}
    return Figures(facts, rows)


def _simulated(given: argparse.Namespace) -> Figures:
    say("a fleet after an outage, simulated (about 60 s)")
    begin_s = time.monotonic()
    rows = fleet.measure(given.seed)
    return Figures({"fleet": f"seed {given.seed}, simulated in {time.monotonic() - begin_s:.0f} s"}, rows)


def _measure(given: argparse.Namespace) -> Figures:
    names = [name for name in _PARTS if not given.only or name in given.only]
    figures = _on_this_machine(given, names) if names else Figures({}, ())
    if given.only and _FLEET not in given.only:
        return figures
    fleets = _simulated(given)
    return Figures({**figures.machine, **fleets.machine}, (*figures.rows, *fleets.rows))


def _store(figures: Figures) -> None:
    whole = history.merged(history.read(), figures)
    history.STORED.write_text(report.as_json(whole.machine, whole.rows))
    for file in (history.STORED, *page.write(whole)):
        say(f"written: {file}")


def main() -> None:
    """Measure, clean up, print. Exit code 0, 1 where something could not be measured, 130 where it was interrupted."""
    given = _arguments()
    try:
        figures = _measure(given)
    except _FAILURES as error:
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; everything that was made is removed")
        sys.exit(_INTERRUPTED)
    if given.json:
        given.json.write_text(report.as_json(figures.machine, figures.rows))
    report.print_table(figures.machine, figures.rows)
    report.print_changes(history.changes(history.read(), figures))
    if given.store:
        _store(figures)
    sys.stdout.flush()
    if history.FAILED in figures.machine.values():
        sys.exit(1)


if __name__ == "__main__":
    main()
