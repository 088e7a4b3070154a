"""Docker's multiplexed stream: frames of an 8 byte header (stream, 0, 0, 0, length) and that many bytes."""

from collections.abc import Iterator
from typing import NamedTuple

from agp_agent.engine import Stream
from agp_agent.errors import EngineError

_HEADER_BYTES = 8
_STREAMS = {0: Stream.OUTPUT, 1: Stream.OUTPUT, 2: Stream.CONTROL}


class Piece(NamedTuple):
    """A part of a frame: where it belongs, its bytes (maybe none), and whether the frame ends with it."""

    stream: Stream
    data: bytes
    ends_frame: bool


class Demultiplexer:
    """Takes a stream apart without holding it: it keeps at most an unfinished header of 7 bytes."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = Stream.OUTPUT
        self._missing = 0

    @property
    def in_frame(self) -> bool:
        """Whether the stream cannot end here: a frame was begun, and more of it has to come."""
        return bool(self._header) or self._missing > 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield the pieces that the next bytes of the stream hold.

        Raises:
            EngineError: it is no multiplexed stream, or the engine reports an error in it.
        """
        view = memoryview(data)
        while view:
            if not self._missing:
                taken = _HEADER_BYTES - len(self._header)
                self._header, view = self._header + bytes(view[:taken]), view[taken:]
                if len(self._header) < _HEADER_BYTES:
                    return
                self._open_frame()
                if not self._missing:
                    yield Piece(self._stream, b"", ends_frame=True)
                continue
            chunk, view = bytes(view[: self._missing]), view[self._missing :]
            self._missing -= len(chunk)
            yield Piece(self._stream, chunk, ends_frame=not self._missing)

    def _open_frame(self) -> None:
        header, self._header = self._header, b""
        kind = header[0]
        if kind not in _STREAMS or any(header[1:4]):
            raise EngineError(f"the engine sent something that is no stream of a container (header {header.hex()})")
        self._stream = _STREAMS[kind]
        self._missing = int.from_bytes(header[4:], "big")
