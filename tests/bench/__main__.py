"""The command: measures everything in turn and prints one table; ``--help`` tells the rest."""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from bench import accepts, cold, fleet, machine, memory, report
from bench.problem import BenchError
from bench.stats import Row
from bench.workbench import Workbench, say

_ROUNDS: Final = 30
_ROUNDS_OF_ACCEPTS: Final = 10
"""Rounds of the cold path for one of accepts, which takes longer and says more."""
_MEASURED: Final = ("cold", "accepts", "memory")
_SIMULATED: Final = ("fleet",)
_INTERRUPTED: Final = 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the agent beside its rivals.")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="rounds of the cold path (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE, too")
    parser.add_argument(
        "--only", choices=(*_MEASURED, *_SIMULATED), action="append", help="only this part; may be repeated"
    )
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


def _measure(bench: Workbench, given: argparse.Namespace) -> list[Row]:
    parts = given.only or _MEASURED
    accept_rounds = max(1, given.rounds // _ROUNDS_OF_ACCEPTS)
    rows: list[Row] = []
    if "cold" in parts:
        say(f"order to result, cold, {given.rounds} rounds (about {given.rounds * 1.5:.0f} s)")
        rows += cold.measure(bench, given.rounds)
    if "accepts" in parts:
        say(f"durable accepts, {accept_rounds} rounds (about {accept_rounds * 15} s)")
        rows += accepts.measure(bench, accept_rounds)
    if "memory" in parts:
        say("memory, idle and busy (about 30 s)")
        rows += memory.measure(bench)
    return rows


def _on_this_machine(given: argparse.Namespace) -> tuple[dict[str, str], list[Row]]:
    begin_s = time.monotonic()
    with Workbench(given.dir) as bench:
        facts = machine.describe(bench.client, bench.folder) | {"load before": machine.load()}
        rows = _measure(bench, given)
        facts |= {"load after": machine.load(), "taken": f"{time.monotonic() - begin_s:.0f} s"}
    return facts, rows


def _simulated(given: argparse.Namespace) -> tuple[dict[str, str], list[Row]]:
    say("a fleet after an outage, simulated (about 60 s)")
    begin_s = time.monotonic()
    rows = fleet.measure(given.seed)
    return {"fleet": f"seed {given.seed}, simulated in {time.monotonic() - begin_s:.0f} s"}, rows


def main() -> None:
    """Measure, clean up, print. Exit code 0, 1 where nothing could be measured, 130 where it was interrupted."""
    given = _arguments()
    facts: dict[str, str] = {}
    rows: list[Row] = []
    try:
        for parts, act in ((_MEASURED, _on_this_machine), (_SIMULATED, _simulated)):
            if not given.only or set(given.only) & set(parts):
                more_facts, more_rows = act(given)
                facts |= more_facts
                rows += more_rows
    except (BenchError, AssertionError) as error:  # the latter: something was waited for in vain
        say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; everything that was made is removed")
        sys.exit(_INTERRUPTED)
    if given.json:
        given.json.write_text(report.as_json(facts, rows))
    report.print_table(facts, rows)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
