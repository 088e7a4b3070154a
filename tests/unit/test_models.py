"""The wire: what is read, what is refused, and with which sentence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agp_agent.errors import InvalidBody
from agp_agent.models import Playbook, Task, TaskResult, TaskStatus, parse_task


def body(**changes: Any) -> bytes:
    """Return a good body with changes; a key set to ... is left out."""
    document = {"task_id": "t1", "playbook": {"name": "a.sh", "content": "echo hi\n"}} | changes
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def playbook(**changes: Any) -> bytes:
    """Return a good body with changes in its playbook."""
    inner = {"name": "a.sh", "content": "echo hi\n"} | changes
    return body(playbook={key: value for key, value in inner.items() if value is not ...})


def refusal(raw: bytes) -> str:
    """Return the sentence with which a body is refused."""
    with pytest.raises(InvalidBody) as caught:
        parse_task(raw)
    return caught.value.detail


def test_the_four_models_have_exactly_the_fields_of_the_contract() -> None:
    """No field is ever added to the wire."""
    assert list(TaskStatus) == ["pending", "running", "completed", "failed"]
    assert list(Playbook.model_fields) == ["name", "content"]
    assert list(Task.model_fields) == ["task_id", "playbook"]
    assert list(TaskResult.model_fields) == ["task_id", "status", "output", "error"]
    result = TaskResult(task_id="t1", status=TaskStatus.COMPLETED, output="hi\n")
    assert json.loads(result.model_dump_json()) == {
        "task_id": "t1",
        "status": "completed",
        "output": "hi\n",
        "error": None,
    }


@pytest.mark.parametrize(
    "task_id", ["t", "x" * 256, "../x", "-rf", "🚀 space", "%2e%2e", "a/logs", "\u202e", "é" * 256]
)
def test_any_printable_text_is_a_task_id(task_id: str) -> None:
    """An id is data, whatever it looks like."""
    assert parse_task(body(task_id=task_id)).task_id == task_id


@pytest.mark.parametrize("name", ["a", "n" * 255, "../../etc/passwd.yml", "🚀.sh"])
def test_any_printable_text_is_a_playbook_name(name: str) -> None:
    """A name is data too."""
    assert parse_task(playbook(name=name)).playbook.name == name


@pytest.mark.parametrize("content", ["x", "\x00", "a\r\nb", "\ufeff- hosts: all", "\x1b[2J", "  "])
def test_content_is_taken_as_it_is(content: str) -> None:
    """Control characters in the content are the interpreter's business."""
    assert parse_task(playbook(content=content)).playbook.content == content


@given(st.text(min_size=1))
def test_content_survives_json_unchanged(content: str) -> None:
    """Whatever valid text is sent is what the task holds."""
    assert parse_task(playbook(content=content)).playbook.content == content


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "The request body is empty; expected a JSON object with task_id and playbook."),
        (b"\xff\xfe{\x00}\x00", "The request body is not valid UTF-8."),
        (b"{", "The request body is not valid JSON (line 1, column 2)."),
        (b"{}x", "The request body is not valid JSON (line 1, column 3)."),
        (b"\xef\xbb\xbf{}", "The request body is not valid JSON (line 1, column 1)."),
        (b'{"task_id": NaN}', "The request body holds NaN, which is not valid JSON."),
        (b'{"task_id": -Infinity}', "The request body holds -Infinity, which is not valid JSON."),
        (b'{"a": 1, "a": 1}', "The request body holds an object with a duplicate key."),
        (b"[" * 100_000, "The request body is nested too deeply."),
        (b'{"task_id": ' + b"9" * 5000 + b"}", "The request body holds a number that is too long."),
        (b"null", "Invalid body: the body must be an object."),
        (b"[]", "Invalid body: the body must be an object."),
        (b'"text"', "Invalid body: the body must be an object."),
        (body(task_id=...), "Invalid body: task_id is required."),
        (body(task_id=7), "Invalid body: task_id must be a string."),
        (body(task_id=None), "Invalid body: task_id must be a string."),
        (body(task_id=""), "Invalid body: task_id must not be empty."),
        (body(task_id="x" * 257), "Invalid body: task_id must have at most 256 characters."),
        (body(task_id="a\nb"), "Invalid body: task_id must be text with no control characters."),
        (body(task_id="a\x00"), "Invalid body: task_id must be text with no control characters."),
        (body(task_id="a\x85"), "Invalid body: task_id must be text with no control characters."),
        (body(task_id="a\ud800"), "Invalid body: task_id must be text with no lone surrogates."),
        (body(playbook=...), "Invalid body: playbook is required."),
        (body(playbook="x"), "Invalid body: playbook must be an object."),
        (body(playbook=None), "Invalid body: playbook must be an object."),
        (body(extra=1), "Invalid body: the body has an unknown key; expected only task_id, playbook."),
        (playbook(name=...), "Invalid body: playbook.name is required."),
        (playbook(name=["x"]), "Invalid body: playbook.name must be a string."),
        (playbook(name=""), "Invalid body: playbook.name must not be empty."),
        (playbook(name="x" * 256), "Invalid body: playbook.name must have at most 255 characters."),
        (playbook(name="a\tb"), "Invalid body: playbook.name must be text with no control characters."),
        (playbook(content=...), "Invalid body: playbook.content is required."),
        (playbook(content=""), "Invalid body: playbook.content must not be empty."),
        (playbook(content=1.5), "Invalid body: playbook.content must be a string."),
        (playbook(content="a\udfff"), "Invalid body: playbook.content must be text with no lone surrogates."),
        (playbook(secret=1), "Invalid body: playbook has an unknown key; expected only name, content."),
    ],
)
def test_a_wrong_body_is_refused_with_one_sentence_that_names_the_field(raw: bytes, sentence: str) -> None:
    """The sentence says which field, and what was expected."""
    assert refusal(raw) == sentence


@pytest.mark.parametrize("change", [{"name": 5}, {"name": "\x00"}, {"HUNTER2": 1}, {"content": "hunter2\ud800"}])
def test_a_refusal_never_echoes_what_was_sent(change: dict[str, Any]) -> None:
    """Neither content nor the names of unknown keys come back."""
    sentence = refusal(playbook(**({"content": "echo hunter2"} | change)))
    assert "hunter2" not in sentence.lower()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_cause_anything_but_a_refusal(raw: bytes) -> None:
    """A body that is no task is refused; nothing else is ever raised."""
    with pytest.raises(InvalidBody):
        parse_task(raw)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["task_id", "playbook", "name", "content", "x"]), inner, max_size=3)
        ),
    ),
)
def test_no_json_causes_anything_but_a_task_or_a_refusal(document: object) -> None:
    """Whatever shape it has, it is read or refused with a sentence."""
    raw = json.dumps(document).encode()
    detail = "read."
    try:
        parse_task(raw)
    except InvalidBody as refused:
        detail = refused.detail
    assert detail.endswith(".")
    assert "\n" not in detail


def test_the_wire_is_frozen() -> None:
    """A task cannot be changed after it was read."""
    task = parse_task(body())
    with pytest.raises(ValidationError, match="frozen"):
        task.task_id = "other"  # type: ignore[misc]


@given(
    st.text(),
    st.text() | st.sampled_from(["x" * 200_000, "\U0001f642" * 70_000, '"\\' * 70_000]),
    st.none() | st.text(),
)
def test_a_result_in_pieces_is_the_result(task_id: str, output: str, error: str | None) -> None:
    """Joined they are the JSON of the whole; none is as large as that."""
    result = TaskResult(task_id=task_id, status=TaskStatus.FAILED, output=output, error=error)
    pieces = list(result.json_pieces())
    assert b"".join(pieces) == result.model_dump_json().encode()
    assert all(len(piece) <= 2**20 for piece in pieces)
