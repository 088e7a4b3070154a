"""Playbooks that print more than anybody keeps, and what must be kept of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

OUTPUT_LIMIT_BYTES: Final = 4 * 2**20
"""The agent's default."""
_ALL_BYTES: Final = bytes(range(256))
_ANSI: Final = b"\x1b[31;1mred\x1b[2J\x1b]0;title\x07\x1b[0m\n"


@dataclass(frozen=True, slots=True)
class Flood:
    """A shell script, and a function that returns the bytes ``start`` to ``end`` of the ``total`` that it prints."""

    about: str
    script: str
    total: int
    part: Callable[[int, int], bytes]
    exit_code: int

    def expected(self, first_line: str) -> str:
        """What is delivered of it behind the line that tells its start: head, count and tail."""
        before = first_line.encode()
        half = OUTPUT_LIMIT_BYTES // 2
        head = _whole(before + self.part(0, half - len(before)))
        tail = self.part(self.total - half, self.total)
        while tail[0] & 0xC0 == 0x80 and len(tail) > half - 3:  # the rest of a character
            tail = tail[1:]
        omitted = len(before) + self.total - len(head) - len(tail)
        text = head.decode(errors="replace")
        line_end = "" if text.endswith("\n") else "\n"
        return f"{text}{line_end}[agp-agent: {omitted} bytes omitted]\n{tail.decode(errors='replace')}"


def _whole(head: bytes) -> bytes:
    """Without the beginning of a character at its end, as which every byte from 0xC0 on counts."""
    return head[:-1] if head[-1] >= 0xC0 else head


def repeated(pattern: bytes) -> Callable[[int, int], bytes]:
    """Parts of a pattern that is repeated for ever."""

    def part(start: int, end: int) -> bytes:
        first = start - start % len(pattern)
        return (pattern * ((end - first) // len(pattern) + 1))[start - first : end - first]

    return part


def _octal(pattern: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in pattern)


def _repeating(about: str, pattern: bytes, times: int, exit_code: int) -> Flood:
    """Prints a pattern so many times: first doubled into a file of one MiB, then that file again and again."""
    per_file = 2**20 // len(pattern)
    assert times % per_file == 0
    script = (
        f"printf '{_octal(pattern)}' >/tmp/one\n"
        f"for i in $(seq {per_file}); do echo /tmp/one; done | xargs cat >/tmp/many\n"
        f"for i in $(seq {times // per_file}); do cat /tmp/many; done\nexit {exit_code}\n"
    )
    return Flood(about, script, times * len(pattern), repeated(pattern), exit_code)


def one_line(size: int) -> Flood:
    """A line that does not end."""
    return Flood("one line", f"head -c {size} /dev/zero | tr '\\0' x\nexit 41\n", size, repeated(b"x"), 41)


def gigabyte() -> Flood:
    """Lines of 999 characters: dockerd's log takes longer for a line than for a kilobyte."""
    script = "yes $(head -c 999 /dev/zero | tr '\\0' y) | head -c 1000000000\nexit 45\n"
    return Flood("1 GB", script, 10**9, repeated(b"y" * 999 + b"\n"), 45)


def lines(number: int) -> Flood:
    """The numbers from ten million on, all of eight digits: a line each."""
    first = 10_000_000

    def part(start: int, end: int) -> bytes:
        text = b"".join(b"%d\n" % (first + line) for line in range(start // 9, end // 9 + 1))
        return text[start % 9 : start % 9 + end - start]

    return Flood("many lines", f"seq {first} {first + number - 1}\nexit 42\n", 9 * number, part, 42)


def binary(mebibytes: int) -> Flood:
    """Every byte there is, NUL and what is no UTF-8 among them."""
    return _repeating("binary", _ALL_BYTES, mebibytes * 4096, 43)


def ansi(times: int) -> Flood:
    """What would colour, clear and rename a terminal."""
    per_file = 2**20 // len(_ANSI)
    return _repeating("escape sequences", _ANSI, times * per_file, 44)
