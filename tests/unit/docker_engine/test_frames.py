"""Docker's multiplexed stream, cut anywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agp_agent.docker_engine.frames import Demultiplexer, Piece
from agp_agent.engine import Stream
from agp_agent.errors import EngineError


def frame(kind: int, data: bytes) -> bytes:
    """One frame as the engine sends it."""
    return bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def joined(chunks: list[bytes]) -> dict[Stream, bytes]:
    """All bytes of each stream."""
    demultiplexer = Demultiplexer()
    streams = dict.fromkeys(Stream, b"")
    for chunk in chunks:
        for piece in demultiplexer.feed(chunk):
            streams[piece.stream] += piece.data
    return streams


@settings(deadline=None)  # no clock decides a test
@given(
    frames=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40))),
    cuts=st.lists(st.integers(min_value=1, max_value=20), min_size=1),
)
def test_chunk_borders_do_not_matter(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the stream is cut, both streams come out whole."""
    wire = b"".join(frame(kind, data) for kind, data in frames)
    chunks = []
    for number in range(len(wire)):
        size = cuts[number % len(cuts)]
        chunks.append(wire[:size])
        wire = wire[size:]
    assert joined(chunks) == {
        Stream.OUTPUT: b"".join(data for kind, data in frames if kind == 1),
        Stream.CONTROL: b"".join(data for kind, data in frames if kind == 2),
    }


def test_frame_ends_are_told() -> None:
    """A frame in two chunks ends with the second; an empty one ends at once."""
    demultiplexer = Demultiplexer()
    first = list(demultiplexer.feed(frame(1, b"abc")[:9]))
    rest = list(demultiplexer.feed(b"bc" + frame(2, b"")))
    assert first == [Piece(Stream.OUTPUT, b"a", ends_frame=False)]
    assert rest == [Piece(Stream.OUTPUT, b"bc", ends_frame=True), Piece(Stream.CONTROL, b"", ends_frame=True)]


def test_a_huge_frame_is_not_held() -> None:
    """A header that promises 4 GiB costs nothing: what came is passed on."""
    (piece,) = Demultiplexer().feed(b"\x01\0\0\0\xff\xff\xff\xff" + b"x")
    assert piece == Piece(Stream.OUTPUT, b"x", ends_frame=False)


@pytest.mark.parametrize("header", [b"HTTP/1.1", b"\x03\0\0\0\0\0\0\1", b"\x01\1\0\0\0\0\0\1"])
def test_what_is_no_stream_is_refused(header: bytes) -> None:
    """Raw bytes and unknown streams are an error, never output."""
    with pytest.raises(EngineError, match="no stream of a container"):
        list(Demultiplexer().feed(header))
