"""Verifies an audit trail: line by line, in constant memory, over all its files.

Each line vouches for the one before it. So whatever was changed, removed, inserted or moved shows at the next line;
what was cut off at the end, or written anew from some line on, shows only against a head that somebody else kept:
the dashboard gets one with every result. Where the beginning is missing, the agent has recorded which file it dropped:
the line before the first one that is kept is named there by its number and its hash. Each such event says with which
line its file began, and which file went before it, so that the drop of one cannot hide that another was deleted.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from agp_agent.audit import GENESIS, AuditEvent, AuditHead
from agp_agent.audit_files import full_files

PROBLEMS_KEPT: Final = 100
"""So many problems are told; more are only counted."""

_LINE_MAX_BYTES: Final = 16 * 2**20
_HEAD: Final = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
_BEING_WRITTEN_S: Final = 1.0
_LOOK_S: Final = 0.05
_TRIES: Final = 10


class _Drop(NamedTuple):
    """What an agent says of a file that it dropped: its first number, its head, and that of the one dropped before."""

    first_seq: int | None
    """None: it is of an agent that did not tell."""
    head: AuditHead
    after: AuditHead | None
    """None: no line of the trail that was kept told of a drop."""

    @property
    def gap(self) -> str | None:
        """What was between the file that was dropped before and this one: it was never dropped, and is not there."""
        last = self.after.seq if self.after is not None else 0
        if self.first_seq is None or self.after == self.head or self.first_seq <= last + 1:
            return None  # the second: dropped again after a crash
        if self.after is None:  # an agent before 0.2.0 may have dropped files without a word
            return _beginning_of(self.first_seq - 1)
        gap = _lines_of(last + 1, self.first_seq - 1)
        return f"missing when the agent dropped a file: {gap}, deleted by somebody else"


class _Line(NamedTuple):
    """What a line says: its number, the hash of the line before it, its event, and which file went, where one did."""

    seq: int
    before: str
    event: str
    drop: _Drop | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which file, at which line (from 1), at which number of the trail, and what it is."""

    file: str
    line: int
    seq: int
    what: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.file}, line {self.line} (seq {self.seq}): {self.what}"


@dataclass(slots=True)
class Report:
    """What was found. ``first_seq`` is above 1 where older files are gone; 0: there is no line at all."""

    files: list[str] = field(default_factory=list)
    first_seq: int = 0
    head: AuditHead = field(default_factory=AuditHead)
    repairs: int = 0
    """Torn last lines that an agent cut off and recorded at its start."""
    problems: list[Problem] = field(default_factory=list)
    problems_total: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.problems_total == 0

    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            "whole": self.is_whole,
            "files": self.files,
            "first_seq": self.first_seq,
            "last_seq": self.head.seq,
            "head": str(self.head),
            "repairs": self.repairs,
            "problems": [asdict(problem) for problem in self.problems],
            "problems_total": self.problems_total,
        }

    def text(self) -> str:
        """For people."""
        lines = [str(problem) for problem in self.problems]
        if (more := self.problems_total - len(self.problems)) > 0:
            lines.append(f"… and {more} problems more.")
        repaired = f" Torn last lines that were cut off and recorded: {self.repairs}." if self.repairs else ""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        what = f"seq {self.first_seq} to {self.head.seq} in {files}.{repaired} Head: {self.head}"
        lines.append(f"The trail is {'whole' if self.is_whole else 'NOT whole'}: {what}")
        return "\n".join(lines)

    def add(self, problem: Problem) -> None:
        """Take in what is wrong."""
        self.problems_total += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)


def parse_head(text: str) -> AuditHead:
    """A head as the dashboard gets it. Raises ``ValueError`` where it is none."""
    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise ValueError("expected a head as in the header AGP-Audit-Head: 17:<64 hexadecimal digits>")
    return AuditHead(int(match[1]), match[2])


def verify(path: Path, known: AuditHead | None = None) -> Report:
    """Verify the trail whose current file is ``path``. The agent may go on writing meanwhile.

    Args:
        path: the current file; the full ones stand beside it.
        known: a head that the trail once had; it must still lead there.

    Raises:
        OSError: a file cannot be read.
    """
    with contextlib.ExitStack() as opened:
        files = _open_all(path, opened)
        check = _Check(known)
        for name, file in files:
            check.file(name, file)
    check.end(path, is_there=any(name == path.name for name, _ in files))
    return check.report


def _open_all(path: Path, opened: contextlib.ExitStack) -> list[tuple[str, BinaryIO]]:
    """Open all files of one moment: one that is renamed or removed afterwards stays readable."""
    for left in reversed(range(_TRIES)):
        names = full_files(path)
        with contextlib.ExitStack() as tried, contextlib.suppress(FileNotFoundError):  # rotated away meanwhile
            files: list[tuple[str, BinaryIO]] = [(name.name, tried.enter_context(name.open("rb"))) for name in names]
            if path.exists() or left:
                files.append((path.name, tried.enter_context(path.open("rb"))))
            if full_files(path) == names:
                opened.push(tried.pop_all())
                return files
        time.sleep(_LOOK_S)
    raise OSError(f"{path}: its files change faster than they can be opened")


class _Check:
    """Walks along the trail and compares each line with what the line before it demands."""

    def __init__(self, known: AuditHead | None) -> None:
        self.report = Report()
        self._known = known
        self._known_was_met = known is None or known == AuditHead()
        self._file = ""
        self._line = 0
        self._before: tuple[str, int] = ("", 0)
        """File and line of the line before."""
        self._missing: AuditHead | None = None
        """The line before the first one, where there was one, and no event has vouched for its being dropped."""

    def file(self, name: str, file: BinaryIO) -> None:
        """Take in the lines of the next file."""
        self.report.files.append(name)
        self._file, self._line = name, 0
        for line in _lines(file):
            self._line += 1
            self._take(line)
            self._before = name, self._line

    def end(self, current: Path, *, is_there: bool) -> None:
        """All lines were taken in."""
        self._file, self._line = current.name, self._line if is_there else 0
        if not is_there:
            self._wrong(self.report.head.seq, f"there is no {current}")
        if self._missing is not None:
            self.report.add(Problem(self.report.files[0], 1, self.report.first_seq, _beginning_of(self._missing.seq)))
        if not self._known_was_met:
            self._wrong(self.report.head.seq, self._why_not_met())

    def _take(self, line: bytes) -> None:
        head = self.report.head
        text = line.removesuffix(b"\n")
        found = _read(text)
        if text == line:
            self._wrong(head.seq + 1, f"the line is torn: its {len(line)} bytes have no end")
        elif found is None:
            self._wrong(head.seq + 1, "the line is damaged: it is no event of an audit trail")
        if found is None:
            seq = head.seq + 1
        else:
            seq = found.seq
            self._compare(seq, found.before)
            self._hear(found)
        self.report.first_seq = self.report.first_seq or seq
        self.report.head = AuditHead(seq, hashlib.sha256(text).hexdigest())
        self._meet_known()

    def _hear(self, line: _Line) -> None:
        """What a line says of the trail itself."""
        if self.report.first_seq == 0 and line.seq > 1:
            self._missing = AuditHead(line.seq - 1, line.before)
        elif line.drop is not None and line.drop.head == self._missing:
            self._missing = None
        if line.drop is not None and (gap := line.drop.gap) is not None:
            self._wrong(line.seq, gap)
        self.report.repairs += line.event == AuditEvent.AUDIT_REPAIRED

    def _compare(self, seq: int, before: str) -> None:
        head = self.report.head
        if self.report.first_seq == 0:
            if seq == 1 and before != GENESIS:
                self._wrong(seq, "the first line does not begin a trail: it was changed, or its trail was another")
        elif seq > head.seq + 1:
            self._wrong(seq, f"missing before it: {_lines_of(head.seq + 1, seq - 1)}")
        elif seq <= head.seq:
            self._wrong(seq, f"the line was inserted, repeated or moved: seq {head.seq} stands before it")
        elif before != head.sha256:
            file, line = self._before
            where = f"{file}, line {line}, seq {head.seq}"
            self._wrong(seq, f"it does not follow the line before it ({where}): one of the two was changed or replaced")

    def _meet_known(self) -> None:
        head, known = self.report.head, self._known
        if known is None or self._known_was_met or head.seq != known.seq:
            return
        self._known_was_met = True
        if head != known:
            self._wrong(head.seq, "the line is not the one that the known head vouches for: the trail was written anew")

    def _why_not_met(self) -> str:
        assert self._known is not None  # noqa: S101  else there is nothing to meet
        if self.report.head.seq < self._known.seq:
            return f"the trail was cut off: it ends before the known head {self._known.seq}"
        if self._known.seq < self.report.first_seq:
            return f"the known head {self._known.seq} is older than the oldest line that is kept: give a newer one"
        return f"the line of the known head {self._known.seq} is missing"

    def _wrong(self, seq: int, what: str) -> None:
        self.report.add(Problem(self._file, self._line, seq, what))


def _lines_of(first: int, last: int) -> str:
    return f"seq {first}" if first == last else f"seq {first} to {last}"


def _beginning_of(last: int) -> str:
    return (
        f"the beginning is missing ({_lines_of(1, last)}), and nothing vouches for it: it was deleted, "
        "or dropped by an agent before 0.2.0, which did not record that"
    )


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """All lines, each with its end; one that is being written now is waited for, and one without end is cut."""
    while line := file.readline(_LINE_MAX_BYTES):
        give_up_s = time.monotonic() + _BEING_WRITTEN_S
        while not line.endswith(b"\n") and len(line) < _LINE_MAX_BYTES and time.monotonic() < give_up_s:
            time.sleep(_LOOK_S)
            line += file.readline(_LINE_MAX_BYTES - len(line))
        yield line


def _read(text: bytes) -> _Line | None:
    """What the line says; None where it is no event."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    seq, before, event = (document.get(name) for name in ("seq", "prev", "event"))
    if type(seq) is not int or seq < 1 or not isinstance(before, str) or not isinstance(event, str):
        return None
    drop = _drop_in(document) if event == AuditEvent.AUDIT_FILE_DROPPED else None
    return _Line(seq, before, event, drop)


def _drop_in(document: Mapping[str, object]) -> _Drop | None:
    first_seq, after = document.get("first_seq"), document.get("after")
    try:
        head = parse_head(str(document.get("head")))
        before = None if after is None else parse_head(str(after))
    except ValueError:
        return None
    return _Drop(first_seq if isinstance(first_seq, int) else None, head, before)
