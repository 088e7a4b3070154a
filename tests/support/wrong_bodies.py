"""Everything that can be wrong with the body of a task, each with the exact sentence of its answer."""

import json
from typing import Final

MARK: Final = "never-repeat-this"
"""Stands in every wrong body; no answer and no log may repeat it."""

_PLAYBOOK: Final = {"name": "p.sh", "content": f"echo {MARK}"}
_TASK: Final = {"task_id": f"{MARK}-1", "playbook": _PLAYBOOK}
_GOOD: Final = json.dumps(_TASK)


def _task(**changed: object) -> bytes:
    return json.dumps(_TASK | changed).encode()


def _playbook(**changed: object) -> bytes:
    return _task(playbook=_PLAYBOOK | changed)


def _without(key: str, inner: str | None = None) -> bytes:
    task: dict[str, object] = dict(_TASK)
    if inner is None:
        del task[key]
    else:
        task[key] = {name: value for name, value in _PLAYBOOK.items() if name != inner}
    return json.dumps(task).encode()


_INVALID: Final = "Invalid body: "
_UTF8: Final = "The request body is not valid UTF-8."
_DUPLICATE: Final = "The request body holds an object with a duplicate key."
_DEEP: Final = "The request body is nested too deeply."
_ID_CONTROL: Final = f"{_INVALID}task_id must be text with no control characters."
_NAME_CONTROL: Final = f"{_INVALID}playbook.name must be text with no control characters."
_ID_STRING: Final = f"{_INVALID}task_id must be a string."

WRONG_BODIES: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "The request body is empty; expected a JSON object with task_id and playbook."),
    "blank": (b" \n", "The request body is not valid JSON (line 2, column 1)."),
    "no JSON": (MARK.encode(), "The request body is not valid JSON (line 1, column 1)."),
    "a form": (f"task_id={MARK}".encode(), "The request body is not valid JSON (line 1, column 1)."),
    "cut off": (_GOOD[:-1].encode(), f"The request body is not valid JSON (line 1, column {len(_GOOD)})."),
    "two documents": (_GOOD.encode() * 2, f"The request body is not valid JSON (line 1, column {len(_GOOD) + 1})."),
    "single quotes": (_GOOD.replace('"', "'").encode(), "The request body is not valid JSON (line 1, column 2)."),
    "a NUL behind it": (
        _GOOD.encode() + b"\0",
        f"The request body is not valid JSON (line 1, column {len(_GOOD) + 1}).",
    ),
    "null": (b"null", f"{_INVALID}the body must be an object."),
    "a list": (f"[{_GOOD}]".encode(), f"{_INVALID}the body must be an object."),
    "a string": (json.dumps(MARK).encode(), f"{_INVALID}the body must be an object."),
    "a number": (b"17", f"{_INVALID}the body must be an object."),
    "an empty object": (b"{}", f"{_INVALID}task_id is required."),
    "no task_id": (_without("task_id"), f"{_INVALID}task_id is required."),
    "no playbook": (_without("playbook"), f"{_INVALID}playbook is required."),
    "no name": (_without("playbook", "name"), f"{_INVALID}playbook.name is required."),
    "no content": (_without("playbook", "content"), f"{_INVALID}playbook.content is required."),
    "task_id null": (_task(task_id=None), _ID_STRING),
    "task_id a number": (_task(task_id=7), _ID_STRING),
    "task_id a bool": (_task(task_id=True), _ID_STRING),
    "task_id a list": (_task(task_id=[MARK]), _ID_STRING),
    "task_id an object": (_task(task_id={MARK: MARK}), _ID_STRING),
    "playbook a string": (_task(playbook=MARK), f"{_INVALID}playbook must be an object."),
    "playbook a list": (_task(playbook=[_PLAYBOOK]), f"{_INVALID}playbook must be an object."),
    "playbook null": (_task(playbook=None), f"{_INVALID}playbook must be an object."),
    "name a number": (_playbook(name=1.5), f"{_INVALID}playbook.name must be a string."),
    "content a list": (_playbook(content=[MARK]), f"{_INVALID}playbook.content must be a string."),
    "content null": (_playbook(content=None), f"{_INVALID}playbook.content must be a string."),
    "task_id empty": (_task(task_id=""), f"{_INVALID}task_id must not be empty."),
    "name empty": (_playbook(name=""), f"{_INVALID}playbook.name must not be empty."),
    "content empty": (_playbook(content=""), f"{_INVALID}playbook.content must not be empty."),
    "task_id too long": (_task(task_id="x" * 257), f"{_INVALID}task_id must have at most 256 characters."),
    "name too long": (_playbook(name="x" * 256), f"{_INVALID}playbook.name must have at most 255 characters."),
    "unknown key": (_task(**{MARK: 1}), f"{_INVALID}the body has an unknown key; expected only task_id, playbook."),
    "result's key": (
        _task(status="running"),
        f"{_INVALID}the body has an unknown key; expected only task_id, playbook.",
    ),
    "unknown inner key": (
        _playbook(**{MARK: 1}),
        f"{_INVALID}playbook has an unknown key; expected only name, content.",
    ),
    "NaN": (_GOOD.replace(f'"{MARK}-1"', "NaN").encode(), "The request body holds NaN, which is not valid JSON."),
    "Infinity": (
        _GOOD.replace(f'"{MARK}-1"', "-Infinity").encode(),
        "The request body holds -Infinity, which is not valid JSON.",
    ),
    "a number too large": (_GOOD.replace(f'"{MARK}-1"', "1e999").encode(), _ID_STRING),
    "a number too long": (
        _GOOD.replace(f'"{MARK}-1"', "1" * 5000).encode(),
        "The request body holds a number that is too long.",
    ),
    "duplicate key": (_GOOD.replace('"task_id"', '"task_id": "a", "task_id"').encode(), _DUPLICATE),
    "duplicate inner key": (_GOOD.replace('"name"', '"name": "a", "name"').encode(), _DUPLICATE),
    "duplicate by escape": (_GOOD.replace('"task_id"', '"t\\u0061sk_id": "a", "task_id"').encode(), _DUPLICATE),
    "UTF-16": (_GOOD.encode("utf-16"), _UTF8),
    "UTF-32": (_GOOD.encode("utf-32"), _UTF8),
    "UTF-16 without mark": (_GOOD.encode("utf-16-le"), "The request body is not valid JSON (line 1, column 2)."),
    "Latin-1": (_GOOD.replace("echo", "é").encode("latin-1"), _UTF8),
    "raw surrogate": (_GOOD.replace("echo", "\ud800").encode("utf-8", "surrogatepass"), _UTF8),
    "overlong": (_GOOD.encode().replace(b"echo", b"\xc0\xaf"), _UTF8),
    "byte order mark": (_GOOD.encode("utf-8-sig"), "The request body is not valid JSON (line 1, column 1)."),
    "surrogate in task_id": (_task(task_id="a\ud800"), f"{_INVALID}task_id must be text with no lone surrogates."),
    "surrogate in name": (
        _playbook(name="\udfff.sh"),
        f"{_INVALID}playbook.name must be text with no lone surrogates.",
    ),
    "surrogate in content": (
        _playbook(content=f"{MARK}\udc00"),
        f"{_INVALID}playbook.content must be text with no lone surrogates.",
    ),
    "NUL in task_id": (_task(task_id="a\0b"), _ID_CONTROL),
    "newline in task_id": (_task(task_id="a\nb"), _ID_CONTROL),
    "escape in task_id": (_task(task_id="\x1b[2J"), _ID_CONTROL),
    "DEL in task_id": (_task(task_id="a\x7f"), _ID_CONTROL),
    "C1 in task_id": (_task(task_id="a\x85b"), _ID_CONTROL),
    "NUL in name": (_playbook(name="a\0.sh"), _NAME_CONTROL),
    "tab in name": (_playbook(name="a\t.sh"), _NAME_CONTROL),
    "raw control character": (
        _GOOD.replace("echo", "\x01").encode(),
        f"The request body is not valid JSON (line 1, column {_GOOD.index('echo') + 1}).",
    ),
    "100,000 lists": (b"[" * 100_000, _DEEP),
    "100,000 closed lists": (b"[" * 100_000 + b"]" * 100_000, _DEEP),
    "100,000 objects": (b'{"a":' * 100_000, _DEEP),
    "deep below a key": (_GOOD.replace(f'"{MARK}-1"', "[" * 100_000 + "]" * 100_000).encode(), _DEEP),
}
