"""What the agent's own endpoints answer, as models: they are the OpenAPI document's too."""

from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict

from agp_agent.journal import Delivery, TaskView
from agp_agent.lifecycle import Outcome, Reason, State
from agp_agent.models import TaskStatus
from agp_agent.play import Failure, HostRecap, Play

_MS = 1000
_OTHERWISE = ("_at_ms", "delivery", "play")
"""Ends of the names of what the answer has in another form."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Heartbeat(_Answer):
    """The answer to a heartbeat."""

    status: str


class TaskAccepted(_Answer):
    """The 202: the task is on disk and will be reported."""

    message: str
    task_id: str
    status: TaskStatus


class Cancelling(_Answer):
    """The 202: the task will end."""

    message: str


class Done(_Answer):
    """What an operator asked for is done, or on its way."""

    message: str


class Problem(_Answer):
    """Every error: one descriptive sentence."""

    detail: str


class LogOutput(_Answer):
    """The data of the event ``output``: text as it was printed."""

    text: str


class LogGap(_Answer):
    """The data of the event ``gap``: so much is not kept; null where nobody counted it."""

    omitted_bytes: int | None


class LogEnd(_Answer):
    """The data of the event ``end``, the last one: how the task ended."""

    state: State
    outcome: Outcome
    reason: Reason
    error: str | None
    exit_code: int | None


class DeliveryOfTask(_Answer):
    """How the delivery of the result stands; pending also while there is none yet."""

    state: Delivery
    attempts: int
    last_error: str | None
    next_attempt_at: datetime | None
    acknowledged_at: datetime | None


class TaskSummary(_Answer):
    """An attempt of a task. Times are UTC."""

    task_id: str
    attempt: int
    state: State
    status: TaskStatus
    outcome: Outcome | None
    reason: Reason | None
    error: str | None
    exit_code: int | None
    playbook_name: str
    playbook_sha256: str
    runner: str | None
    image: str | None
    image_digest: str | None
    container_id: str | None
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    output_bytes: int | None
    output_omitted_bytes: int | None
    delivery: DeliveryOfTask

    @classmethod
    def of(cls, task: TaskView) -> Self:
        """From what the journal has."""
        return cls.model_validate(cls._fields(task))

    @staticmethod
    def _fields(task: TaskView) -> dict[str, object]:
        fields = {name: getattr(task, name) for name in TaskView.__slots__ if not name.endswith(_OTHERWISE)}
        delivery = DeliveryOfTask(
            state=task.delivery.state,
            attempts=task.delivery.attempts,
            last_error=task.delivery.last_error,
            next_attempt_at=_time(task.delivery.next_attempt_at_ms),
            acknowledged_at=_time(task.delivery.acknowledged_at_ms),
        )
        return fields | {
            "accepted_at": _time(task.accepted_at_ms),
            "started_at": _time(task.started_at_ms),
            "finished_at": _time(task.finished_at_ms),
            "delivery": delivery,
        }


class TaskDetails(TaskSummary):
    """The latest attempt of a task, with what its tool told of the run: Ansible's recap and the tasks that failed.

    The playbook may have made these two up; they decide nothing. Both are empty where nothing was told.
    """

    recap: list[HostRecap]
    failures: list[Failure]

    @staticmethod
    def _fields(task: TaskView) -> dict[str, object]:
        told = task.play or Play()
        return TaskSummary._fields(task) | {"recap": list(told.recap), "failures": list(told.failures)}


class TaskList(_Answer):
    """Attempts, the newest first. ``next_cursor`` asks for those that come before them; null: there are none."""

    tasks: list[TaskSummary]
    next_cursor: str | None


def _time(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / _MS, UTC)
