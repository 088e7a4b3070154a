"""What the journal tells people about tasks and their delivery. Reading only."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from agp_agent.journal.records import Delivery
from agp_agent.journal.transactions import SQL
from agp_agent.lifecycle import WIRE_STATUS, Outcome, State
from agp_agent.models import TaskStatus
from agp_agent.output import Output
from agp_agent.play import Play

T = TypeVar("T")

_NEWEST = 2**63 - 1
_MADE_HERE = frozenset({"status", "delivery", "play"})
"""Fields of a ``TaskView`` that are no columns."""
ALIAS_PREFIX = "~"
"""``~<sha256 of the id>`` stands for a task whose id no URL can hold well."""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """How the delivery of a result stands; pending also while there is no result yet."""

    state: Delivery
    attempts: int
    last_error: str | None
    next_attempt_at_ms: int | None
    acknowledged_at_ms: int | None


@dataclass(frozen=True, slots=True)
class TaskView:
    """The latest attempt of a task. Times are wall-clock milliseconds since 1970."""

    task_id: str
    attempt: int
    state: State
    status: TaskStatus
    outcome: str | None
    reason: str | None
    error: str | None
    exit_code: int | None
    playbook_name: str
    playbook_sha256: str
    runner: str | None
    image: str | None
    image_digest: str | None
    container_id: str | None
    accepted_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None
    output_bytes: int | None
    output_omitted_bytes: int | None
    delivery: DeliveryView
    play: Play | None = None
    """What its tool told of the run; only where one task is asked for."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which attempts are wanted; None is any."""

    state: State | None = None
    outcome: Outcome | None = None
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An attempt of a task, and what the journal keeps of its output; nothing before its end."""

    run_id: str
    attempt: int
    state: State
    output: Output


@dataclass(frozen=True, slots=True)
class OutboxView:
    """How many results wait or were given up, and since when the oldest of the waiting ones is there."""

    pending: int
    dead_letters: int
    oldest_age_s: float | None


class Readable(Protocol):
    """What reads are run on."""

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run it on a connection that changes nothing."""


class Views:
    """Queries for people; each sees one committed state."""

    def __init__(self, db: Readable, now_ms: Callable[[], int]) -> None:
        """Read from ``db``; ``now_ms`` is the wall clock."""
        self._db = db
        self._now_ms = now_ms

    async def task(self, task_id: str, attempt: int | None = None) -> TaskView | None:
        """The latest attempt of this task, or the one that is named; None where the journal knows none (any more)."""
        wanted = {"task_id": task_id, "attempt": attempt}
        row = await self._db.read(lambda db: db.execute(SQL["view_task"], wanted).fetchone())
        if row is None:
            return None
        return replace(_task_of(row), play=Play.model_validate_json(row["play"]) if row["play"] else None)

    async def tasks(self, wanted: TaskFilter, limit: int, before: int | None) -> tuple[list[TaskView], int | None]:
        """Attempts, the newest first, and the cursor from which the next ones come; None: there are no more."""
        row = {name: getattr(wanted, name) for name in TaskFilter.__slots__}
        row |= {"before": _NEWEST if before is None else before, "limit": limit + 1}
        found = await self._db.read(lambda db: db.execute(SQL["view_tasks"], row).fetchall())
        more = found[limit - 1]["seq"] if len(found) > limit else None
        return [_task_of(one) for one in found[:limit]], more

    async def dead_letter(self, task_id: str) -> dict[str, Any] | None:
        """The facts of a result that was given up, or None where this task has none."""
        row = await self._db.read(lambda db: db.execute(SQL["dead_letter_of"], {"task_id": task_id}).fetchone())
        return {name: row[name] for name in ("task_id", "attempt", "run_id", "last_error")} if row else None

    async def kept(self, task_id: str, attempt: int | None = None) -> Kept | None:
        """The output of the same, as far as it is on record."""
        wanted = {"task_id": task_id, "attempt": attempt}
        row = await self._db.read(lambda db: db.execute(SQL["view_kept"], wanted).fetchone())
        if row is None:
            return None
        output = Output()
        if row["output_head"] is not None:
            output = Output(
                row["output_head"],
                row["output_tail"],
                row["output_bytes"] or 0,
                row["output_omitted_bytes"] or 0,
                bool(row["output_at_least"]),
            )
        return Kept(row["run_id"], row["attempt"], State(row["state"]), output)

    async def task_id_of(self, alias: str) -> str | None:
        """The task_id that ``~<sha256>`` stands for; None where it stands for none."""
        wanted = {"alias": alias.removeprefix(ALIAS_PREFIX)}
        row = await self._db.read(lambda db: db.execute(SQL["task_id_of"], wanted).fetchone())
        return str(row["task_id"]) if row else None

    async def states(self) -> Counter[State]:
        """How many attempts stand in each state that is not finished."""
        rows = await self._db.read(lambda db: db.execute(SQL["count_by_state"]).fetchall())
        return Counter({State(name): number for name, number in rows})

    async def oldest_queued_s(self) -> float | None:
        """How long the first of the queue has waited, by the wall clock; None where nobody waits."""
        row = await self._db.read(lambda db: db.execute(SQL["oldest_queued"]).fetchone())
        return None if row is None else max(0.0, (self._now_ms() - row["accepted_at_ms"]) / 1000)

    async def outbox(self) -> OutboxView:
        """What the dashboard has not acknowledged."""
        row = await self._db.read(lambda db: db.execute(SQL["view_outbox"]).fetchone())
        oldest_ms = row["oldest_ms"]
        age_s = None if oldest_ms is None else max(0.0, (self._now_ms() - oldest_ms) / 1000)
        return OutboxView(row["pending"] or 0, row["dead_letters"] or 0, age_s)


def _task_of(row: sqlite3.Row) -> TaskView:
    state = State(row["state"])
    fields: dict[str, Any] = {name: row[name] for name in TaskView.__slots__ if name not in _MADE_HERE}
    fields["state"] = state
    if state is State.FINISHED:
        status = TaskStatus.COMPLETED if row["outcome"] == Outcome.SUCCEEDED else TaskStatus.FAILED
    else:
        status = WIRE_STATUS[state]
    delivery = DeliveryView(
        state=Delivery(row["delivery_state"] or Delivery.PENDING),
        attempts=row["delivery_attempts"] or 0,
        last_error=row["last_error"],
        next_attempt_at_ms=row["next_attempt_at_ms"],
        acknowledged_at_ms=row["acknowledged_at_ms"],
    )
    return TaskView(**fields, status=status, delivery=delivery)
