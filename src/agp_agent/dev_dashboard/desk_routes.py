"""What the page's script asks for: agents, history, sending, following, cancelling. All behind the page's cookie."""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from agp_agent.agent_client import task_path
from agp_agent.dev_dashboard.calling import Calling, light, said
from agp_agent.dev_dashboard.desk import Agent, Desk
from agp_agent.dev_dashboard.page import PAGE_HEADERS
from agp_agent.dev_dashboard.store import ResultStore
from agp_agent.errors import InvalidBody, Refused
from agp_agent.models import Playbook, Task

_SHOWN_OUTPUT_BYTES: Final = 256 * 1024
_PAGE: Final = 50
_BODY_LIMIT_BYTES: Final = 8 * 2**20
_OK, _ACCEPTED = 200, 202
_LATEST: Final = 2**62
M = TypeVar("M", bound="_Given")


def _token(value: str) -> str:
    if not re.fullmatch(r"[!-~]*", value):
        raise ValueError("a token is of visible ASCII characters, without spaces")
    return value


_Token = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), AfterValidator(_token)]
_Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class NotThere(Refused):
    """There is no such thing here."""

    status: ClassVar[int] = 404


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class NewAgent(_Given):
    """An agent to register. ``report_token``: the one that it sends results with, where it has one already."""

    name: _Word
    url: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")]
    token: Annotated[_Token, StringConstraints(min_length=1)]
    report_token: _Token = ""


class NewTask(_Given):
    """A playbook to send. Without ``task_id`` it gets one."""

    agent_id: int
    task_id: Annotated[str, StringConstraints(max_length=256)] = ""
    name: str = Field(max_length=255)
    content: str


class DeskRoutes:
    """The handlers; ``check`` raises where a request has no right to be here."""

    def __init__(self, store: ResultStore, desk: Desk, check: Callable[[Request], None]) -> None:
        """Nothing is asked of any agent yet."""
        self._store = store
        self._desk = desk
        self._calling = Calling()
        self._check = check

    def add_to(self, app: FastAPI) -> None:
        """Add them."""
        routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("GET", "/desk", self.state),
            ("POST", "/desk/agents", self.register),
            ("DELETE", "/desk/agents/{number}", self.forget),
            ("POST", "/desk/tasks", self.send),
            ("GET", "/desk/tasks/{number}", self.task),
            ("GET", "/desk/tasks/{number}/details", self.details),
            ("GET", "/desk/tasks/{number}/output", self.output),
            ("GET", "/desk/tasks/{number}/live", self.live),
            ("POST", "/desk/tasks/{number}/cancel", self.cancel),
        )
        for method, path, handler in routes:
            app.add_api_route(path, handler, methods=[method], response_model=None)

    async def state(self, request: Request) -> Response:
        """Agents with their lights, the history as far as it is wanted (``q``, ``status``, ``before``), and a status.

        It is the one of ``chosen``, a task that may be on the page without being in that part of the history.
        """
        self._check(request)
        query = request.query_params
        agents = await run_in_threadpool(self._desk.agents)
        before = int(query["before"]) if query.get("before", "").isdecimal() else _LATEST
        found = await run_in_threadpool(
            self._desk.history, query.get("q", ""), query.get("status", ""), min(before, _LATEST), _PAGE + 1
        )
        chosen = query.get("chosen", "")
        status = await run_in_threadpool(self._desk.status, _number(chosen)) if chosen else None
        beats = await self._calling.heartbeats(agents)
        shown = [
            {"id": one.id, "name": one.name, "url": one.url, "light": light(beats[one.id])}
            | {"heartbeat": beats[one.id].shown()}
            for one in agents
        ]
        more = {"chosen_status": status, "turned_away": self._desk.turned_away()}
        return _json({"agents": shown, "tasks": found[:_PAGE], "more": len(found) > _PAGE} | more)

    async def register(self, request: Request) -> Response:
        """Remember an agent; the answer has the token for its results, and only this once."""
        given = await self._read(request, NewAgent)
        token = await run_in_threadpool(
            self._desk.register, given.name, given.url, given.token, given.report_token or None
        )
        return _json({"report_token": token})

    def forget(self, request: Request, number: str) -> Response:
        """Forget one."""
        self._check(request)
        self._desk.forget(_number(number))
        return _json({})

    async def send(self, request: Request) -> Response:
        """Send a playbook, and note how that went."""
        given = await self._read(request, NewTask)
        agent = await self._agent(given.agent_id)
        try:
            task = Task(
                task_id=given.task_id or f"try {secrets.token_hex(3)}",
                playbook=Playbook(name=given.name, content=given.content),
            )
        except ValidationError as error:
            raise InvalidBody(_sentence(error)) from None
        entry_id = await run_in_threadpool(self._desk.begin, agent, task)
        call = await self._calling.call(agent, "POST", "/execute_task", task.model_dump_json())
        await run_in_threadpool(self._desk.note, entry_id, call)
        if call.status is None:
            await run_in_threadpool(self._desk.unanswered, entry_id, call.answer)
        elif call.status != _ACCEPTED:
            await run_in_threadpool(self._desk.refused, entry_id, said(call.status, call.answer))
        return _json({"id": entry_id})

    async def task(self, request: Request, number: str) -> Response:
        """One task: its playbook, its calls, its result with the ends of its output."""
        self._check(request)
        entry = await self._entry(number)
        if entry["result_id"] is not None:
            received = await run_in_threadpool(self._store.result, entry["result_id"], _SHOWN_OUTPUT_BYTES)
            entry |= {"output": received.output, "output_is_cut": received.omitted_bytes > 0} if received else {}
        return _json(entry)

    async def details(self, request: Request, number: str) -> Response:
        """What the agent itself says of it now: where it is, how it ended, Ansible's recap; empty where it is away."""
        self._check(request)
        entry = await self._entry(number)
        try:
            agent = await self._agent(entry["agent_id"])
        except NotThere:
            return _json({})
        call = await self._calling.call(agent, "GET", task_path(entry["task_id"]))
        try:
            return _json(json.loads(call.answer) if call.status == _OK else {})
        except ValueError:  # whatever answers there is no agent
            return _json({})

    async def output(self, request: Request, number: str) -> Response:
        """One whole output as plain text, byte for byte."""
        self._check(request)
        entry = await self._entry(number)
        output = await run_in_threadpool(self._store.output_of, entry["result_id"] or -1)
        if output is None:
            raise NotThere("No result of this task has come yet.")
        return Response(output, media_type="text/plain; charset=utf-8", headers=PAGE_HEADERS)

    async def live(self, request: Request, number: str) -> Response:
        """The agent's events of its output, passed through as they come."""
        self._check(request)
        entry = await self._entry(number)
        agent = await self._agent(entry["agent_id"])
        given = request.headers.get("last-event-id", "")
        position = given if re.fullmatch(r"[0-9]+(@[0-9]+)?", given) else "0"
        events = self._calling.events(agent, task_path(entry["task_id"], "logs"), position)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def cancel(self, request: Request, number: str) -> Response:
        """Ask the agent to stop it."""
        self._check(request)
        entry = await self._entry(number)
        agent = await self._agent(entry["agent_id"])
        call = await self._calling.call(agent, "POST", task_path(entry["task_id"], "cancel"))
        await run_in_threadpool(self._desk.note, entry["id"], call)
        return _json({"said": "" if call.status == _ACCEPTED else said(call.status, call.answer)})

    async def _agent(self, agent_id: int | None) -> Agent:
        for agent in await run_in_threadpool(self._desk.agents):
            if agent.id == agent_id:
                return agent
        raise NotThere("This agent is not registered (any more).")

    async def _entry(self, number: str) -> dict[str, Any]:
        entry = await run_in_threadpool(self._desk.entry, _number(number))
        if entry is None:
            raise NotThere("The dashboard knows no such task.")
        return entry

    async def _read(self, request: Request, kind: type[M]) -> M:
        """A JSON body: a form of another site cannot send that kind."""
        self._check(request)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise InvalidBody("The body must be JSON, declared as 'Content-Type: application/json'.")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _BODY_LIMIT_BYTES:
                raise InvalidBody(f"The body is larger than {_BODY_LIMIT_BYTES} bytes.")
        try:
            return kind.model_validate_json(bytes(body))
        except ValidationError as error:
            raise InvalidBody(_sentence(error)) from None


def _json(content: Mapping[str, object]) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(_LATEST))):
        raise NotThere("The dashboard knows no such number.")
    return int(text)


def _sentence(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "the body"
    return f"Invalid: {field}: {problem['msg']}."
