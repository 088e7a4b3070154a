"""The OpenAPI document: every operation with every status it can answer, and the token it needs."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from agp_agent.api import examples
from agp_agent.api.answers import LogEnd, LogGap, LogOutput, Problem
from agp_agent.models import Task

_SCHEMA: Final = "#/components/schemas/{model}"

_MEANINGS: Final = {
    400: "The request is malformed; the sentence names the field and what was expected.",
    401: "The bearer token is missing or wrong, or the peer is not allowed. Always the same answer.",
    404: "There is no such task.",
    408: "The request did not arrive in time.",
    409: "A task with this task_id is running: queued, running, or finished and not acknowledged yet.",
    413: "The body or the playbook is too large.",
    415: "The body is not declared as application/json.",
    431: "Request line and headers are too large.",
    500: "The agent failed; its log tells why.",
    503: "Not now: the queue is full, the agent is stopping, or its disk does not take it.",
}
_ALWAYS: Final = (400, 408, 431, 500)
"""What the server itself may answer to any request."""
_HEADERS: Final[dict[int, dict[str, str]]] = {
    401: {"WWW-Authenticate": "Always `Bearer`."},
    503: {"Retry-After": "Seconds after which to ask again."},
}

TASK_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": _SCHEMA.format(model="Task")}}},
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key within 24 h gets the same 202 and runs nothing.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        },
        {
            "name": "traceparent",
            "in": "header",
            "required": False,
            "description": "The trace that the task belongs to (W3C Trace Context); one that is none is ignored.",
            "schema": {"type": "string"},
        },
    ],
}
METRICS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
_EVENTS: Final[dict[str, type[BaseModel]]] = {"output": LogOutput, "gap": LogGap, "end": LogEnd}
LOGS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The output. Events are `output` (its data a LogOutput), `gap` (a LogGap) and at the end `end` "
        "(a LogEnd); the id of each is the position behind it, in bytes.",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "text/event-stream": {
                "schema": {"type": "string"},
                "x-event-data": {
                    event: {"$ref": _SCHEMA.format(model=model.__name__)} for event, model in _EVENTS.items()
                },
            },
        },
    }
}
ENDED: Final[dict[int | str, dict[str, Any]]] = {
    409: {
        "model": Problem,
        "description": "The task has ended; the sentence says how.",
        "content": {"application/json": {"example": {"detail": "The task has ended already: succeeded."}}},
    }
}
OPEN: Final[dict[str, Any]] = {"security": []}
"""For operations that need no token."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation answers beside its success: these, and what any may."""
    return {
        status: {"model": Problem, "description": _MEANINGS[status], "headers": _headers(status)}
        for status in sorted({*statuses, *_ALWAYS})
    }


def _headers(status: int) -> dict[str, Any]:
    return {
        name: {"description": meaning, "schema": {"type": "string"}}
        for name, meaning in _HEADERS.get(status, {}).items()
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out or has a value: there is no null in a query or a header."""
    kinds: list[dict[str, Any]] = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]


def _add_examples(document: dict[str, Any]) -> None:
    for name, example in examples.MODELS.items():
        document["components"]["schemas"][name]["examples"] = [example]
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if (media := answer.get("content", {}).get("application/json")) and status in examples.ERRORS:
                    is_problem = media["schema"].get("$ref") == _SCHEMA.format(model="Problem")
                    usual = {"detail": examples.ERRORS[status]} if is_problem else {"status": "not ready"}
                    media.setdefault("example", usual)


def document(api: FastAPI) -> dict[str, Any]:
    """The document of these routes."""
    found: dict[str, Any] = get_openapi(
        title=api.title,
        version=api.version,
        routes=api.routes,
        separate_input_output_schemas=False,
    )
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # FastAPI's own; the agent never answers it
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
    schemas = found["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    unseen: tuple[type[BaseModel], ...] = (Task, *_EVENTS.values())  # by FastAPI, which reads no body or stream for us
    for model in unseen:
        schema = model.model_json_schema(ref_template=_SCHEMA)
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    _add_examples(found)
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found | {"security": [{"token": []}]}
