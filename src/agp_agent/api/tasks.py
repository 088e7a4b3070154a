"""The routes about tasks: what operators ask, and how they stop one. No logic."""

from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from agp_agent.api.answers import Cancelling, TaskDetails, TaskList, TaskSummary
from agp_agent.api.document import ENDED, LOGS
from agp_agent.api.document import problems as answers
from agp_agent.api.live_logs import stream
from agp_agent.api.paths import TaskPath, named
from agp_agent.api.visitor import CALLER
from agp_agent.following import Following, Position
from agp_agent.intake import Intake
from agp_agent.journal import Delivery, Journal, TaskFilter
from agp_agent.lifecycle import Outcome, State

_UNKNOWN = "There is no task with this id."


class TaskQuery(BaseModel):
    """Which tasks are asked for. A name that is not known here is refused: all tasks would look like those wanted."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    outcome: Outcome | None = None
    delivery: Delivery | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, pattern=r"^[1-9][0-9]{0,17}$")


class LogQuery(BaseModel):
    """How the output is asked for. A name that is not known here is refused, for who misspells it would not follow."""

    model_config = ConfigDict(extra="forbid")

    follow: bool = False


def add_tasks(api: FastAPI, intake: Intake, journal: Journal, following: Following) -> None:
    """Add them."""
    _add_list(api, journal)
    _add_one(api, intake, journal)
    _add_logs(api, journal, following)


def _add_list(api: FastAPI, journal: Journal) -> None:
    @api.get("/tasks", responses=answers(401, 503))
    async def tasks(query: Annotated[TaskQuery, Query()]) -> TaskList:
        """Attempts, the newest first, by where they are, how they ended, and how their delivery stands."""
        wanted = TaskFilter(query.state, query.outcome, query.delivery)
        found, more = await journal.views.tasks(wanted, query.limit, int(query.cursor) if query.cursor else None)
        return TaskList(tasks=[TaskSummary.of(one) for one in found], next_cursor=str(more) if more else None)


def _add_one(api: FastAPI, intake: Intake, journal: Journal) -> None:
    @api.get("/tasks/{task_id}", responses=answers(401, 404, 503))
    async def task(task_id: TaskPath) -> TaskDetails:
        """Where a task is, how it ended, and how its delivery stands."""
        found = await journal.views.task(await named(journal, task_id))
        if found is None:
            raise HTTPException(404, _UNKNOWN)
        return TaskDetails.of(found)

    @api.post("/tasks/{task_id}/cancel", status_code=202, responses=answers(401, 404, 503) | ENDED)
    async def cancel(task_id: TaskPath, request: Request) -> Cancelling:
        """Stop a task that is waiting or running."""
        name = await named(journal, task_id)
        if await intake.cancel(name, request.scope[CALLER]):
            return Cancelling(message="Task is being cancelled")
        found = await journal.views.task(name)
        if found is None or found.outcome is None:
            raise HTTPException(404, _UNKNOWN)
        raise HTTPException(409, f"The task has ended already: {found.outcome}.")


def _add_logs(api: FastAPI, journal: Journal, following: Following) -> None:
    @api.get("/tasks/{task_id}/logs", response_class=Response, responses=answers(401, 404, 503) | LOGS)
    async def logs(
        task_id: TaskPath,
        query: Annotated[LogQuery, Query()],
        last_event_id: Annotated[str | None, Header(pattern=r"^[0-9]{1,15}(@[1-9][0-9]{0,8})?$")] = None,
    ) -> Response:
        """What the latest attempt printed, as far as it is kept; with ``follow`` as Server-Sent Events, live.

        Event ids are positions in bytes as printed, of a second attempt ``35@2``: a reader that comes back with
        ``Last-Event-ID`` goes on there, in the same attempt.
        """
        name = await named(journal, task_id)
        if query.follow:
            return await stream(following, journal, name, Position.parse(last_event_id or "0"))
        text = await following.text(name)
        if text is None:
            raise HTTPException(404, _UNKNOWN)
        return Response(text, media_type="text/plain; charset=utf-8")
