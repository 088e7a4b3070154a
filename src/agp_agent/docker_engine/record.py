"""The engine's own record of a container's output (log driver ``local``), put together again byte for byte."""

from collections.abc import Iterable

from docker import APIClient

from agp_agent.docker_engine.frames import Demultiplexer
from agp_agent.docker_engine.http import get_chunks
from agp_agent.docker_engine.reading import api_version
from agp_agent.engine import ContainerLog, Stream

_PART_BYTES = 2**14
"""The engine cuts longer lines into records of this size."""

_KEEPS_NEWLINES = (1, 42)
"""Engines before this API version (23.0) drop the newline that ends a line of several records."""

_RECORD_WEIGHT_BYTES = 40
_PART_WEIGHT_BYTES = 160
"""Upper bounds of what a record weighs on disk beside its bytes (local driver: lengths, source, time, part id)."""


class _StreamRecord:
    """One stream of the record: joins its frames, and restores newlines that an old engine dropped.

    Every frame is one record: a time, a blank, a line or a part of one. The times are asked for because without them
    the engine does not send empty records, and a line of exactly 16 KiB could not be told from the first part of a
    longer one.
    """

    def __init__(self, *, restore: bool) -> None:
        self.data = bytearray()
        self.weight_bytes = 0
        self._restore = restore
        self._frame_start = 0
        self._line_is_open = False
        """The last record was a full part of a line that goes on."""

    def add(self, chunk: bytes, *, ends_frame: bool) -> None:
        """Take a piece of a frame; one frame is one record."""
        self.data += chunk
        if ends_frame:
            self._end_frame()

    def _end_frame(self) -> None:
        blank = self.data.find(b" ", self._frame_start)
        del self.data[self._frame_start : blank + 1]
        size = len(self.data) - self._frame_start
        complete = size > 0 and self.data.endswith(b"\n")
        self.weight_bytes += size + (_RECORD_WEIGHT_BYTES if complete else _PART_WEIGHT_BYTES)
        is_full_part = size == _PART_BYTES and not complete
        if self._restore and self._line_is_open and not is_full_part and not complete:
            self.data += b"\n"
        self._line_is_open = is_full_part
        self._frame_start = len(self.data)


def joined(chunks: Iterable[bytes], max_size_bytes: int, *, restore_newlines: bool) -> ContainerLog:
    """Join the frames of a record.

    After a full part, an old engine's next record that is none closes the line and lacks its newline. Only the very
    last byte stays ambiguous there: output that ended inside a long line gets a newline.

    ``rotated`` is said in doubt. The engine never tells, so it is True when the record may fill a whole file, for then
    an older one may have been thrown away; when it cannot, nothing is missing.
    """
    records = {stream: _StreamRecord(restore=restore_newlines) for stream in Stream}
    demultiplexer = Demultiplexer()
    for chunk in chunks:
        for piece in demultiplexer.feed(chunk):
            records[piece.stream].add(piece.data, ends_frame=piece.ends_frame)
    weight_bytes = sum(record.weight_bytes for record in records.values())
    return ContainerLog(
        output=bytes(records[Stream.OUTPUT].data),
        control=bytes(records[Stream.CONTROL].data),
        rotated=weight_bytes >= max_size_bytes,
    )


def read_record(client: APIClient, container_id: str) -> ContainerLog:
    """Read a container's record as far as it goes now. Blocks. Holds up to twice the log's ``max-size`` in memory."""
    log_config = client.inspect_container(container_id)["HostConfig"]["LogConfig"]["Config"]
    max_size = log_config.get("max-size", "")
    chunks = get_chunks(
        client, {"stdout": "1", "stderr": "1", "follow": "0", "timestamps": "1"}, "containers", container_id, "logs"
    )
    return joined(
        chunks,
        int(max_size) if max_size.isdecimal() else 0,
        restore_newlines=api_version(client.api_version) < _KEEPS_NEWLINES,
    )
