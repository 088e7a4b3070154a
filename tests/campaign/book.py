"""The campaign's book: what was promised, what came of it, and everything that is wrong about that."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from campaign.mix import GAP, Order
from support.starts_seen import number_in

LOST, DOUBLE, WRONG, LEAKED = "lost", "started twice", "wrong", "leaked"
FAULTS: Final = (LOST, DOUBLE, WRONG, LEAKED)


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be. ``fault`` is one of ``FAULTS``, ``where`` a task or a thing."""

    fault: str
    where: str
    what: str


@dataclass(slots=True)
class Entry:
    """One task. Its order is let go of once its starts are counted."""

    order: Order
    accepted: bool = False
    unknown: bool = False
    """The answer to its POST was lost."""
    asked_again: bool = False
    """It was sent once more after its result had come: the contract then runs it again."""
    engine_died: bool = False
    results: dict[str, str] = field(default_factory=dict)
    """Idempotency-Key → hash of the body."""
    numbers: set[str] = field(default_factory=set)
    """Of its starts, as its results tell them."""

    @property
    def attempts(self) -> int:
        """How often it may have run."""
        return 2 if self.asked_again else 1


class Book:
    """What all threads of the campaign write into."""

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        """``say`` is told every violation."""
        self._say = say
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._unchecked: dict[str, Entry] = {}
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.lost_reasons: Counter[str] = Counter()

    def violate(self, fault: str, where: str, what: str) -> None:
        """Write down that something is not as it must be."""
        with self._lock:
            self.violations.append(Violation(fault, where, what))
        self._say(f"!! {fault}: {where}: {what}")

    # --- what the senders see ----------------------------------------------------------------------------------------

    def sending(self, order: Order) -> None:
        """It is about to be sent for the first time."""
        with self._lock:
            self._entries[order.task_id] = self._unchecked[order.task_id] = Entry(order)

    def unknown(self, task_id: str) -> bool:
        """The answer to it was lost. True: its result is there already, so it need not be sent again."""
        with self._lock:
            entry = self._entries[task_id]
            self.counts["answers lost"] += not entry.unknown
            entry.unknown = True
            return entry.accepted

    def accept(self, task_id: str, *, anew: bool) -> None:
        """It was accepted; ``anew``: by a 202, which is a promise to run it."""
        with self._lock:
            entry = self._entries[task_id]
            if not anew and not entry.unknown:
                self.violate(WRONG, task_id, "409 for a task that was never sent before")
            if anew and entry.results and entry.order.key is None and entry.unknown:
                entry.asked_again = True
                self.counts["run again on request"] += 1
            self._accepted(entry)

    def _accepted(self, entry: Entry) -> None:
        if not entry.accepted:
            entry.accepted = True
            self.counts["accepted"] += 1
            self.kinds[entry.order.kind] += 1

    def engine_dies(self) -> None:
        """Everything that is on its way may be lost with the engine: if so, it must be said."""
        with self._lock:
            for entry in self._unchecked.values():
                entry.engine_died |= not entry.results

    # --- what the dashboard sees -------------------------------------------------------------------------------------

    def take(self, body: bytes, key: str) -> None:
        """A result that the dashboard keeps."""
        result: dict[str, Any] = json.loads(body)
        digest = hashlib.sha256(body).hexdigest()
        task_id = result["task_id"]
        with self._lock:
            entry = self._entries.get(task_id)
            if entry is None:
                self.violate(WRONG, task_id, "reported, and never sent")
                return
            if (before := entry.results.get(key)) is not None:
                self.counts["delivered again"] += 1
                if before != digest:
                    self.violate(WRONG, task_id, f"two different bodies under the key {key}")
                return
            entry.results[key] = digest
            if len(entry.results) > entry.attempts:
                self.violate(WRONG, task_id, f"more than one result: {sorted(entry.results)}")
            self._read(entry, result)

    def _read(self, entry: Entry, result: dict[str, Any]) -> None:
        self._accepted(entry)
        self.counts["reported"] += len(entry.results) == 1
        if GAP.search(result["output"]):
            self._note_gap(entry)
        if number := number_in(result["output"], entry.order.mark):
            entry.numbers.add(number)
        error = result["error"] or ""
        if error.startswith("lost: ") and entry.engine_died:
            self.counts["reported lost"] += 1
            self.lost_reasons[error] += 1
        elif problem := entry.order.problem(result):
            self.violate(WRONG, entry.order.task_id, problem)

    def _note_gap(self, entry: Entry) -> None:
        """Only with the engine may something of the output be lost; the agent's death takes nothing along."""
        self.counts["gaps stated"] += 1
        if not entry.engine_died:
            self.violate(WRONG, entry.order.task_id, "a gap in its output is stated, and the engine was alive")

    # --- what is counted ---------------------------------------------------------------------------------------------

    @property
    def unreported(self) -> list[str]:
        """Tasks that were sent and have no result."""
        with self._lock:
            return [task_id for task_id, entry in self._unchecked.items() if not entry.results]

    def check_losses(self) -> None:
        """Everything had its time: what was accepted and has no result is lost."""
        for task_id in self.unreported:
            self.violate(LOST, task_id, f"a {self._entries[task_id].order.kind} task was accepted and never reported")

    def check_starts(self, seen: Callable[[str], set[str]]) -> None:
        """Hold the starts that were ``seen`` from outside against the results; these tasks are then done with."""
        with self._lock:
            done, self._unchecked = self._unchecked, {}
            for task_id, entry in done.items():
                numbers = seen(entry.order.mark)
                self.counts["starts seen"] += len(numbers)
                self.counts["starts reported, not seen"] += len(entry.numbers - numbers)
                if len(numbers | entry.numbers) > entry.attempts:
                    self.violate(DOUBLE, task_id, f"{len(numbers)} starts seen, {len(entry.numbers)} reported")
                self._entries[task_id] = replace(entry, order=replace(entry.order, content="", prints=None))
