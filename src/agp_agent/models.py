"""The wire: the four models of the contract with the dashboard, and how their bytes are read.

No field is ever added to these models. Extra facts travel in HTTP headers or on the agent's own endpoints.
"""

import json
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agp_agent.errors import InvalidBody

TASK_ID_MAX_CHARS: Final = 256
PLAYBOOK_NAME_MAX_CHARS: Final = 255
_PIECE_CHARS: Final = 64 * 1024
_NO_CONTROLS: Final = {"pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
"""What ``_printable`` asks for, as a reader of the schema sees it."""


class TaskStatus(StrEnum):
    """Where a task is, as the dashboard sees it."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


def _encodable(text: str) -> str:
    """Refuse lone surrogates: they are no Unicode text and cannot be stored or sent on."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("no lone surrogates") from error
    return text


def _printable(text: str) -> str:
    """Refuse control characters (category Cc), which have no place in an id or a name."""
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise ValueError("no control characters")
    return _encodable(text)


class _Wire(BaseModel):
    """Strict and closed: no coercion, no unknown keys, no change after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Playbook(_Wire):
    """What to run. Only the suffix of ``name`` is ever looked at; ``content`` reaches the container byte for byte."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=PLAYBOOK_NAME_MAX_CHARS, json_schema_extra=_NO_CONTROLS),
        AfterValidator(_printable),
    ]
    content: Annotated[str, Field(min_length=1), AfterValidator(_encodable)]


class Task(_Wire):
    """One order of the dashboard: an id of its choosing and a playbook."""

    task_id: Annotated[
        str,
        Field(min_length=1, max_length=TASK_ID_MAX_CHARS, json_schema_extra=_NO_CONTROLS),
        AfterValidator(_printable),
    ]
    playbook: Playbook


class TaskResult(_Wire):
    """What became of a task. ``error`` is one plain sentence, or None when the playbook succeeded."""

    task_id: str
    status: TaskStatus
    output: str
    error: str | None = None

    def json_pieces(self) -> Iterator[bytes]:
        """The body of its delivery, piece by piece: as a whole it would be several times in memory at once."""
        yield b'{"task_id":%b,"status":%b,"output":"' % (_json(self.task_id), _json(self.status))
        for start in range(0, len(self.output), _PIECE_CHARS):
            yield _json(self.output[start : start + _PIECE_CHARS])[1:-1]
        yield b'","error":%b}' % _json(self.error)


_TEXT: Final = TypeAdapter[str | None](str | None)


def _json(text: str | None) -> bytes:
    return _TEXT.dump_json(text)


_EXPECTED: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a known key",
    "string_type": "must be a string",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def parse_task(body: bytes) -> Task:
    """Read a ``Task`` from the bytes of a request.

    Raises:
        InvalidBody: with one sentence that names the field and what was expected, and never quotes the content.
    """
    document = _load_json(body)
    try:
        return Task.model_validate(document)
    except ValidationError as error:
        raise InvalidBody(_describe(error)) from None


def _load_json(body: bytes) -> object:
    """Strict JSON: UTF-8 only, no NaN, no duplicate keys, bounded depth."""
    if not body:
        raise InvalidBody("The request body is empty; expected a JSON object with task_id and playbook.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidBody("The request body is not valid UTF-8.") from None
    try:
        document: object = _STRICT_JSON.decode(text)
    except RecursionError:
        raise InvalidBody("The request body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidBody(f"The request body is not valid JSON ({where}).") from None
    except ValueError:  # an integer of thousands of digits
        raise InvalidBody("The request body holds a number that is too long.") from None
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidBody(f"The request body holds {name}, which is not valid JSON.")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise InvalidBody("The request body holds an object with a duplicate key.")
    return keys


_STRICT_JSON: Final = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def _describe(error: ValidationError) -> str:
    """One sentence for the first problem; the names of unknown keys are the sender's data and are not echoed."""
    problem = error.errors(include_url=False, include_input=False)[0]
    kind = problem["type"]
    path = [str(part) for part in problem["loc"]]
    if kind == "extra_forbidden":
        owner = ".".join(path[:-1]) or "the body"
        known = "name, content" if path[:-1] else "task_id, playbook"
        return f"Invalid body: {owner} has an unknown key; expected only {known}."
    field = ".".join(path) or "the body"
    return f"Invalid body: {field} {_expectation(kind, problem.get('ctx', {}))}."


def _expectation(kind: str, context: dict[str, object]) -> str:
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind == "value_error":
        return f"must be text with {context['error']}"
    if kind == "string_unicode":
        return "must be text with no lone surrogates"
    return _EXPECTED.get(kind, "is not as the contract expects")
