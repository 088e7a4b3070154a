"""Sees all that an agent does to its world, and says at once where it breaks a promise.

The witness believes nobody: what was accepted it reads from the journal's file by a connection of its own, what ran it
hears from the machine, and what was delivered from the dashboard.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agp_agent.dashboard import Answer, Meaning
from agp_agent.journal import Accepted
from agp_agent.lifecycle import TRANSITIONS, State
from agp_agent.models import TaskResult
from fakes.fake_host import Container
from support.agent_verdicts import Fate, Row, error_in

_ROWS: Final = """
    SELECT a.run_id, a.task_id, a.state, a.slot, a.container_id, a.cancel_requested, a.tries, a.outcome, a.reason,
           a.error, a.exit_code, a.is_open, o.state AS delivery
      FROM attempts a LEFT JOIN outbox o USING (seq) ORDER BY a.seq"""
_FIRST_STATES: Final = (State.QUEUED, State.RUNNING, State.FINISHED)
"""One that no runner takes is finished at once; one that a container waits for may be started at once."""


@dataclass
class Witness:
    """What was seen, by run_id."""

    now_s: Callable[[], float]
    places: int
    rows: dict[str, Row] = field(default_factory=dict)
    """The journal as it stands on disk."""
    fates: dict[str, Fate] = field(default_factory=dict)
    """What the machine did for each attempt."""
    promised: set[str] = field(default_factory=set)
    """Whose sender has seen the 202."""
    reports: dict[str, TaskResult] = field(default_factory=dict)
    """What the dashboard was sent, by key."""
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    """Whose result the dashboard said that it will never take."""
    broken: list[str] = field(default_factory=list)
    """Every promise that was broken, in the order in which that was seen."""
    seen: Counter[str] = field(default_factory=Counter)
    """How often things happened: a test that saw nothing proves nothing."""
    able_s: float = 0.0
    """Since when nothing has kept the agent from its work."""
    _file: sqlite3.Connection | None = None

    # --- the journal on disk ---------------------------------------------------------------------------------------

    def open(self, journal: Path) -> None:
        """Look at a journal's file from now on."""
        self._file = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, isolation_level=None)
        self._file.row_factory = sqlite3.Row
        self.committed()

    def close(self) -> None:
        """Look away: somebody is about to exchange the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def committed(self) -> None:
        """Compare what stands on disk now with what stood there before."""
        if self._file is None:
            return
        self.seen["commit"] += 1
        rows = {row["run_id"]: Row(**row) for row in self._file.execute(_ROWS)}
        for run_id in self.rows.keys() - rows.keys():
            self._break(f"{run_id} has vanished from the journal")
        for run_id, row in rows.items():
            self._compare(self.rows.get(run_id), row)
        self.rows = rows

    def _compare(self, old: Row | None, new: Row) -> None:
        fate = self.fates.setdefault(new.run_id, Fate(new.run_id))
        if new.state is not (old.state if old else None):
            self._step(old, new, fate)
        if new.cancel_requested and fate.cancelled_s is None:
            fate.cancelled_s = self.now_s()
        if old is not None and old.state is State.FINISHED and old.end != new.end:
            self._break(f"its end has changed: {old} to {new}")
        self._look_at_delivery(new)

    def _step(self, old: Row | None, new: Row, fate: Fate) -> None:
        self.seen[f"{old.state if old else 'nothing'} > {new.state}"] += 1
        if new.state is State.RUNNING and (old is None or old.state is State.QUEUED):
            self.seen["preparing > running"] += 1  # both at once: a container had waited
        if new.state not in (TRANSITIONS[old.state] if old else _FIRST_STATES):
            self._break(f"{new.run_id} went from {old and old.state} to {new.state}")
        if new.state is State.QUEUED and fate.container is not None:
            self._break(f"put back although it had started: {new.run_id}")
        if new.state is State.RUNNING:
            fate.released_to.append(new.container_id or "")
            fate.released_s = self.now_s()

    def _look_at_delivery(self, row: Row) -> None:
        if (row.state is State.FINISHED) != (row.delivery is not None):
            self._break(f"result and end do not stand together: {row}")
        if row.is_open == (row.delivery == "acknowledged"):
            self._break(f"open and acknowledged, or neither: {row}")
        if row.delivery == "acknowledged" and row.run_id not in self.acknowledged:
            self._break(f"closed before the dashboard acknowledged it: {row.run_id}")
        if row.delivery == "dead_letter" and row.run_id not in self.refused:
            self._break(f"a dead letter that the dashboard did not refuse: {row.run_id}")

    def open_tasks(self) -> list[str]:
        """Return the task_ids of all attempts that are not finished."""
        return [row.task_id for row in self.rows.values() if row.state is not State.FINISHED]

    # --- senders ---------------------------------------------------------------------------------------------------

    def promise(self, accepted: Accepted) -> None:
        """A sender sees its 202."""
        self.promised.add(accepted.run_id)
        if accepted.run_id not in self.rows:
            self._break(f"accepted, and not on disk: {accepted.run_id}")

    # --- the machine -----------------------------------------------------------------------------------------------

    def playbook_starts(self, container: Container) -> None:
        """A container has read its release: the journal must have known before."""
        rows = [row for row in self.rows.values() if row.container_id == container.container_id]
        if not rows or rows[0].state is not State.RUNNING:
            self._break(f"released before that was written: container {container.name}, {rows}")
            return
        fate = self.fates[rows[0].run_id]
        if fate.container is not None:
            self._break(f"started twice: {fate.run_id}")
        fate.container = container
        self.seen["playbook started"] += 1
        if len(self.running()) > self.places:
            self._break(f"more than {self.places} run at once")

    def running(self) -> list[Container]:
        """Return the containers in which a playbook runs now."""
        return [fate.container for fate in self.fates.values() if fate.container and fate.container.running]

    def fate_of(self, container: Container) -> Fate | None:
        """Whose container it is; None: a left-over."""
        for row in self.rows.values():
            fate = self.fates[row.run_id]
            if container.container_id in fate.released_to or container.name == row.slot:
                return fate
        return None

    def ended(self, container: Container) -> None:
        """A container has ended."""
        if fate := self.fate_of(container):
            fate.ended_s, fate.able_s = self.now_s(), self.able_s

    def able(self) -> None:
        """Something that kept the agent from its work has ended."""
        self.able_s = self.now_s()

    def removing(self, container: Container) -> None:
        """The agent removes a container."""
        for fate in self._unfinished():
            if fate.container is container:
                self._break(f"removed before its end was written: the container of {fate.run_id}")

    def look_at_files(self, folder: Path) -> None:
        """Look for what only attempts have that began and are not finished on disk."""
        for fate in self._unfinished():
            assert fate.container is not None
            for kind in ("slots", "spool"):
                if not (folder / kind / fate.container.name).exists():
                    self._break(f"removed before its end was written: {kind} of {fate.run_id}")

    def _unfinished(self) -> list[Fate]:
        """Those whose playbook started, and whose end is not on disk."""
        return [
            fate
            for fate in self.fates.values()
            if fate.container is not None and self.rows[fate.run_id].state is not State.FINISHED
        ]

    # --- the dashboard ---------------------------------------------------------------------------------------------

    def reported(self, key: str, result: TaskResult) -> str:
        """Somebody delivers a result: it must stand on disk by now. Return whose it is."""
        self.committed()
        run_id = key.rsplit("/", 1)[-1]
        row = self.rows.get(run_id)
        if row is None or row.state is not State.FINISHED:
            self._break(f"reported before it was committed: {run_id}, {row}")
        elif (row.task_id, row.error, row.outcome == "succeeded") != (
            result.task_id,
            result.error,
            result.status == "completed",
        ):
            self._break(f"reported {result} of {row}")
        if self.reports.setdefault(key, result) != result:
            self._break(f"two results under one key: {result}, {self.reports[key]}")
        if run_id in self.acknowledged:
            self.seen["reported again after its acknowledgement"] += 1
        return run_id

    def answered(self, run_id: str, answer: Answer) -> None:
        """The dashboard's answer is on its way."""
        self.seen[f"answered {answer.meaning.name}"] += 1
        if answer.meaning is Meaning.ACKNOWLEDGED:
            self.acknowledged.add(run_id)
        elif answer.meaning in (Meaning.REFUSED, Meaning.TOO_LARGE):
            self.refused.add(run_id)

    # --- in the end ------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Everything was given time to come to its end: hold what was reported against what happened."""
        for run_id in self.promised - self.rows.keys():
            self._break(f"accepted, and not in the journal: {run_id}")
        results = {key.rsplit("/", 1)[-1]: result for key, result in self.reports.items()}
        for run_id, row in self.rows.items():
            done = run_id in self.acknowledged or (run_id in self.refused and row.delivery == "dead_letter")
            if run_id not in results or not done:
                self._break(f"accepted and never reported: {row}")
            elif error := error_in(row, results[run_id], self.fates[run_id]):
                self._break(f"reported what did not happen: {error}: {row}, {results[run_id]}, {self.fates[run_id]}")
            else:
                self.seen[f"ended {row.outcome}/{row.reason}"] += 1

    def check(self) -> None:
        """Raise where a promise was broken."""
        assert not self.broken, self.broken[0]

    def _break(self, what: str) -> None:
        self.broken.append(what)
