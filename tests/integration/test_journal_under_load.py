"""The journal on a real file, while many write and read at once."""

import asyncio
from pathlib import Path

from agp_agent.journal import Admission, Journal, NewAttempt
from agp_agent.lifecycle import no_runner

RESULTS = 300


def _order(number: int) -> NewAttempt:
    return NewAttempt(
        task_id=f"t {number}",
        playbook_name="p",
        playbook=b"x",
        playbook_sha256="0" * 64,
        body_sha256="0" * 64,
        runner=None,
        idempotency_key=None,
    )


async def test_what_is_due_can_be_asked_while_results_are_posted(tmp_path: Path) -> None:
    """Each answer holds what was there at some moment, none twice; in the end everything is due."""
    journal = Journal(tmp_path / "journal.db")
    admission = Admission(slots=1, max_queued=1, rerun_after_s=0)

    async def post() -> None:
        for number in range(RESULTS):
            await journal.accept(_order(number), admission, no_runner("p", ["shell"]))

    try:
        posting = asyncio.create_task(post())
        while not posting.done():
            due = await journal.due(limit=RESULTS, skip=[], horizon_ms=10**9)
            assert len(set(due)) == len(due)
        await posting
        assert sorted(await journal.due(limit=RESULTS, skip=[], horizon_ms=10**9)) == list(range(1, RESULTS + 1))
    finally:
        journal.close()
