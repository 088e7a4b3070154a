"""What is kept of a playbook's output, and how it reads. Pure."""

from dataclasses import dataclass
from typing import Final

_CHARACTER_MAX_BYTES: Final = 4
_CONTINUATION: Final = 0x80


@dataclass(frozen=True, slots=True)
class Output:
    """What is kept of a playbook's output: all of it in ``head``, or head and tail with ``omitted_bytes`` between."""

    head: bytes = b""
    tail: bytes = b""
    total_bytes: int = 0
    omitted_bytes: int = 0
    at_least: bool = False
    """More may be missing than ``omitted_bytes`` says: nobody counted it."""

    def text(self) -> str:
        """As the dashboard gets it: UTF-8 with replacement, and a line that states what is missing."""
        head = self.head.decode(errors="replace")
        if not self.omitted_bytes and not self.at_least:
            return head
        line_end = "" if head.endswith("\n") or not head else "\n"
        return f"{head}{line_end}[agp-agent: {self._gap} omitted]\n{self.tail.decode(errors='replace')}"

    @property
    def _gap(self) -> str:
        if not self.at_least:
            return f"{self.omitted_bytes} bytes"
        return f"at least {self.omitted_bytes} bytes" if self.omitted_bytes else "an unknown number of bytes"

    def cut_to(self, limit_bytes: int) -> "Output":
        """The same with at most ``limit_bytes`` kept, half of them head and half tail."""
        if len(self.head) + len(self.tail) <= limit_bytes:
            return self
        half = limit_bytes // 2
        return Output.cut(self.head[:half], (self.tail or self.head)[-half:], self.total_bytes, at_least=self.at_least)

    @classmethod
    def cut(cls, head: bytes, tail: bytes, total_bytes: int, *, at_least: bool = False) -> "Output":
        """Head and tail of ``total_bytes`` with a gap between them, which is widened to whole UTF-8 characters."""
        head, tail = _whole_end(head), _whole_start(tail)
        return cls(head, tail, total_bytes, total_bytes - len(head) - len(tail), at_least)


def _whole_end(data: bytes) -> bytes:
    """``data`` without the beginning of a character at its end."""
    for back in range(1, min(_CHARACTER_MAX_BYTES, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == _CONTINUATION:
            continue
        length = 1 if byte < _CONTINUATION else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4  # noqa: PLR2004  UTF-8
        return data[:-back] if length > back else data
    return data  # no UTF-8 at all: nothing to keep whole


def _whole_start(data: bytes) -> bytes:
    """``data`` without the end of a character at its start."""
    skip = 0
    while skip < min(_CHARACTER_MAX_BYTES - 1, len(data)) and data[skip] & 0xC0 == _CONTINUATION:
        skip += 1
    return data[skip:]
