"""The command: kills the agent round after round while tasks flow, and counts; ``--help`` tells the rest."""

import argparse
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from campaign.course import Course, Plan
from campaign.report import Printer, as_json

_ROUNDS: Final = 1000
_SECONDS_A_ROUND: Final = 4.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED: Final = 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m campaign", description="Kill the agent, again and again.")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how many rounds (default %(default)s)")
    parser.add_argument("--seed", default="", help="repeats tasks, strikes and the dashboard's moods of that seed")
    parser.add_argument(
        "--engine",
        choices=("own", "machine"),
        default="own" if os.geteuid() == 0 else "machine",
        help="own: a second dockerd, which is killed now and then (needs root); machine: the one that is there, which "
        "is left in peace (default here: %(default)s)",
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the state goes (default %(default)s)")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="below 1: less time between strikes, and more tasks in it"
    )
    parser.add_argument(
        "--warm", type=int, default=0, metavar="N", help="let N containers of each runner wait (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE, too")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    return given


def main() -> int:
    """Run the campaign; exit code 0, 1 where anything is lost, doubled, wrong or leaked, 130 where interrupted."""
    given = _arguments()
    seed = given.seed or secrets.token_hex(4)
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    begin_s, interrupted = time.monotonic(), False
    with Printer(given.rounds) as printer:
        printer.say(
            f"campaign: {given.rounds} rounds, seed {seed}, {given.warm or 'no'} warm containers of each runner "
            f"(about {given.rounds * _SECONDS_A_ROUND / 60:.0f} min)"
        )
        course = Course(Plan(given.rounds, seed, given.engine == "own", given.dir, given.pace, given.warm), printer)
        try:
            course.run()
        except KeyboardInterrupt:
            interrupted = True
    printer.end(course.outcome, seed, time.monotonic() - begin_s)
    if given.json:
        given.json.write_text(as_json(course.outcome, seed))
    if course.book.violations:
        return 1
    return _INTERRUPTED if interrupted else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the clean-up that follows is not interrupted
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
