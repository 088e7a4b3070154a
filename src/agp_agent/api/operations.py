"""The routes by which operators act: pause and go on, deliver again, give a result up. No logic."""

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from agp_agent.api.answers import Done
from agp_agent.api.document import problems as answers
from agp_agent.api.paths import TaskPath, named
from agp_agent.api.visitor import CALLER
from agp_agent.journal import Journal
from agp_agent.operating import Operating


def add_operations(api: FastAPI, journal: Journal, operating: Operating) -> None:
    """Add them."""
    _add_pause(api, operating)
    _add_delivery(api, journal, operating)


def _add_pause(api: FastAPI, operating: Operating) -> None:
    @api.post("/pause", responses=answers(401, 503))
    async def pause(request: Request) -> Done:
        """Start no task until `/resume`, also over restarts; tasks are taken on and wait, and what runs goes on."""
        operating.pause(request.scope[CALLER])
        return Done(message="Paused: tasks are taken on and wait")

    @api.post("/resume", responses=answers(401, 503))
    async def resume(request: Request) -> Done:
        """Start tasks again."""
        operating.resume(request.scope[CALLER])
        return Done(message="Tasks are started again")


def _add_delivery(api: FastAPI, journal: Journal, operating: Operating) -> None:
    @api.post("/tasks/{task_id}/delivery/retry", status_code=202, responses=answers(401, 404, 503))
    async def retry(task_id: TaskPath, request: Request) -> Done:
        """Deliver the result now, also where it was given up (a dead letter)."""
        if not await operating.retry(await named(journal, task_id), request.scope[CALLER]):
            raise HTTPException(404, "There is no task with this id whose result waits for its delivery.")
        return Done(message="The result is being delivered")

    @api.post("/tasks/{task_id}/delivery/drop", responses=answers(401, 404, 503))
    async def drop(task_id: TaskPath, request: Request) -> Done:
        """Forget a dead letter: the dashboard will never have this result. The audit trail keeps that it was there."""
        if not await operating.drop(await named(journal, task_id), request.scope[CALLER]):
            raise HTTPException(404, "There is no task with this id whose result is a dead letter.")
        return Done(message="The result is forgotten")

    @api.post("/outbox/retry", status_code=202, responses=answers(401, 503))
    async def retry_all(request: Request) -> Done:
        """Deliver all dead letters."""
        number = await operating.retry_all(request.scope[CALLER])
        return Done(message=f"{number} dead letters are being delivered")
