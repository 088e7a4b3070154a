"""Row 20: playbooks that print without end, and what no terminal would like to see."""

import sys

import pytest

from fault.conftest import StartWatched
from support.flood import Flood, ansi, binary, gigabyte, lines, one_line
from support.ledger import Ledger
from support.memory import MemoryGrowth

MIB = 2**20
GROWTH_MAX_BYTES = 64 * MIB
LONG_S = 1500.0

SHORT = [one_line(100_000_000), lines(600_000), binary(24), ansi(8)]
"""A line of 100 MB at its full length; the others in part, for dockerd's log takes 30 s for ten million lines."""
LONG = {"1 GB": gigabyte(), "10,000,000 lines": lines(10_000_000)}


def _run(watched: Ledger, floods: list[Flood], patience_s: float) -> None:
    """Send them one after the other to an agent that keeps good neighbours meanwhile."""
    with MemoryGrowth(watched.agent.process.pid) as growth:
        watched.neighbours()
        sent = {}
        for flood in floods:
            task_id = watched.send(flood.script)
            sent[task_id] = flood
            watched.dashboard.result(task_id, patience_s=patience_s)
        results = watched.check(patience_s=patience_s)
        grown = growth.peak_bytes
    for task_id, flood in sent.items():
        result = results[task_id]
        first_line, _, _ = result["output"].partition("\n")
        assert result["error"] == f"exit code {flood.exit_code}", flood.about
        # Compared in one piece and never shown: a difference of megabytes would take pytest for ever.
        same = result["output"] == flood.expected(first_line + "\n")
        assert same, f"{flood.about}: {result['output'][:200]!r}"
    sys.stdout.write(f"memory grew by {grown / MIB:.0f} MiB\n")
    assert grown < GROWTH_MAX_BYTES


def test_floods_of_output_are_cut_and_counted(start_watched: StartWatched) -> None:
    """Row 20: head, tail and the exact count of 100 MB in a line, of lines, of every byte, of escapes; memory flat."""
    _run(start_watched(), SHORT, 120)


@pytest.mark.campaign
@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("flood", LONG.values(), ids=list(LONG))
def test_a_gigabyte_and_ten_million_lines_are_cut_and_counted(start_watched: StartWatched, flood: Flood) -> None:
    """Row 20: the same at full length, 1 GB and 10 million lines."""
    _run(start_watched({"AGP_MAX_RUNNING": 2}), [flood], LONG_S)
