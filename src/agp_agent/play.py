"""What a playbook's own tool tells of its run, over the entry's control channel: failed tasks and a recap. Pure.

The playbook can reach that channel too, so all of it is untrusted: it is bounded, checked against a schema, and decides
nothing. A line that is no such event is as if it had not come. The lines are the runner contract's (images/README.md).
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FAILURES_MAX: Final = 20
HOSTS_MAX: Final = 500
TEXT_MAX_CHARS: Final = 1000
"""A text of that length was cut by whoever sent it."""
_NAME_SHOWN_CHARS: Final = 200
_MESSAGE_SHOWN_CHARS: Final = 400
_EVENT: Final = b"agp1 event "

Mask = Callable[[str, bool], str]
"""Masks secrets in a text; True: its end was cut off, and may be the beginning of one."""

_Text = Annotated[str, Field(max_length=TEXT_MAX_CHARS)]
_Count = Annotated[int, Field(ge=0, le=10**9)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HostRecap(_Event):
    """How many tasks ended how on one host, as Ansible counts."""

    host: _Text
    ok: _Count
    changed: _Count
    unreachable: _Count
    failed: _Count
    skipped: _Count
    rescued: _Count
    ignored: _Count


class Failure(_Event):
    """A task that failed on a host, or could not reach it, and was neither ignored nor rescued."""

    kind: Literal["failed", "unreachable"]
    host: _Text
    task: _Text
    message: _Text

    @property
    def sentence(self) -> str:
        """What happened, in one plain sentence without its full stop."""
        what = "failed on" if self.kind == "failed" else "could not reach"
        return f'task "{self.task}" {what} {self.host}: {self.message}'


class Play(_Event):
    """What was told of one run. It may be less than what happened, and a playbook may have made it up."""

    recap: tuple[HostRecap, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def why(self) -> str | None:
        """Why the run failed, as far as that was told."""
        if not self.failures:
            return None
        more = len(self.failures) - 1
        return self.failures[0].sentence + (f" (and {more} more)" if more else "")


class _Line(_Event):
    recap: HostRecap | None = None
    failure: Failure | None = None


def read(control: bytes, mask: Mask = lambda text, _is_cut: text) -> Play | None:
    """What the events on a control channel tell, their secrets masked and each text on one line; None: nothing."""
    recap: dict[str, HostRecap] = {}
    failures: list[Failure] = []
    for line in _lines(control):
        if line.recap and len(recap) < HOSTS_MAX:
            host = _shown(line.recap.host, mask, _NAME_SHOWN_CHARS)
            recap[host] = line.recap.model_copy(update={"host": host})
        if line.failure and len(failures) < FAILURES_MAX:
            failures.append(_shown_failure(line.failure, mask))
    return Play(recap=tuple(recap.values()), failures=tuple(failures)) if recap or failures else None


def _lines(control: bytes) -> Iterator[_Line]:
    for line in control.split(b"\n")[:-1]:  # what has no end yet is none
        if line.startswith(_EVENT):
            try:
                yield _Line.model_validate_json(line.removeprefix(_EVENT))
            except ValidationError:
                continue


def _shown_failure(failure: Failure, mask: Mask) -> Failure:
    return Failure(
        kind=failure.kind,
        host=_shown(failure.host, mask, _NAME_SHOWN_CHARS),
        task=_shown(failure.task, mask, _NAME_SHOWN_CHARS),
        message=_shown(failure.message, mask, _MESSAGE_SHOWN_CHARS),
    )


def _shown(text: str, mask: Mask, limit: int) -> str:
    """The text on one line, without what a terminal would obey. Masked first: a secret may have several lines."""
    masked = mask(text, len(text) >= TEXT_MAX_CHARS)
    line = " ".join("".join(char if char.isprintable() else " " for char in masked).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
