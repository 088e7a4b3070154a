"""Rebuilds a journal that was lost or damaged: nothing that was accepted is ever silently forgotten.

What was accepted and not delivered stands in the audit trail; what had begun has a note beside its slot, and a spool.
The tasks themselves cannot be taken up again (their playbooks and results stood in the journal), so each is reported as
lost, with the output that is left.

A journal that opens well may be damaged all the same: SQLite passes over whatever does not fit in a damaged write-ahead
log, and what is left is an older state. The trail tells: every line was written after the commit that it is about. So
was every note beside a slot: just before its playbook could start, and the line of a start may be on disk later. A note
is synced just after that start. It outlives the agent in any case; where the machine goes within those milliseconds,
what had started went with it, and the journal's own commit, which was on disk before, tells of it.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agp_agent import lifecycle
from agp_agent.audit import CLOSING, Audit, AuditEvent, read_events
from agp_agent.capture import left_output
from agp_agent.ending import facts as facts_of
from agp_agent.errors import JournalDamaged
from agp_agent.journal import Journal, LostAttempt, Standing, set_aside, survey
from agp_agent.journal import check_schema as check_schema_of
from agp_agent.lifecycle import Reason, State
from agp_agent.output import Output
from agp_agent.state_dir import StateDir

log = structlog.get_logger(__name__)

Event = dict[str, Any]

_CARRIED = AuditEvent.TASK_CARRIED.value
_STARTED = AuditEvent.TASK_STARTED.value
_PUT_BACK = AuditEvent.TASK_REQUEUED.value
_LAST_STEPS = {State.RUNNING: _STARTED, State.FINISHED: AuditEvent.TASK_FINISHED.value}
"""What a trail that knew of a run would have of it last."""
_ENDED = frozenset({AuditEvent.TASK_FINISHED.value, AuditEvent.TASK_LOST.value})


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a journal is rebuilt, and under which name the old file is kept, if there was one."""

    why: str
    kept_as: Path | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal that can be worked on. ``damage``: it is a new one, to be rebuilt."""

    journal: Journal
    damage: Damage | None = None
    unrecorded: list[Event] = field(default_factory=list)
    """Acceptances of what was delivered, where the agent died before it could be written into the trail."""
    doubtful: list[str] = field(default_factory=list)
    """Runs of which nobody can say whether they were started."""
    put_back: list[str] = field(default_factory=list)
    """Runs that were put back into the queue, where the agent died before it could be written into the trail."""
    unknown: list[str] = field(default_factory=list)
    """Runs that the trail does not know: the agent died before their acceptance could be written into it."""


def check_schema(state: StateDir) -> None:
    """Find out whether the state is of an agent that this one can follow, before anything in it is touched.

    Raises:
        StateDirectoryError: it is of a newer agent.
    """
    with contextlib.suppress(JournalDamaged):  # it has no schema: that is told later, and healed
        check_schema_of(state.journal)


def open_journal(state: StateDir, audit: Audit) -> Opened:
    """Open the journal; a damaged one is set aside under a dated name, and an empty one made.

    Raises:
        StateDirectoryError: it cannot be opened at all, or is of a newer agent.
    """
    missing = not state.journal.exists() or state.journal.stat().st_size == 0
    if missing and (audit.head.seq or _to_report(state, audit)):  # an agent's first line comes after its journal
        return _anew(state, "the journal is missing or empty")
    try:
        journal = Journal(state.journal)
    except JournalDamaged as error:
        return _anew(state, str(error))
    try:
        opened = _compare(journal, state, audit)
    except JournalDamaged as error:
        journal.close()
        return _anew(state, str(error))
    except BaseException:
        journal.close()
        raise
    return opened


def _anew(state: StateDir, why: str) -> Opened:
    with contextlib.suppress(OSError):  # the new one may need its space; the disk watch takes it again
        state.reserve.unlink()
    kept_as = set_aside(state.journal)
    return Opened(Journal(state.journal), Damage(why, kept_as))


async def rebuild(journal: Journal, state: StateDir, audit: Audit, damage: Damage) -> int:
    """Report every task as lost that was accepted and not delivered; return their number."""
    spools = {run_id: spool for run_id, (_, spool) in _notes(state).items()}
    number = 0
    for accepted in _to_report(state, audit):
        lost = _lost_attempt(accepted)
        output = left_output(spools[lost.run_id]) if lost.run_id in spools else Output()
        verdict = lifecycle.lost(Reason.JOURNAL_LOST, "the agent's journal was damaged, and its record with it")
        if await journal.restore_lost(lost, verdict, output):
            audit.record(AuditEvent.TASK_LOST, task_id=lost.task_id, attempt=lost.attempt, run_id=lost.run_id)
            number += 1
    kept_as = str(damage.kept_as) if damage.kept_as else None
    audit.record(AuditEvent.JOURNAL_REBUILT, why=damage.why, kept_as=kept_as, tasks_lost=number)
    log.error("journal rebuilt from the audit trail", why=damage.why, kept_as=kept_as, tasks_lost=number)
    return number


async def settle(opened: Opened, state: StateDir, audit: Audit) -> int:
    """Bring journal and trail together: write into the trail what it lacks, and end what is doubtful as lost.

    Returns how many ended so.
    """
    for run_id in opened.unknown:
        if attempt := await opened.journal.attempt(run_id):
            last_step = _LAST_STEPS.get(attempt.state)
            audit.record(AuditEvent.TASK_CARRIED, **facts_of(attempt), runner=attempt.runner, last_step=last_step)
    for accepted in opened.unrecorded:
        facts = {name: accepted.get(name) for name in ("task_id", "attempt", "run_id")}
        audit.record(AuditEvent.TASK_DELIVERED, **facts, why="noted when the agent started again")
    for run_id in opened.put_back:
        if attempt := await opened.journal.attempt(run_id):
            facts = {"task_id": attempt.task_id, "attempt": attempt.attempt, "run_id": run_id}
            audit.record(AuditEvent.TASK_REQUEUED, **facts, why="noted when the agent started again")
    with contextlib.suppress(OSError):  # before they are prepared again, or they would look as if they had started
        await audit.flush()
    number = 0
    for run_id in opened.doubtful:
        attempt = await opened.journal.attempt(run_id)
        if attempt is None:
            continue
        verdict = lifecycle.lost(Reason.JOURNAL_LOST, "journal and audit trail disagree on whether it was started")
        output = left_output(state.spool / attempt.slot) if attempt.slot else Output()
        await opened.journal.finish(run_id, verdict, output)
        audit.record(AuditEvent.TASK_LOST, task_id=attempt.task_id, attempt=attempt.attempt, run_id=run_id)
        number += 1
    return number


# --- what the trail and the notes know -------------------------------------------------------------------------------


def _to_report(state: StateDir, audit: Audit) -> list[Event]:
    """What is lost with the journal: by the trail, and by the notes of what the trail does not have."""
    found = [task.facts for task in audit.open_tasks()]
    tasks = {event.get("task_id") for event in found}
    notes = {run_id: note for run_id, (note, _) in _notes(state).items() if note.get("task_id") not in tasks}
    if notes:
        for event in read_events(state.audit):
            if event.get("event") in CLOSING:
                notes.pop(str(event.get("run_id", "")), None)
    return [*found, *notes.values()]


def _lost_attempt(accepted: Event) -> LostAttempt:
    return LostAttempt(
        run_id=str(accepted["run_id"]),
        task_id=str(accepted.get("task_id", "")),
        attempt=int(accepted.get("attempt", 1)),
        playbook_name=str(accepted.get("playbook_name", "")),
        playbook_sha256=str(accepted.get("playbook_sha256", "")),
        runner=accepted.get("runner"),
    )


def _notes(state: StateDir) -> dict[str, tuple[Event, Path]]:
    """The notes beside the slots by their run, each with the spool that belongs to it."""
    return {run_id: (note, state.spool / slot) for run_id, slot, note in _all_notes(state)}


def _all_notes(state: StateDir) -> Iterator[tuple[str, str, Event]]:
    """Run, slot and note of every slot that has one; a run that was put back may have left one behind."""
    for path in state.slots.glob("*/note.json"):
        try:
            note = json.loads(path.read_text())
            run_id = str(note["run_id"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # torn: that task's output is not found, the task itself stands in the audit trail
        yield run_id, path.parent.name, note


# --- whether the journal still knows it ------------------------------------------------------------------------------


def _compare(journal: Journal, state: StateDir, audit: Audit) -> Opened:
    """Hold the journal against the trail, and say what either lacks.

    Raises:
        JournalDamaged: it has forgotten something that the trail has.
    """
    accepted = {task.run_id: task.facts for task in audit.open_tasks()}
    known = survey(state.journal, accepted)
    for run_id in accepted:
        if run_id not in known.unacknowledged and run_id not in known.acknowledged:
            raise _forgotten(state, run_id, "was accepted")
    doubtful, put_back = _compare_steps(state, known.unacknowledged) if known.unacknowledged else ([], [])
    unrecorded = [accepted[run_id] for run_id in accepted if run_id in known.acknowledged]
    unknown = [run_id for run_id in known.unacknowledged if run_id not in accepted]
    return Opened(journal, None, unrecorded, doubtful, put_back, unknown)


def _compare_steps(state: StateDir, standing: dict[str, Standing]) -> tuple[list[str], list[str]]:
    last_step: dict[str, object] = {}
    for event in read_events(state.audit):
        run_id, name = str(event.get("run_id", "")), _step_of(event)
        if run_id not in standing:
            continue
        if name == AuditEvent.TASK_DELIVERED:  # a result that was given up stays until it is given up again
            raise _forgotten(state, run_id, "was delivered")
        if name in _ENDED and standing[run_id].state is not State.FINISHED:
            raise _forgotten(state, run_id, "has ended")
        if name in (_STARTED, _PUT_BACK):
            last_step[run_id] = name
    started = {run_id: standing[run_id] for run_id, step in last_step.items() if step == _STARTED}
    for run_id, stands in started.items():
        if stands.state is State.QUEUED and not stands.prepared:  # what was put back had been prepared
            raise _forgotten(state, run_id, "was started")
    doubtful = {run_id for run_id, stands in started.items() if stands.state is State.PREPARING}
    put_back = [run_id for run_id, stands in started.items() if stands.state is State.QUEUED]
    return sorted(doubtful | _forgotten_releases(state, standing)), put_back


def _forgotten_releases(state: StateDir, standing: dict[str, Standing]) -> set[str]:
    """Runs that are only being prepared by the journal, and have the note in their slot that comes after that."""
    found = set[str]()
    for run_id, slot, _ in _all_notes(state):
        stands = standing.get(run_id)
        if stands is not None and stands.state is State.QUEUED and not stands.prepared:
            raise _forgotten(state, run_id, "was started")
        if stands is not None and stands.state is State.PREPARING and stands.slot == slot:
            found.add(run_id)
    return found


def _step_of(event: Event) -> str:
    """What an event tells of a task's walk; one that was carried forward tells what the trail knew by then."""
    return str(event.get("last_step") if event.get("event") == _CARRIED else event.get("event"))


def _forgotten(state: StateDir, run_id: str, what: str) -> JournalDamaged:
    return JournalDamaged(f"{state.journal}: the journal has forgotten that run {run_id} {what}.")
