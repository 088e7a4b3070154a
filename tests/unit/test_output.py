"""What is kept of the output, and how it reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agp_agent.output import Output


def test_output_that_was_kept_whole_reads_as_it_was_printed() -> None:
    """No line of the agent's is added."""
    assert Output(b"hi\n", b"", 3).text() == "hi\n"
    assert Output().text() == ""


def test_invalid_utf8_is_replaced_and_nulls_are_kept() -> None:
    """The result is always valid text."""
    assert Output(b"a\xff\x00b", b"", 4).text() == "a\ufffd\x00b"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (Output(b"head\n", b"tail", 20, 11), "head\n[agp-agent: 11 bytes omitted]\ntail"),
        (Output(b"head", b"tail", 20, 12), "head\n[agp-agent: 12 bytes omitted]\ntail"),
        (Output(b"", b"tail", 20, 16), "[agp-agent: 16 bytes omitted]\ntail"),
        (Output(b"head\n", b"", 5, 0, at_least=True), "head\n[agp-agent: an unknown number of bytes omitted]\n"),
        (Output(b"h", b"t", 9, 7, at_least=True), "h\n[agp-agent: at least 7 bytes omitted]\nt"),
    ],
)
def test_what_is_missing_is_stated_on_a_line_of_its_own(output: Output, text: str) -> None:
    """Between head and tail, with the count; ``at least`` where nobody counted."""
    assert output.text() == text


@given(st.text(alphabet="aé€🚀\n", max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_a_cut_never_splits_a_character(text: str, head_bytes: int, tail_bytes: int) -> None:
    """Wherever the cap falls, what is kept of valid text is valid text, at most three bytes shorter on each side."""
    data = text.encode()
    head, tail = data[:head_bytes], data[max(head_bytes, len(data) - tail_bytes) :]
    output = Output.cut(head, tail, len(data))
    output.head.decode()
    output.tail.decode()
    assert head.startswith(output.head)
    assert tail.endswith(output.tail)
    assert len(head) - len(output.head) < 4
    assert len(tail) - len(output.tail) < 4


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 1000))
def test_a_cut_counts_every_byte(head: bytes, tail: bytes, between: int) -> None:
    """Kept and omitted bytes add up to what was printed, whatever the bytes are."""
    total = len(head) + len(tail) + between
    output = Output.cut(head, tail, total)
    assert len(output.head) + output.omitted_bytes + len(output.tail) == total


@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 100), st.integers(2, 60))
def test_an_output_cut_further_keeps_its_ends_and_its_count(head: bytes, tail: bytes, between: int, limit: int) -> None:
    """Never more than asked for; every byte is kept or counted."""
    tail = tail if between else b""
    before = Output(head, tail, len(head) + len(tail) + between, between)
    after = before.cut_to(limit)
    assert len(after.head) + len(after.tail) <= max(limit, 0) or after == before
    assert len(after.head) + after.omitted_bytes + len(after.tail) == before.total_bytes
    assert head.startswith(after.head)
    assert (tail or head).endswith(after.tail)


def test_a_small_output_is_not_cut() -> None:
    """Nothing to gain."""
    output = Output(b"hi\n", b"", 3)
    assert output.cut_to(3) is output


def test_bytes_that_are_no_utf8_are_kept() -> None:
    """A binary is not nibbled at for ever: at most one character's worth goes."""
    noise = b"\x80" * 8
    assert Output.cut(noise, noise, 20).head == noise
    assert Output.cut(noise, noise, 20).tail == noise[3:]
    assert Output.cut(b"abc", b"xyz", 10) == Output(b"abc", b"xyz", 10, 4)
