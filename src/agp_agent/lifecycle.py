"""States, outcomes and reasons of a task, and the sentences that go with them. Pure.

Three closed vocabularies, never mixed: a *state* says where a task is, an *outcome* how it ended, a *reason* why.
"""

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agp_agent.models import TaskStatus
from agp_agent.play import Play


class State(StrEnum):
    """Where a task is."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(StrEnum):
    """How a task ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    REJECTED = "rejected"
    ERROR = "error"


class Reason(StrEnum):
    """Why a task ended so."""

    EXIT_CODE = "exit_code"
    OOM_KILLED = "oom_killed"
    DEADLINE = "deadline"
    CANCEL_REQUESTED = "cancel_requested"
    KILLED_EXTERNALLY = "killed_externally"
    ENGINE_LOST = "engine_lost"
    IMAGE_UNAVAILABLE = "image_unavailable"
    NO_RUNNER = "no_runner"
    CONTAINER_MISSING = "container_missing"
    AGENT_STOPPING = "agent_stopping"
    JOURNAL_LOST = "journal_lost"
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105  no secret


ENDINGS: Final[dict[Outcome, tuple[Reason, ...]]] = {
    Outcome.SUCCEEDED: (Reason.EXIT_CODE,),
    Outcome.FAILED: (Reason.EXIT_CODE, Reason.OOM_KILLED, Reason.KILLED_EXTERNALLY),
    Outcome.TIMED_OUT: (Reason.DEADLINE,),
    Outcome.CANCELLED: (Reason.CANCEL_REQUESTED,),
    Outcome.LOST: (Reason.ENGINE_LOST, Reason.CONTAINER_MISSING, Reason.AGENT_STOPPING, Reason.JOURNAL_LOST),
    Outcome.REJECTED: (Reason.NO_RUNNER,),
    Outcome.ERROR: (Reason.IMAGE_UNAVAILABLE, Reason.ENGINE_LOST, Reason.SECRET_UNAVAILABLE),
}
"""Why a task can end so."""

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    # At once to running: where a container was prepared before the task came.
    State.QUEUED: frozenset({State.PREPARING, State.RUNNING, State.FINISHED}),
    # Back to queued: only where it is certain that the playbook never started.
    State.PREPARING: frozenset({State.RUNNING, State.QUEUED, State.FINISHED}),
    State.RUNNING: frozenset({State.QUEUED, State.FINISHED}),
    State.FINISHED: frozenset(),
}
"""Every legal step from a state to another."""

WIRE_STATUS: Final[dict[State, TaskStatus]] = {
    State.QUEUED: TaskStatus.PENDING,
    State.PREPARING: TaskStatus.PENDING,
    State.RUNNING: TaskStatus.RUNNING,
}
"""What the dashboard is told of a task that has not ended."""

_SIGNAL_EXIT_BASE: Final = 128


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """What the engine said of a container that has ended, and what the agent itself had asked of it.

    ``asked`` is the agent's own record that it stopped the container (deadline or cancel); without it a bare 137 could
    be anything. ``killed_externally``: the engine reported a kill that the agent did not ask for.
    ``lost_with_engine``: an engine that was restarted ended it, whatever exit code that gave.
    """

    exit_code: int
    oom_killed: bool = False
    asked: Reason | None = None
    killed_externally: bool = False
    lost_with_engine: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a task: how, why, the playbook's exit code if it had one, and the sentence for people.

    ``play`` is what the playbook's tool told of the run: for people, and never the ground of anything else here.
    """

    outcome: Outcome
    reason: Reason
    error: str | None = None
    exit_code: int | None = None
    play: Play | None = None

    @property
    def status(self) -> TaskStatus:
        """What the wire says: only a success is completed."""
        return TaskStatus.COMPLETED if self.outcome is Outcome.SUCCEEDED else TaskStatus.FAILED

    @property
    def sentence(self) -> str | None:
        """The error as the dashboard has it: where the playbook itself failed, with the reason that its tool gave."""
        why = self.play.why if self.play and (self.outcome, self.reason) == (Outcome.FAILED, Reason.EXIT_CODE) else None
        return f"{self.error}: {why}" if why else self.error


def judge(ended: ContainerExit, *, timeout_s: float, memory_bytes: int) -> Verdict:
    """Turn what was seen of a container's end into the task's verdict.

    ``asked`` is set only where a stop signal reached the running container: a playbook that had exited by itself by
    then is judged by its exit code.
    """
    code = ended.exit_code
    stopped = code >= _SIGNAL_EXIT_BASE
    if ended.oom_killed and code != 0:
        error = f"killed: out of memory (limit {memory_bytes // 2**20} MiB)"
        return Verdict(Outcome.FAILED, Reason.OOM_KILLED, error, code)
    if ended.asked is Reason.DEADLINE:
        return Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, f"timed out after {timeout_s:.12g} s", code)
    if ended.asked is Reason.CANCEL_REQUESTED:
        return Verdict(Outcome.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled", code)
    if ended.lost_with_engine:
        return lost(
            Reason.ENGINE_LOST, "the container engine, or what held the container for it, ended and took it along"
        )
    if stopped and ended.killed_externally:
        return Verdict(Outcome.FAILED, Reason.KILLED_EXTERNALLY, "killed from outside", code)
    if code == 0:
        return Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0)
    return Verdict(Outcome.FAILED, Reason.EXIT_CODE, describe_exit_code(code), code)


def describe_exit_code(code: int) -> str:
    """``exit code 2``, or ``exit code 137 (SIGKILL)`` where the number stands for a signal."""
    try:
        return f"exit code {code} ({signal.Signals(code - _SIGNAL_EXIT_BASE).name})"
    except ValueError:
        return f"exit code {code}"


def lost(reason: Reason, why: str) -> Verdict:
    """The task's end was not seen; ``why`` continues the sentence ``lost: …``."""
    return Verdict(Outcome.LOST, reason, f"lost: {why}")


def no_runner(playbook_name: str, known: list[str]) -> Verdict:
    """No runner of the catalog matches the playbook."""
    error = f"no runner for {playbook_name!r}; known runners: {', '.join(known)}"
    return Verdict(Outcome.REJECTED, Reason.NO_RUNNER, error)


def image_unavailable(image: str, why: str) -> Verdict:
    """The runner's image cannot be had."""
    return Verdict(Outcome.ERROR, Reason.IMAGE_UNAVAILABLE, f"image {image} is not available: {why}")


def engine_refused(why: str) -> Verdict:
    """The engine answered, and would not make or start the container."""
    return Verdict(Outcome.ERROR, Reason.ENGINE_LOST, f"the container engine refused the container: {why}")


def not_fenced(why: str) -> Verdict:
    """Its runner has a network, and that could not be fenced in; it never started."""
    return Verdict(Outcome.ERROR, Reason.ENGINE_LOST, f"not started: {why}")


def secret_unavailable(why: str) -> Verdict:
    """A secret of the runner cannot be read; ``why`` is the whole sentence."""
    return Verdict(Outcome.ERROR, Reason.SECRET_UNAVAILABLE, why)


def queue_timeout(waited_s: float) -> Verdict:
    """It waited too long for a free place and never started."""
    error = f"timed out after {waited_s:.12g} s in the queue; it never started"
    return Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, error)


def cancelled_before_start() -> Verdict:
    """A task that was cancelled before its playbook started."""
    return Verdict(Outcome.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled")
