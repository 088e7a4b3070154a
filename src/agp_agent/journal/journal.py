"""The journal's operations. Every write has happened, durably, when its call returns."""

import asyncio
import json
import math
import sqlite3
import uuid
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Final

from agp_agent.clock import BootTime, boot_time, wall_ms
from agp_agent.journal import transactions
from agp_agent.journal.database import Database, touch
from agp_agent.journal.records import (
    Accepted,
    Admission,
    Attempt,
    Delivery,
    DueResult,
    LostAttempt,
    NewAttempt,
    Release,
    Reservation,
    Start,
    Waiting,
)
from agp_agent.journal.transactions import SQL
from agp_agent.journal.views import Views
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.output import Output

_PURGE_BATCH: Final = 500
_ROOM_BATCH: Final = 20
"""Few at a time: each may be large, and one is enough to be within the limit again."""


class Journal:
    """The durable truth about every accepted task.

    The loops never call each other; each sleeps on an event of the journal that is set after the commit it waits for.
    """

    def __init__(
        self, path: Path, now_ms: Callable[[], int] = wall_ms, boot_time: Callable[[], BootTime] = boot_time
    ) -> None:
        """Open the journal at ``path``; ``now_ms`` is the wall clock, ``boot_time`` the one that never jumps.

        Raises:
            StateDirectoryError: the file is damaged, of a newer agent, or cannot be opened.
        """
        self._db = Database(path)
        self._now_ms = now_ms
        self._boot_time = boot_time
        self.views = Views(self._db, now_ms)
        self.queue_changed = asyncio.Event()
        self.outbox_changed = asyncio.Event()
        self._cancels: dict[str, asyncio.Event] = {}

    async def broken(self) -> None:
        """Wait, for ever where all is well. Raises ``JournalBroken`` once the journal cannot be used any more."""
        await self._db.broken()

    def on_commit(self, told: Callable[[float], None]) -> None:
        """Have ``told`` called with the seconds that each commit takes, by the thread that writes."""
        self._db.on_commit = told

    def close(self) -> None:
        """Finish what was asked for and close the file. Idempotent."""
        self._db.close()

    # --- accepting -------------------------------------------------------------------------------------------------

    async def accept(
        self,
        new: NewAttempt,
        admission: Admission,
        reject: Verdict | None = None,
        reservation: Reservation | None = None,
    ) -> Accepted:
        """Take on an order durably; in the same commit it is finished with ``reject``, or begun as reserved.

        Raises:
            AlreadyRunning: the task_id is open, or its key or body was seen before (409).
            Unavailable: the queue is full (503).
            JournalUnavailable: it could not be made durable.
        """
        run_id = reservation.run_id if reservation else uuid.uuid4().hex
        now_ms, boot = self._now_ms(), self._boot_time()

        def operation(db: sqlite3.Connection) -> Accepted:
            accepted = transactions.accept(db, new, run_id, admission, now_ms, boot)
            if reject and not accepted.replayed:
                transactions.finish(db, run_id, reject, Output(), now_ms)
            if reservation and not accepted.replayed:
                accepted = transactions.begin(db, accepted, reservation)
            return accepted

        accepted = await self._db.write(operation)
        if accepted.begun is None:
            (self.outbox_changed if reject else self.queue_changed).set()
        return accepted

    async def request_cancel(self, task_id: str) -> bool:
        """Note that this task is to be stopped. False: there is none that has not ended."""

        def operation(db: sqlite3.Connection) -> str | None:
            row = db.execute(SQL["request_cancel"], {"task_id": task_id}).fetchone()
            return row["run_id"] if row else None

        run_id = await self._db.write(operation)
        if run_id is None:
            return False
        if run_id in self._cancels:
            self._cancels[run_id].set()
        self.queue_changed.set()
        return True

    def cancel_event(self, run_id: str) -> asyncio.Event:
        """Set once a cancel of this attempt is in the journal. Whoever asks for it calls ``forget_cancel`` later."""
        return self._cancels.setdefault(run_id, asyncio.Event())

    def forget_cancel(self, run_id: str) -> None:
        """The attempt has ended; nobody waits for its cancel any more."""
        self._cancels.pop(run_id, None)

    # --- the walk of one attempt -----------------------------------------------------------------------------------

    async def next_queued(self, *, limit: int, skip: list[str]) -> list[Waiting]:
        """The first queued attempts in the order of their acceptance, without those of the runners in ``skip``."""
        return await self._waiting("next_queued", {"limit": limit, "skip": json.dumps(skip)})

    async def not_to_start(self, *, queue_timeout_s: float) -> list[Waiting]:
        """Queued attempts that were cancelled or have waited too long; 0 is no limit.

        Waiting is counted by the boot clock, and by the wall clock only where a reboot lies between.
        """
        values: dict[str, object] = {"queue_timeout_s": queue_timeout_s or math.inf, "now_ms": self._now_ms()}
        return await self._waiting("not_to_start", values | self._boot_time()._asdict())

    async def _waiting(self, query: str, values: dict[str, object]) -> list[Waiting]:
        rows = await self._db.read(lambda db: db.execute(SQL[query], values).fetchall())
        return [Waiting(row["run_id"], row["runner"], bool(row["cancel_requested"])) for row in rows]

    async def open_slots(self) -> set[str]:
        """The slots of all attempts that are preparing or running."""
        return {row["slot"] for row in await self._db.read(lambda db: db.execute(SQL["open_slots"]).fetchall())}

    async def attempt(self, run_id: str) -> Attempt | None:
        """One attempt, or None."""
        row = await self._db.read(lambda db: db.execute(SQL["by_run_id"], {"run_id": run_id}).fetchone())
        return transactions.attempt_of(row) if row else None

    async def unfinished(self) -> list[Attempt]:
        """All attempts that are preparing or running."""
        rows = await self._db.read(lambda db: db.execute(SQL["unfinished"]).fetchall())
        return [transactions.attempt_of(row) for row in rows]

    async def preparing(self, run_id: str, *, slot: str, image: str, timeout_s: float, memory_bytes: int) -> bool:
        """Note the slot before anything is asked of the engine. False: it is not queued any more, or cancelled."""
        row = {"run_id": run_id, "slot": slot, "image": image, "timeout_s": timeout_s, "memory_bytes": memory_bytes}
        return await self._update("preparing", row)

    async def running(self, run_id: str, release: Release) -> bool:
        """Note that the playbook may start from now on. False: it was cancelled meanwhile; do not release it."""
        row = {name: getattr(release, name) for name in Release.__slots__}
        return await self._update("running", row | {"run_id": run_id})

    async def start(self, run_id: str, start: Start) -> bool:
        """Note at once the slot of a container that waits, and that the playbook may start in it from now on.

        False: it is not queued any more, or cancelled; do not release it.
        """
        return await self._db.write(lambda db: transactions.start(db, run_id, start))

    async def requeue(self, run_id: str, *, slot: str, seen: State, failed_try: bool) -> bool:
        """Put it back at its old place in the queue: only where it is certain that the playbook never started.

        False: it does not stand in ``slot`` and state ``seen`` any more, so that nothing is certain.
        """
        row: dict[str, object] = {"run_id": run_id, "slot": slot, "seen": seen.value, "tries": int(failed_try)}
        done = await self._update("requeue", row)
        self.queue_changed.set()
        return done

    async def asked(self, run_id: str, reason: Reason) -> None:
        """Note, before it is done, that the agent itself stops the container."""
        await self._update("asked", {"run_id": run_id, "asked": reason.value})

    async def verdict(self, run_id: str) -> Verdict | None:
        """How an attempt ended, or None while it has not."""
        row = await self._db.read(lambda db: db.execute(SQL["verdict"], {"run_id": run_id}).fetchone())
        return Verdict(Outcome(row[0]), Reason(row[1]), row[2], row[3]) if row else None

    async def finish(self, run_id: str, verdict: Verdict, output: Output) -> bool:
        """Note how it ended and post its result, in one transaction. False: it had ended already."""
        now_ms = self._now_ms()
        done = await self._db.write(lambda db: transactions.finish(db, run_id, verdict, output, now_ms))
        self.outbox_changed.set()
        return done

    async def restore_lost(self, lost: LostAttempt, verdict: Verdict, output: Output) -> bool:
        """Write down an attempt whose row was lost, as ended. False: it, or a later one, is there already."""
        now_ms = self._now_ms()
        row: dict[str, object] = {name: getattr(lost, name) for name in LostAttempt.__slots__}

        def operation(db: sqlite3.Connection) -> bool:
            if not db.execute(SQL["restore"], row | {"accepted_at_ms": now_ms}).rowcount:
                return False
            return transactions.finish(db, lost.run_id, verdict, output, now_ms)

        return await self._db.write(operation)

    # --- delivery --------------------------------------------------------------------------------------------------

    async def due(self, *, limit: int, skip: list[int], horizon_ms: int, newest_first: bool = False) -> list[int]:
        """Numbers of results to deliver now, without those in ``skip``: the longest due and the newest by turns.

        So neither a backlog keeps new results waiting, nor they the backlog. Whoever asks for one at a time has to
        change ``newest_first`` from one time to the next.

        A result due later than ``horizon_ms`` from now is due at once: only a clock that was set back does that.
        """
        now_ms = self._now_ms()
        bounds = {"now_ms": now_ms, "too_far_ms": now_ms + horizon_ms, "limit": limit, "skip": json.dumps(skip)}

        def operation(db: sqlite3.Connection) -> list[int]:
            names = ("newest_due_seqs", "due_seqs") if newest_first else ("due_seqs", "newest_due_seqs")
            ends = [[row[0] for row in db.execute(SQL[name], bounds)] for name in names]
            # A result may be posted between the two: they need not be equally long.
            by_turns = [seq for pair in zip_longest(*ends) for seq in pair if seq is not None]
            return list(dict.fromkeys(by_turns))[:limit]

        return await self._db.read(operation)

    async def due_result(self, seq: int) -> DueResult | None:
        """A result with its output."""
        row = await self._db.read(lambda db: db.execute(SQL["due"], {"seq": seq}).fetchone())
        return transactions.due_result_of(row) if row else None

    async def next_due_in_s(self, *, skip: list[int]) -> float | None:
        """Seconds until the next delivery of a result not in ``skip``; None where nothing waits. Never negative."""
        at_ms = await self._db.read(lambda db: db.execute(SQL["next_due"], {"skip": json.dumps(skip)}).fetchone()[0])
        return None if at_ms is None else max(0.0, (at_ms - self._now_ms()) / 1000)

    async def acknowledge(self, seq: int) -> None:
        """The dashboard has it."""
        now_ms = self._now_ms()
        await self._db.write(lambda db: transactions.acknowledge(db, seq, now_ms))

    async def postpone(self, seq: int, *, delay_s: float, error: str) -> None:
        """It was not taken; try again in ``delay_s``."""
        at_ms = self._now_ms() + int(delay_s * 1000)
        await self._update("postpone", {"seq": seq, "last_error": error, "next_attempt_at_ms": at_ms})

    async def shrink(self, seq: int, output: Output) -> bool:
        """Keep less of its output, once; it stays due. False: that was done before."""
        row = {"seq": seq, "output_head": output.head, "output_tail": output.tail}

        def operation(db: sqlite3.Connection) -> bool:
            if not db.execute(SQL["shrink"], row).rowcount:
                return False
            db.execute(SQL["omit"], {"seq": seq, "output_omitted_bytes": output.omitted_bytes})
            return True

        done = await self._db.write(operation)
        self.outbox_changed.set()
        return done

    async def dead_letter(self, seq: int, *, error: str) -> None:
        """It will never be taken as it is; an operator has to look."""
        await self._update("dead_letter", {"seq": seq, "last_error": error})

    async def retry_delivery(self, task_id: str) -> bool:
        """Have the result of this task delivered now, a dead letter too. False: it has none that waits."""
        done = await self._update("retry_delivery", {"task_id": task_id, "now_ms": self._now_ms()})
        self.outbox_changed.set()
        return done

    async def retry_dead_letters(self) -> int:
        """Have all dead letters delivered now; how many there are."""
        row = {"now_ms": self._now_ms()}
        number = await self._db.write(lambda db: db.execute(SQL["retry_dead_letters"], row).rowcount)
        self.outbox_changed.set()
        return number

    async def drop_dead_letter(self, run_id: str) -> bool:
        """Forget a result that will never be delivered, and its attempt. False: it is no dead letter (any more)."""
        return await self._update("drop_dead_letter", {"run_id": run_id})

    # --- housekeeping ----------------------------------------------------------------------------------------------

    async def counts(self) -> dict[State | Delivery, int]:
        """How many attempts stand in each state that is not finished, and results in each that is not acknowledged."""

        def operation(db: sqlite3.Connection) -> dict[State | Delivery, int]:
            states = {State(name): number for name, number in db.execute(SQL["count_by_state"])}
            return states | {Delivery(name): number for name, number in db.execute(SQL["count_outbox"])}

        return await self._db.read(operation)

    async def probe(self) -> None:
        """Find out whether the journal can be written. Raises ``JournalUnavailable`` where it cannot."""
        await self._db.write(touch)

    async def expire(self, *, older_than_s: float, why: str) -> list[dict[str, object]]:
        """Make dead letters of some results that were not acknowledged for so long; return what they are about."""
        bounds = {"before_ms": self._now_ms() - int(older_than_s * 1000), "limit": _PURGE_BATCH}

        def operation(db: sqlite3.Connection) -> list[dict[str, object]]:
            rows = db.execute(SQL["expired"], bounds).fetchall()
            db.executemany(SQL["expire"], [{"seq": row["seq"], "why": why} for row in rows])
            return [{name: row[name] for name in ("task_id", "attempt", "run_id")} for row in rows]

        return await self._db.write(operation)

    async def purge(self, *, older_than_s: float) -> int:
        """Forget some acknowledged results that are older; return how many were forgotten."""
        now_ms = self._now_ms()
        keys_before_ms = now_ms - transactions.IDEMPOTENCY_WINDOW_MS
        bounds = {"before_ms": now_ms - int(older_than_s * 1000), "keys_before_ms": keys_before_ms}
        bounds["limit"] = _PURGE_BATCH
        return await self._db.write(lambda db: db.execute(SQL["purge"], bounds).rowcount)

    async def used_bytes(self) -> int:
        """How much of the journal's file is in use."""
        return await self._db.read(transactions.used_bytes)

    async def make_room(self, *, limit_bytes: int) -> int:
        """Forget some acknowledged results, oldest first, where more than this is in use; return how many.

        Flush the audit trail before: what it does not have yet would look forgotten.
        """
        now_ms = self._now_ms()
        return await self._db.write(lambda db: transactions.make_room(db, limit_bytes, now_ms, _ROOM_BATCH))

    async def _update(self, query: str, values: dict[str, object]) -> bool:
        return bool(await self._db.write(lambda db: db.execute(SQL[query], values).rowcount))
