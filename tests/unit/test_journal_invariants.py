"""Random sequences of the journal's operations keep what every part of the agent relies on."""

import asyncio
import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from agp_agent import lifecycle
from agp_agent.errors import AlreadyRunning, Unavailable
from agp_agent.journal import Admission, Journal
from agp_agent.lifecycle import Reason, State
from support.clock import SetClock
from support.orders import PRINTED, SUCCESS, due_now, order, put_back, release, to_preparing

TASK_IDS = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from([None, None, "k1", "k2"])


class JournalMachine(RuleBasedStateMachine):
    """Drives a journal as the loops do, in any order, restarts and jumps of the clock included."""

    runs: ClassVar[Bundle[str]] = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name, "journal.db")
        self._clock = SetClock()
        self._runner = asyncio.Runner()
        self._journal = Journal(self._path, self._clock)
        self._accepted: set[str] = set()
        self._ended: set[str] = set()

    def _do(self, operation: Any) -> Any:
        return self._runner.run(operation)

    @rule(
        target=runs,
        task_id=TASK_IDS,
        body=st.sampled_from("xy"),
        key=KEYS,
        rejected=st.booleans(),
        slots=st.integers(0, 2),
    )
    def accept(self, task_id: str, body: str, key: str | None, slots: int, *, rejected: bool) -> str:
        """An order comes in; whether it is taken on is told by what it raises."""
        new = order(task_id, body, **({"key": key} if key else {}))
        verdict = lifecycle.no_runner("a", []) if rejected else None
        run_id = ""
        with contextlib.suppress(AlreadyRunning, Unavailable):
            run_id = self._do(self._journal.accept(new, Admission(slots, 1, rerun_after_s=5), verdict)).run_id
        if run_id:
            assert run_id not in self._accepted
            self._accepted.add(run_id)
            if rejected:
                self._ended.add(run_id)
        return run_id

    @rule(run_id=runs)
    def prepare(self, run_id: str) -> None:
        """A walk begins."""
        self._do(to_preparing(self._journal, run_id, f"agp-{run_id}"))

    @rule(run_id=runs)
    def release_it(self, run_id: str) -> None:
        """A container is released; never of an attempt that was cancelled."""
        before = self._do(self._journal.attempt(run_id))
        done = self._do(self._journal.running(run_id, release()))
        assert not (done and before.cancel_requested)

    @rule(run_id=runs, failed_try=st.booleans())
    def requeue(self, run_id: str, *, failed_try: bool) -> None:
        """It never started."""
        self._do(put_back(self._journal, run_id, failed_try=failed_try))

    @rule(run_id=runs)
    def ask(self, run_id: str) -> None:
        """The agent is about to stop it."""
        self._do(self._journal.asked(run_id, Reason.DEADLINE))

    @rule(task_id=TASK_IDS)
    def cancel(self, task_id: str) -> None:
        """Somebody cancels a task: that is possible exactly while it has an attempt that has not ended."""
        rows = self._rows("SELECT 1 FROM attempts WHERE task_id = ? AND state <> 'finished'", task_id)
        assert self._do(self._journal.request_cancel(task_id)) == bool(rows)

    @rule(run_id=runs)
    def finish(self, run_id: str) -> None:
        """It ends; only once."""
        done = self._do(self._journal.finish(run_id, SUCCESS, PRINTED))
        assert done == (run_id in self._accepted and run_id not in self._ended)
        if done:
            self._ended.add(run_id)

    @rule(how=st.sampled_from(["acknowledge", "postpone", "refuse"]), skip=st.booleans())
    def deliver(self, how: str, *, skip: bool) -> None:
        """The outbox tries what is due the longest."""
        for seq in self._do(due_now(self._journal))[skip:][:1]:
            assert self._do(self._journal.due_result(seq)).run_id in self._ended
            match how:
                case "acknowledge":
                    self._do(self._journal.acknowledge(seq))
                case "postpone":
                    self._do(self._journal.postpone(seq, delay_s=30, error="x"))
                case _:
                    self._do(self._journal.dead_letter(seq, error="x"))

    @rule(seconds=st.sampled_from([-100_000, -10, 1, 10, 100, 100_000]))
    def time_goes_by(self, seconds: float) -> None:
        """Or is set back."""
        self._clock.advance(seconds)

    @rule()
    def purge(self) -> None:
        """Old results are forgotten: only acknowledged ones."""
        before = {row[0] for row in self._rows("SELECT run_id FROM attempts")}
        acknowledged = {
            row[0]
            for row in self._rows(
                "SELECT run_id FROM attempts JOIN outbox o USING (seq) WHERE o.state = 'acknowledged'"
            )
        }
        purged = self._do(self._journal.purge(older_than_s=50))
        gone = before - {row[0] for row in self._rows("SELECT run_id FROM attempts")}
        assert len(gone) == purged
        assert gone <= acknowledged
        self._accepted -= gone

    @rule()
    def restart(self) -> None:
        """The agent stops and starts again."""
        self._journal.close()
        self._journal = Journal(self._path, self._clock)

    @invariant()
    def at_most_one_attempt_of_a_task_is_open(self) -> None:
        """The 409 rule rests on it."""
        assert self._rows("SELECT task_id FROM attempts WHERE is_open = 1 GROUP BY task_id HAVING count(*) > 1") == []

    @invariant()
    def what_has_ended_is_what_has_a_result(self) -> None:
        """Finished and outbox row come together; a playbook is kept until then and no longer."""
        rows = self._rows("SELECT a.state, o.seq, playbook, outcome FROM attempts a LEFT JOIN outbox o USING (seq)")
        for state, result, playbook, outcome in rows:
            ended = state == State.FINISHED
            assert ended == (result is not None) == (playbook is None) == (outcome is not None)

    @invariant()
    def what_is_closed_is_what_was_acknowledged(self) -> None:
        """And nothing else lets a task_id go."""
        rows = self._rows("SELECT is_open, o.state FROM attempts LEFT JOIN outbox o USING (seq)")
        assert all((is_open == 0) == (state == "acknowledged") for is_open, state in rows)

    @invariant()
    def nothing_accepted_is_missing(self) -> None:
        """But for what was purged."""
        assert {row[0] for row in self._rows("SELECT run_id FROM attempts")} == self._accepted

    @invariant()
    def what_is_counted_is_what_there_is(self) -> None:
        """The numbers by which an order is refused or taken on."""
        counted = self._rows("SELECT state, number FROM live WHERE number > 0")
        there = self._rows("SELECT state, count(*) FROM attempts WHERE state <> 'finished' GROUP BY state")
        assert sorted(counted) == sorted(there)

    @invariant()
    def only_what_left_the_queue_has_a_slot(self) -> None:
        """A queued attempt has no container; one that is prepared or runs has a slot."""
        rows = self._rows("SELECT state, slot, container_id FROM attempts WHERE state <> 'finished'")
        for state, slot, container_id in rows:
            assert (slot is None) == (state == State.QUEUED)
            assert (container_id is not None) == (state == State.RUNNING)

    def _rows(self, sql: str, *values: object) -> list[Any]:
        connection = sqlite3.connect(self._path)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def teardown(self) -> None:
        """Close everything."""
        self._journal.close()
        self._runner.close()
        self._folder.cleanup()


JournalMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestJournal = JournalMachine.TestCase
