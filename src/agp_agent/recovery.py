"""Rebuilds a journal that was lost or damaged: nothing that was accepted is ever silently forgotten.

What was accepted and not delivered stands in the audit trail; what had begun has a note beside its slot, and a spool.
The tasks themselves cannot be taken up again (their playbooks and results stood in the journal), so each is reported as
lost, with the output that is left.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agp_agent import lifecycle
from agp_agent.audit import Audit, AuditEvent, read_events
from agp_agent.capture import Spool
from agp_agent.journal import Journal, JournalDamaged, LostAttempt, set_aside
from agp_agent.lifecycle import Reason
from agp_agent.output import Output
from agp_agent.state_dir import StateDir

log = structlog.get_logger(__name__)

_OPENED = AuditEvent.TASK_ACCEPTED.value
_CLOSED = AuditEvent.TASK_DELIVERED.value


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a journal is rebuilt, and under which name the old file is kept, if there was one."""

    why: str
    kept_as: Path | None


def open_journal(state: StateDir) -> tuple[Journal, Damage | None]:
    """Open the journal; a damaged one is set aside under a dated name, and an empty one made.

    Open the audit trail first: that repairs its torn last line.

    Raises:
        StateDirectoryError: it cannot be opened at all, or is of a newer agent.
    """
    missing = not state.journal.exists() or state.journal.stat().st_size == 0
    if missing and any(True for _ in undelivered(read_events(state.audit))):
        kept_as = set_aside(state.journal)
        return Journal(state.journal), Damage("the journal is missing or empty", kept_as)
    try:
        return Journal(state.journal), None
    except JournalDamaged as error:
        kept_as = set_aside(state.journal)
        return Journal(state.journal), Damage(str(error), kept_as)


async def rebuild(journal: Journal, state: StateDir, audit: Audit, damage: Damage) -> int:
    """Report every task as lost that was accepted and not delivered; return their number."""
    spools = _spools_by_run(state)
    number = 0
    for accepted in undelivered(read_events(state.audit)):
        lost = _lost_attempt(accepted)
        output = _output_of(spools.get(lost.run_id))
        verdict = lifecycle.lost(Reason.JOURNAL_LOST, "the agent's journal was damaged, and its record with it")
        if await journal.restore_lost(lost, verdict, output):
            audit.record(AuditEvent.TASK_LOST, task_id=lost.task_id, attempt=lost.attempt, run_id=lost.run_id)
            number += 1
    kept_as = str(damage.kept_as) if damage.kept_as else None
    audit.record(AuditEvent.JOURNAL_REBUILT, why=damage.why, kept_as=kept_as, tasks_lost=number)
    log.error("journal rebuilt from the audit trail", why=damage.why, kept_as=kept_as, tasks_lost=number)
    return number


def undelivered(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events of acceptance that no delivery followed, in their order."""
    open_runs: dict[str, dict[str, Any]] = {}
    for event in events:
        run_id = str(event.get("run_id", ""))
        if event.get("event") == _OPENED and run_id:
            open_runs[run_id] = event
        elif event.get("event") == _CLOSED:
            open_runs.pop(run_id, None)
    yield from open_runs.values()


def _lost_attempt(accepted: dict[str, Any]) -> LostAttempt:
    return LostAttempt(
        run_id=str(accepted["run_id"]),
        task_id=str(accepted.get("task_id", "")),
        attempt=int(accepted.get("attempt", 1)),
        playbook_name=str(accepted.get("playbook_name", "")),
        playbook_sha256=str(accepted.get("playbook_sha256", "")),
        runner=accepted.get("runner"),
    )


def _spools_by_run(state: StateDir) -> dict[str, Path]:
    """Which spool belongs to which run, by the notes beside the slots."""
    found: dict[str, Path] = {}
    for note in state.slots.glob("*/note.json"):
        try:
            found[str(json.loads(note.read_text())["run_id"])] = state.spool / note.parent.name
        except (OSError, ValueError, KeyError, TypeError):
            continue  # torn: that task's output is not found, the task itself stands in the audit trail
    return found


def _output_of(spool: Path | None) -> Output:
    if spool is None or not spool.exists():
        return Output()
    opened = Spool.reopen(spool, 2**20)
    opened.note_gap()
    output = opened.output()
    opened.discard()
    return output
