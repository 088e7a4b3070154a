"""Our HTTP upgrade, against a socket that says what it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agp_agent.docker_engine.attach import DockerAttachment, attach
from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.engine import Stream
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


class Socket:
    """A listening socket: what it received, and what it answers in which pieces."""

    def __init__(self, path: Path, *pieces: bytes, hangs: bool = False) -> None:
        self.path = path
        self.received = bytearray()
        self._pieces = pieces
        self._hangs = hangs
        self._done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the request, answer piece by piece, then read to the end."""
        try:
            self.received += await reader.readuntil(b"\r\n\r\n")
            for piece in self._pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not self._hangs:
                writer.write_eof()
            while data := await reader.read(1000):
                self.received += data
        except OSError:
            pass  # the client went away in the middle
        finally:
            writer.close()
            self._done.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Endpoint]:
        """Let it listen for one connection, and see it through."""
        server = await asyncio.start_unix_server(self.serve, self.path)
        yield Endpoint.parse(f"unix://{self.path}")
        await self._done.wait()
        server.close()


async def attached(endpoint: Endpoint) -> DockerAttachment:
    """Attach to container ``abc``."""
    return await attach(endpoint, "1.41", "abc", timeout_s=5)


async def read(attachment: DockerAttachment) -> list[tuple[Stream, bytes]]:
    """All frames."""
    return [frame async for frame in attachment.frames()]


def frame(kind: int, data: bytes) -> bytes:
    """One frame of the wire."""
    return bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 1000])
async def test_frames_arrive_however_they_are_split(tmp_path: Path, size: int) -> None:
    """Head, headers and bytes may be cut anywhere."""
    wire = UPGRADED + frame(1, b"one") + frame(2, b"two") + frame(1, b"\xe2\x82") + frame(1, b"\xac")
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    async with Socket(tmp_path / "s", *pieces).listening() as endpoint:
        attachment = await attached(endpoint)
        frames = await read(attachment)
        await attachment.aclose()
    assert b"".join(data for stream, data in frames if stream is Stream.OUTPUT) == "one€".encode()
    assert b"".join(data for stream, data in frames if stream is Stream.CONTROL) == b"two"


@pytest.mark.parametrize("left", [1, 7, 8, 10])
async def test_a_stream_that_ends_within_a_frame_was_broken_off(tmp_path: Path, left: int) -> None:
    """What came of it is passed on, and the break is told; between two frames nobody could tell."""
    wire = UPGRADED + frame(1, b"one") + frame(1, b"four")[:left]
    frames: list[tuple[Stream, bytes]] = []

    async def take(attachment: DockerAttachment) -> None:
        async for one in attachment.frames():
            frames.append(one)  # noqa: PERF401  what came before the break counts

    async with Socket(tmp_path / "s", wire).listening() as endpoint:
        attachment = await attached(endpoint)
        with pytest.raises(EngineUnavailable, match="broke"):
            await take(attachment)
        await attachment.aclose()
    assert b"".join(data for _, data in frames) == b"one" + b"four"[: max(0, left - 8)]


async def test_asks_for_all_three_streams_and_an_upgrade(tmp_path: Path) -> None:
    """The request names the container, percent-encoded, and the agreed version."""
    socket = Socket(tmp_path / "s", UPGRADED)
    async with socket.listening() as endpoint:
        attachment = await attach(endpoint, "1.44", "a b/c", timeout_s=5)
        await attachment.send(b"agp1 release\n")
        await attachment.aclose()
    head, _, sent = bytes(socket.received).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1.44/containers/a%20b%2Fc/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n")
    assert b"\r\nUpgrade: tcp" in head
    assert sent == b"agp1 release\n"


async def test_an_engine_that_does_not_upgrade_is_understood(tmp_path: Path) -> None:
    """A plain 200 with the stream behind it is the same."""
    async with Socket(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n" + frame(1, b"x")).listening() as endpoint:
        attachment = await attached(endpoint)
        assert await read(attachment) == [(Stream.OUTPUT, b"x")]
        await attachment.aclose()


@pytest.mark.parametrize(
    ("wire", "kind", "sentence"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\nNo such container: abc\r\n", ContainerMissing, "No such container: abc"),
        (
            b'HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\n{"message":"is off"}',
            ContainerMissing,
            "is off",
        ),
        (b'HTTP/1.1 409 C\r\ncontent-length: 20\r\n\r\n{"message":"paused"} ', EngineError, "paused"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", EngineError, r"\(500\): no reason given"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", EngineError, "not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", EngineError, "not HTTP"),
        (b"X" * 300_000 + b"\r\n\r\n", EngineError, "endless header"),
    ],
)
async def test_refusals_are_told(tmp_path: Path, wire: bytes, kind: type[EngineError], sentence: str) -> None:
    """In the engine's own words, where it has any."""
    async with Socket(tmp_path / "s", wire).listening() as endpoint:
        with pytest.raises(kind, match=sentence):
            await attached(endpoint)


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 101 UPG"])
async def test_an_engine_that_goes_away_while_answering_is_unavailable(tmp_path: Path, wire: bytes) -> None:
    """Half an answer is none."""
    async with Socket(tmp_path / "s", wire).listening() as endpoint:
        with pytest.raises(EngineUnavailable):
            await attached(endpoint)


async def test_an_engine_that_never_answers_is_unavailable(tmp_path: Path) -> None:
    """A stopped engine accepts connections and says nothing."""
    async with Socket(tmp_path / "s", hangs=True).listening() as endpoint:
        with pytest.raises(EngineUnavailable, match=r"within 0\.05 s"):
            await attach(endpoint, "1.41", "abc", timeout_s=0.05)


async def test_no_engine_is_unavailable(tmp_path: Path) -> None:
    """There is nobody at that socket."""
    with pytest.raises(EngineUnavailable, match="No such file"):
        await attached(Endpoint.parse(f"unix://{tmp_path}/nobody"))


async def test_sending_to_a_closed_connection_is_told(tmp_path: Path) -> None:
    """Whoever releases a container must know whether the line went out."""
    async with Socket(tmp_path / "s", UPGRADED).listening() as endpoint:
        attachment = await attached(endpoint)
        await attachment.aclose()
        await attachment.aclose()
        with pytest.raises(EngineUnavailable):
            await attachment.send(b"x")
