"""A state directory in which results wait for a dashboard, made with the product's own journal."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Final

from agp_agent.journal import Admission, Journal
from agp_agent.lifecycle import Outcome, Reason, Verdict
from agp_agent.output import Output
from agp_agent.state_dir import StateDir
from support.orders import order

_AT_ONCE: Final = 250
_VERDICT: Final = Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 3", 3)


def seed(state: Path, task_ids: list[str]) -> None:
    """Accept and finish these, as an agent would that has since ended; nothing of them was ever delivered."""
    with StateDir(state) as folder, closing(Journal(folder.journal)) as journal:
        asyncio.run(_fill(journal, task_ids))


async def _fill(journal: Journal, task_ids: list[str]) -> None:
    for begin in range(0, len(task_ids), _AT_ONCE):
        await asyncio.gather(*(_finished(journal, task_id) for task_id in task_ids[begin : begin + _AT_ONCE]))


async def _finished(journal: Journal, task_id: str) -> None:
    accepted = await journal.accept(order(task_id), Admission(slots=_AT_ONCE, max_queued=_AT_ONCE))
    printed = f"this is {task_id}\n".encode()
    await journal.finish(accepted.run_id, _VERDICT, Output(printed, b"", len(printed)))
