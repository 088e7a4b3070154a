"""The log driver's record, joined byte for byte."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agp_agent.docker_engine.record import joined

FULL = 2**14


def records(output: bytes, *, old: bool) -> bytes:
    """What the engine makes of an output: one frame a line, long lines in parts, as its copier and reader do."""
    wire = b""
    *lines, rest = output.split(b"\n")
    for line in lines:
        parts = [line[start : start + FULL] for start in range(0, len(line), FULL)] or [b""]
        if len(line) and len(line) % FULL == 0:
            parts.append(b"")
        was_cut = len(parts) > 1
        parts[-1] += b"" if was_cut and old else b"\n"
        wire += b"".join(_frame(part) for part in parts)
    return wire + b"".join(_frame(rest[start : start + FULL]) for start in range(0, len(rest), FULL))


def _frame(data: bytes, kind: int = 1) -> bytes:
    data = b"2026-01-02T03:04:05.000000006Z " + data
    return bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


line_lengths = st.lists(st.sampled_from([0, 1, 100, FULL - 1, FULL, FULL + 1, 2 * FULL, 3 * FULL - 1]), max_size=6)


@settings(deadline=None)  # no clock decides a test
@given(line_lengths, st.booleans())
def test_lines_of_any_length_come_out_whole(lengths: list[int], old: bool) -> None:  # noqa: FBT001  # hypothesis fills it
    """From old engines, which drop the newline after a long line, as from new ones."""
    output = b"".join(b"x" * length + b"\n" for length in lengths)
    log = joined([records(output, old=old)], 2**30, restore_newlines=old)
    assert log.output == output


@settings(deadline=None, max_examples=30)  # no clock decides a test
@given(line_lengths, st.sampled_from([31, 1000, FULL, 50_000]))
def test_chunks_of_the_answer_do_not_matter(lengths: list[int], size: int) -> None:
    """A record that comes in pieces is still one record."""
    output = b"".join(b"x" * length + b"\n" for length in lengths) + b"end\n"
    wire = records(output, old=True)
    borders = [*range(0, len(wire), size), len(wire)]
    chunks = [wire[start:end] for start, end in pairwise(borders)]
    assert joined(chunks, 2**30, restore_newlines=True).output == output


def test_streams_do_not_mix() -> None:
    """A line of one stream is not closed by a record of the other."""
    wire = _frame(b"x" * FULL) + _frame(b"e\n", 2) + _frame(b"y") + _frame(b"z\n")
    log = joined([wire], 2**30, restore_newlines=True)
    assert (log.output, log.control) == (b"x" * FULL + b"y\nz\n", b"e\n")


@pytest.mark.parametrize(("limit", "rotated"), [(2**20, False), (1000, True), (0, True)])
def test_rotation_is_said_in_doubt(limit: int, *, rotated: bool) -> None:
    """A record that may fill a whole file may have lost its beginning; one that cannot has not."""
    assert joined([_frame(b"x" * 99 + b"\n") * 9], limit, restore_newlines=True).rotated is rotated


def test_an_empty_record_is_whole() -> None:
    """A container that printed nothing has lost nothing."""
    log = joined([], 100, restore_newlines=True)
    assert (log.output, log.control, log.rotated) == (b"", b"", False)
