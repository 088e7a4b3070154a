"""Kills the agent at an exact step of a task's walk, from outside: there is no switch for it in the product.

How it dies there, see ``support.deaths``. Where the next call of a kind is not yet the wanted one, strace is attached
only when a gate has stopped just before it.

Every ``Step`` of ``STEPS`` strikes the next task that comes by.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from support.agent_process import AgentProcess
from support.deaths import Death, Gates, Syscall
from support.http_gate import Action, Moment
from support.waiting import eventually

_ID: Final = "[0-9a-f]{64}"
_CREATE: Final = r"^POST /containers/create\?name=agp-"
_ATTACH: Final = rf"^POST /containers/{_ID}/attach"
_START: Final = rf"^POST /containers/{_ID}/start"
_INSPECT: Final = rf"^GET /containers/{_ID}/json"
_SIGNAL: Final = rf"^POST /containers/{_ID}/kill\?signal="
_LOG: Final = rf"^GET /containers/{_ID}/logs"
_REMOVE: Final = r"^DELETE /containers/agp-"
_EVENTS: Final = "^GET /events"
_REPORT: Final = "^POST .*/report_result"
_DIED: Final = b'"status":"die"'
_LINE: Final = b"agp1 release"
_OUTPUT: Final = b"run "
"""What the first line of output of a ``numbered`` playbook begins with."""
_DEAF: Final = b"deaf\n"
"""What a playbook prints that is going to ignore TERM."""
_WAL: Final = "journal.db-wal"
_TRAIL: Final = "audit.jsonl"


_Arm = Callable[[Death, Gates], None]


class Needs(Enum):
    """What must be there for a step to come."""

    A_TASK = "a task"
    A_DEAF_TASK = "a task that prints ``deaf``, runs into its deadline and ignores TERM"
    AN_ADOPTED_TASK = "a task that an earlier agent started"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the walk at which the agent can be killed."""

    name: str
    row: int
    """Of the table of faults."""
    prepare: _Arm
    unanswered: bool = False
    """The agent dies before the 202, or may do so: the sender sees a reset."""
    needs: Needs = Needs.A_TASK
    long: bool = False
    """Left to the campaign and to `make test-long`: `make test` strikes just beside it."""

    def arm(self, agent: AgentProcess, gates: Gates, *, of_next: bool = False) -> Death:
        """Prepare the death of the agent, or of the ``next`` one: it comes when the next task gets to this step."""
        death = Death(agent, self.name, of_next=of_next)
        self.prepare(death, gates)
        return death


def _at_engine(moment: Moment, call: str, containing: bytes = b"") -> _Arm:
    return lambda death, gates: gates.engine.at(moment, call, death.kill, containing=containing)


def _at_dashboard(moment: Moment) -> _Arm:
    return lambda death, gates: gates.dashboard.at(moment, _REPORT, death.kill)


def _at_syscall(names: str, number: int = 1, file: str | None = None) -> _Arm:
    def arm(death: Death, _gates: Gates) -> None:
        if file == _TRAIL:  # what is recorded already would be the next that is written
            eventually(lambda: _trail_is_written(death.agent), "the audit trail on disk")
        death.kill_at(Syscall(names, number, file))

    return arm


def _after(moment: Moment, call: str, names: str, number: int = 1, file: str | None = None, piece: bytes = b"") -> _Arm:
    """At a system call, counted from a stop at the engine's gate on."""

    def arm(death: Death, gates: Gates) -> None:
        then: Action = lambda: death.kill_at(Syscall(names, number, file))  # noqa: E731  an Action has no arguments
        gates.engine.at(moment, call, then, containing=piece)

    return arm


def _after_cut(call: str, names: str, number: int, file: str) -> _Arm:
    """At a system call, counted from a call on that the agent makes in vain: its connection is cut."""

    def arm(death: Death, gates: Gates) -> None:
        then: Action = lambda: not death.kill_at(Syscall(names, number, file))  # noqa: E731  as above
        gates.engine.at(Moment.CALL, call, then)

    return arm


def _after_call(first: str, moment: Moment, call: str) -> _Arm:
    """At a call that comes after the answer to another one."""

    def arm(death: Death, gates: Gates) -> None:
        def answered() -> bool:
            gates.engine.at(moment, call, death.kill)
            return True

        gates.engine.at(Moment.ANSWER, first, answered)

    return arm


def _after_report(names: str, number: int = 1, file: str | None = None) -> _Arm:
    def arm(death: Death, gates: Gates) -> None:
        gates.dashboard.at(Moment.ANSWER, _REPORT, lambda: death.kill_at(Syscall(names, number, file)))

    return arm


def _at_last_inspect(moment: Moment) -> _Arm:
    """At the look at a container whose end was told."""

    def arm(death: Death, gates: Gates) -> None:
        def told() -> bool:
            gates.engine.at(moment, _INSPECT, death.kill)
            return True

        gates.engine.at(Moment.DOWN, _EVENTS, told, containing=_DIED)

    return arm


def _when_delivered(moment: Moment) -> _Arm:
    """At the removal of a container, which is held until its result is acknowledged and that is written down."""

    def arm(death: Death, gates: Gates) -> None:
        delivered = _count(death.agent, "task delivered") + 1

        def held() -> bool:
            eventually(lambda: _count(death.agent, "task delivered") >= delivered, "delivered")
            return death.kill()

        gates.engine.at(moment, _REMOVE, held)

    return arm


def _trail_is_written(agent: AgentProcess) -> bool:
    recorded = max((line.get("audit_seq", 0) for line in agent.log_lines()), default=0)
    lines = agent.audit()
    return bool(lines) and lines[-1]["seq"] >= recorded


def _count(agent: AgentProcess, event: str) -> int:
    return agent.log_text().count(f'"event": "{event}"')


def _after_accept(names: str, number: int, file: str) -> _Arm:
    """At a system call after the one that made the acceptance durable: there the agent is stopped, and armed again."""

    def arm(death: Death, _gates: Gates) -> None:
        death.stop_at(Syscall("fdatasync", 1, _WAL))
        then = threading.Thread(target=death.go_on_to, args=(Syscall(names, number, file),), daemon=True)
        then.start()

    return arm


def _stop(name: str, arm: _Arm, *, long: bool = False) -> Step:
    """A step of stopping what runs for too long."""
    return Step(name, 5, arm, needs=Needs.A_DEAF_TASK, long=long)


STEPS: Final = (
    Step("accept: nothing written", 1, _at_syscall("pwrite64", 1, _WAL), unanswered=True),
    Step("accept: commit torn", 1, _at_syscall("pwrite64", 4, _WAL), unanswered=True),
    Step("accept: written, not synced", 2, _at_syscall("fdatasync", 1, _WAL), unanswered=True),
    Step("accept: not audited", 2, _at_syscall("write", 1, _TRAIL), unanswered=True),
    Step("accept: audited, not answered", 2, _at_syscall("fdatasync", 1, _TRAIL), unanswered=True),
    Step("preparing: nothing written", 3, _after_accept("pwrite64", 1, _WAL), unanswered=True, long=True),
    Step("preparing: commit torn", 3, _after_accept("pwrite64", 3, _WAL), unanswered=True, long=True),
    Step("preparing: written", 3, _at_syscall("fdatasync", 2, _WAL), unanswered=True),
    Step("slot: not made", 3, _at_syscall("mkdir", 1), long=True),
    Step("slot: half made", 3, _at_syscall("mkdir", 2)),
    Step("create: not called", 3, _at_engine(Moment.CALL, _CREATE), long=True),
    Step("create: answer lost", 3, _at_engine(Moment.ANSWER, _CREATE)),
    Step("read back: answer lost", 3, _after_call(_CREATE, Moment.ANSWER, _INSPECT), long=True),
    Step("requeue: nothing written", 3, _after_cut(_CREATE, "pwrite64", 1, _WAL), long=True),
    Step("requeue: commit torn", 3, _after_cut(_CREATE, "pwrite64", 3, _WAL)),
    Step("requeue: written", 3, _after_cut(_CREATE, "fdatasync", 1, _WAL), long=True),
    Step("attach: not called", 3, _at_engine(Moment.CALL, _ATTACH), long=True),
    Step("attach: answer lost", 3, _at_engine(Moment.ANSWER, _ATTACH)),
    Step("start: not called", 3, _at_engine(Moment.CALL, _START), long=True),
    Step("start: answer lost", 3, _at_engine(Moment.ANSWER, _START)),
    Step("running: nothing written", 3, _after(Moment.ANSWER, _START, "pwrite64", 1, _WAL), long=True),
    Step("running: commit torn", 3, _after(Moment.ANSWER, _START, "pwrite64", 3, _WAL)),
    Step("running: written", 4, _after(Moment.ANSWER, _START, "fdatasync", 1, _WAL)),
    Step("fill: note torn", 4, _at_syscall("fchmod", 1)),
    Step("fill: playbook torn", 4, _at_syscall("fchmod", 2)),
    Step("spool: no space taken", 4, _at_syscall("fallocate", 1)),
    Step("release: line not sent", 4, _at_engine(Moment.UP, _ATTACH, _LINE)),
    Step("release: line sent", 4, _at_engine(Moment.UP_PASSED, _ATTACH, _LINE)),
    Step("released: note not synced", 4, _at_syscall("fsync", 1)),
    Step("marker: printed, not seen", 4, _at_engine(Moment.DOWN, _ATTACH)),
    Step("marker: seen", 5, _at_engine(Moment.DOWN_PASSED, _ATTACH)),
    Step("output: printed, not seen", 5, _at_engine(Moment.DOWN, _ATTACH, _OUTPUT)),
    Step("output: seen", 5, _at_engine(Moment.DOWN_PASSED, _ATTACH, _OUTPUT)),
    _stop("asked: nothing written", _after(Moment.DOWN_PASSED, _ATTACH, "pwrite64", 1, _WAL, _DEAF), long=True),
    _stop("asked: commit torn", _after(Moment.DOWN_PASSED, _ATTACH, "pwrite64", 3, _WAL, _DEAF)),
    _stop("asked: written", _after(Moment.DOWN_PASSED, _ATTACH, "fdatasync", 1, _WAL, _DEAF), long=True),
    _stop("TERM: not called", _at_engine(Moment.CALL, f"{_SIGNAL}SIGTERM"), long=True),
    _stop("TERM: answer lost", _at_engine(Moment.ANSWER, f"{_SIGNAL}SIGTERM")),
    _stop("KILL: not called", _at_engine(Moment.CALL, f"{_SIGNAL}SIGKILL")),
    _stop("KILL: answer lost", _at_engine(Moment.ANSWER, f"{_SIGNAL}SIGKILL"), long=True),
    Step("exit: not told", 6, _at_engine(Moment.DOWN, _EVENTS, _DIED)),
    Step("inspect: not called", 6, _at_last_inspect(Moment.CALL), long=True),
    Step("inspect: answer lost", 6, _at_last_inspect(Moment.ANSWER)),
    Step("log: not called", 6, _at_engine(Moment.CALL, _LOG), needs=Needs.AN_ADOPTED_TASK),
    Step("log: answer lost", 6, _at_engine(Moment.ANSWER, _LOG), needs=Needs.AN_ADOPTED_TASK),
    Step("finish: nothing written", 6, _after(Moment.DOWN, _EVENTS, "pwrite64", 1, _WAL, _DIED), long=True),
    Step("finish: commit torn", 6, _after(Moment.DOWN, _EVENTS, "pwrite64", 4, _WAL, _DIED)),
    Step("finish: written", 7, _after(Moment.DOWN, _EVENTS, "fdatasync", 1, _WAL, _DIED)),
    Step("delivery: not sent", 7, _at_dashboard(Moment.CALL)),
    Step("delivery: answer lost", 7, _at_dashboard(Moment.ANSWER)),
    Step("delivered: nothing written", 7, _after_report("pwrite64", 1, _WAL)),
    Step("delivered: commit torn", 7, _after_report("pwrite64", 4, _WAL)),
    Step("delivered: written", 8, _after_report("fdatasync", 1, _WAL)),
    Step("remove: not called", 8, _at_engine(Moment.CALL, _REMOVE), long=True),
    Step("remove: answer lost", 8, _at_engine(Moment.ANSWER, _REMOVE)),
    Step("delivered, remove not called", 8, _when_delivered(Moment.CALL)),
    Step("slot: not removed", 8, _at_syscall("unlinkat", 1), long=True),
    Step("slot: half removed", 8, _at_syscall("unlinkat", 3)),
    Step("spool: not removed", 8, _at_syscall("unlink", 1)),
)
"""Every step of the walk: before and after each durable write and each call of the engine, in their order.

The call that only an agent makes which takes up another's work (list) is a step of its start; the test of row 8 strikes
there. Looking at the image changes nothing, and the agent does it by itself now and then: it is no step.
"""


WARM_STEPS: Final = (
    Step("claim: nothing written", 1, _at_syscall("pwrite64", 1, _WAL), unanswered=True),
    Step("claim: commit torn", 1, _at_syscall("pwrite64", 4, _WAL), unanswered=True),
    Step("claim: written, not synced", 2, _at_syscall("fdatasync", 1, _WAL), unanswered=True),
    Step("claim: fill, note torn", 4, _at_syscall("fchmod", 1), unanswered=True),
    Step("claim: fill, playbook torn", 4, _at_syscall("fchmod", 2), unanswered=True),
    Step("claim: spool, no space taken", 4, _at_syscall("fallocate", 1), unanswered=True),
    Step("claim: release, line not sent", 4, _at_engine(Moment.UP, _ATTACH, _LINE), unanswered=True),
    Step("claim: release, line sent", 4, _at_engine(Moment.UP_PASSED, _ATTACH, _LINE), unanswered=True),
    Step("claim: released, note not synced", 4, _at_syscall("fsync", 1), unanswered=True),
    Step("refill: create not called", 5, _at_engine(Moment.CALL, _CREATE)),
    Step("refill: start answer lost", 5, _at_engine(Moment.ANSWER, _START)),
)
"""The steps of a task that finds a container waiting, and of the container that takes the place of that one."""


def steps_of(*rows: int, needs: Needs = Needs.A_TASK, every: bool = True) -> tuple[Step, ...]:
    """The steps of these rows to which such a task comes; without ``every`` those that `make test` strikes."""
    return tuple(step for step in STEPS if step.row in rows and step.needs is needs and (every or not step.long))
