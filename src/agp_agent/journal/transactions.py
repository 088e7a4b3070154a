"""What the journal's transactions do, as plain functions of a connection. No threads, no clock, no events."""

import json
import sqlite3
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

from agp_agent.clock import BootTime
from agp_agent.errors import AlreadyRunning, Unavailable
from agp_agent.journal.records import (
    Accepted,
    Admission,
    Attempt,
    Delivery,
    DueResult,
    NewAttempt,
    Release,
    Reservation,
    Start,
)
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.models import TaskStatus
from agp_agent.output import Output

IDEMPOTENCY_WINDOW_MS: Final = 24 * 3600 * 1000
"""An Idempotency-Key is remembered this long."""

_MS: Final = 1000
_SETTLED_MS: Final = 10_000
"""After so long an acknowledgement is in the audit trail, unless that cannot be written."""


def _named_queries(text: str) -> dict[str, str]:
    parts = text.split("-- name: ")[1:]
    return {name.strip(): sql.strip() for name, _, sql in (part.partition("\n") for part in parts)}


SQL: Final = _named_queries((files(__package__) / "sql" / "queries.sql").read_text())


def accept(
    db: sqlite3.Connection, new: NewAttempt, run_id: str, admission: Admission, now_ms: int, boot: BootTime
) -> Accepted:
    """Take on an order, or raise why not; first replay, then 409, then the queue's limit."""
    if new.idempotency_key is not None and (replay := _replay(db, new, now_ms)):
        return replay
    latest = db.execute(SQL["latest_of_task"], {"task_id": new.task_id}).fetchone()
    if latest is not None:
        _refuse_while_open(latest)
        _refuse_identical(latest, new, admission, now_ms)
    live = _refuse_when_full(db, admission)
    status = TaskStatus.RUNNING if live < admission.slots else TaskStatus.PENDING
    attempt = latest["attempt"] + 1 if latest is not None else 1
    row: dict[str, object] = {"run_id": run_id, "attempt": attempt, "accepted_status": status.value}
    row |= {name: getattr(new, name) for name in NewAttempt.__slots__} | {"accepted_at_ms": now_ms}
    db.execute(SQL["insert"], row | boot._asdict())
    return Accepted(status, run_id, attempt)


def begin(db: sqlite3.Connection, accepted: Accepted, reservation: Reservation) -> Accepted:
    """Let an order that was just taken on have its reservation, unless others wait that could have the place."""
    row = {"run_id": reservation.run_id, "skip": json.dumps(reservation.full_runners)}
    if db.execute(SQL["is_queued_before"], row).fetchone() or not start(db, reservation.run_id, reservation.start):
        return accepted
    return replace(accepted, begun=attempt_of(db.execute(SQL["by_run_id"], row).fetchone()))


def start(db: sqlite3.Connection, run_id: str, start: Start) -> bool:
    """Note that a queued attempt may be started in a container that waits. False: it is cancelled, or not queued."""
    row = {name: getattr(start, name) for name in Start.__slots__ if name != "release"}
    row |= {name: getattr(start.release, name) for name in Release.__slots__}
    return bool(db.execute(SQL["start"], row | {"run_id": run_id}).rowcount)


def _replay(db: sqlite3.Connection, new: NewAttempt, now_ms: int) -> Accepted | None:
    since_ms = now_ms - IDEMPOTENCY_WINDOW_MS
    keys = {"idempotency_key": new.idempotency_key, "since_ms": since_ms}
    row = db.execute(SQL["by_idempotency_key"], keys).fetchone()
    if row is None:
        return None
    if row["body_sha256"] != new.body_sha256:
        raise AlreadyRunning("This Idempotency-Key was used for another task within the last 24 h.")
    return Accepted(TaskStatus(row["accepted_status"]), replayed=True)


def _refuse_when_full(db: sqlite3.Connection, admission: Admission) -> int:
    """Return how many attempts have not ended; what runs is not in the queue, also while the engine is away."""
    states = dict(db.execute(SQL["count_by_state"]).fetchall())
    live: int = sum(states.values())
    running = live - states.get(State.QUEUED, 0)
    if live >= max(admission.slots, running) + admission.max_queued:
        raise Unavailable(f"The queue is full ({admission.max_queued} tasks are waiting); send the task again later.")
    return live


def _refuse_while_open(latest: sqlite3.Row) -> None:
    if not latest["is_open"]:
        return
    if latest["delivery"] == Delivery.DEAD_LETTER:
        why = "has finished, but the dashboard refused its result; an operator has to deliver or drop it"
    elif latest["state"] == State.FINISHED:
        why = "has finished, but the dashboard has not acknowledged its result yet"
    elif latest["state"] == State.RUNNING:
        why = "is already running"
    else:
        why = "is already queued"
    raise AlreadyRunning(f"A task with the same task_id {why}.")


def _refuse_identical(latest: sqlite3.Row, new: NewAttempt, admission: Admission, now_ms: int) -> None:
    if latest["body_sha256"] != new.body_sha256 or latest["acknowledged_at_ms"] is None:
        return
    if now_ms - latest["acknowledged_at_ms"] < admission.rerun_after_s * _MS:
        raise AlreadyRunning(
            f"An identical task was acknowledged less than {admission.rerun_after_s:.12g} s ago; it is not run again."
        )


def finish(db: sqlite3.Connection, run_id: str, verdict: Verdict, output: Output, now_ms: int) -> bool:
    """Write down how a task ended, and its result for the dashboard. False: it had ended already."""
    changed = db.execute(
        SQL["finish"],
        {
            "run_id": run_id,
            "outcome": verdict.outcome.value,
            "reason": verdict.reason.value,
            "error": verdict.sentence,
            "exit_code": verdict.exit_code,
            "output_bytes": output.total_bytes,
            "output_omitted_bytes": output.omitted_bytes,
            "finished_at_ms": now_ms,
        },
    ).rowcount
    if changed:
        posted = {"run_id": run_id, "output_head": output.head, "output_tail": output.tail, "finished_at_ms": now_ms}
        told = verdict.play.model_dump_json() if verdict.play else None
        db.execute(SQL["post"], posted | {"output_at_least": int(output.at_least), "play": told})
    return bool(changed)


def acknowledge(db: sqlite3.Connection, seq: int, now_ms: int) -> None:
    """The dashboard has the result: the task is over for both sides."""
    if db.execute(SQL["acknowledge"], {"seq": seq, "now_ms": now_ms}).rowcount:
        db.execute(SQL["close"], {"seq": seq})


def used_bytes(db: sqlite3.Connection) -> int:
    """How much of the file is in use; what was deleted is used again before the file grows."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def make_room(db: sqlite3.Connection, limit_bytes: int, now_ms: int, batch: int) -> int:
    """Forget some of the oldest acknowledged results where more than this is in use; return how many.

    What an Idempotency-Key may still be asked for keeps its row, and loses its output.
    """
    if used_bytes(db) <= limit_bytes:
        return 0
    bounds = {"keys_before_ms": now_ms - IDEMPOTENCY_WINDOW_MS, "limit": batch}
    bounds |= {"settled_before_ms": now_ms - _SETTLED_MS, "now_ms": now_ms}
    rows = db.execute(SQL["oldest_acknowledged"], bounds).fetchall()
    for row in rows:
        db.execute(SQL["drop_output" if row["is_remembered"] else "forget"], {"seq": row["seq"]})
    return len(rows)


def attempt_of(row: sqlite3.Row) -> Attempt:
    """A row of ``attempts`` as a value."""
    fields: dict[str, Any] = {name: row[name] for name in Attempt.__slots__}
    fields["state"] = State(row["state"])
    fields["playbook"] = row["playbook"] or b""
    fields["cancel_requested"] = bool(row["cancel_requested"])
    fields["asked"] = Reason(row["asked"]) if row["asked"] else None
    return Attempt(**fields)


def due_result_of(row: sqlite3.Row) -> DueResult:
    """A row of the query ``due`` as a value."""
    output = Output(
        head=row["output_head"],
        tail=row["output_tail"],
        total_bytes=row["output_bytes"],
        omitted_bytes=row["output_omitted_bytes"],
        at_least=bool(row["output_at_least"]),
    )
    return DueResult(
        seq=row["seq"],
        run_id=row["run_id"],
        task_id=row["task_id"],
        attempt=row["attempt"],
        outcome=Outcome(row["outcome"]),
        error=row["error"],
        output=output,
        deliveries=row["deliveries"],
        accepted_at_ms=row["accepted_at_ms"],
        traceparent=row["traceparent"],
    )
