"""A container's streams over our own HTTP upgrade.

The SDK's attach socket is not used: asyncio cannot read its TLS socket, and it would need a thread per container.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import quote

from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.frames import Demultiplexer
from agp_agent.engine import Stream
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable

_CHUNK_BYTES = 2**16
_HEAD_LIMIT_BYTES = 2**16
_BODY_LIMIT_BYTES = 2**14
_CLOSE_PATIENCE_S = 5.0
_UPGRADED = (101, 200)
"""200 is what engines answer that do not upgrade but turn the connection into a stream all the same."""
_NOT_FOUND = 404


class DockerAttachment:
    """An ``Attachment`` over one connection; ``attach`` makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write to the container's stdin."""
        if self._writer.is_closing():
            raise EngineUnavailable("the connection to the container's stdin is closed")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise EngineUnavailable(f"the connection to the container's stdin broke: {error}") from error

    async def frames(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield chunks until the engine closes the stream or the connection breaks: only inspect knows which it was.

        Raises:
            EngineUnavailable: it certainly broke: in the middle of a frame.
        """
        demultiplexer = Demultiplexer()
        with suppress(OSError):
            while data := await self._reader.read(_CHUNK_BYTES):
                for piece in demultiplexer.feed(data):
                    if piece.data:
                        yield piece.stream, piece.data
        if demultiplexer.in_frame:
            raise EngineUnavailable("the connection to the container's streams broke")

    async def aclose(self) -> None:
        """Close the connection. An engine that does not take what was still to be sent is not waited for."""
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


async def attach(endpoint: Endpoint, version: str, container_id: str, timeout_s: float) -> DockerAttachment:
    """Open stdin, stdout and stderr of a container.

    Args:
        endpoint: where the engine listens.
        version: the API version that was agreed with the engine.
        container_id: the container, not started yet.
        timeout_s: how long connecting and the engine's answer may take.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await endpoint.connect()
            try:
                writer.write(_request(version, container_id))
                await _answer(reader)
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError as error:
        raise EngineUnavailable(
            f"the engine at {endpoint} does not attach: no answer within {timeout_s:g} s"
        ) from error
    except (OSError, EOFError) as error:
        raise EngineUnavailable(f"the engine at {endpoint} does not attach: {error}") from error
    return DockerAttachment(reader, writer)


def _request(version: str, container_id: str) -> bytes:
    path = f"/v{version}/containers/{quote(container_id, safe='')}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    lines = (f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0")
    return "\r\n".join((*lines, "", "")).encode("ascii")


async def _answer(reader: asyncio.StreamReader) -> None:
    """Read the head of the answer, and nothing of the stream behind it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise EngineError("the engine answered attach with an endless header") from error
    status_line, *lines = head[:_HEAD_LIMIT_BYTES].decode("latin-1").split("\r\n")
    status = _status(status_line)
    if status in _UPGRADED:
        return
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    sentence = await _sentence(reader, headers.get("content-length", ""))
    if status == _NOT_FOUND:
        raise ContainerMissing(f"the container is gone: {sentence}")
    raise EngineError(f"the engine refused to attach ({status}): {sentence}")


def _status(line: str) -> int:
    protocol, _, rest = line.partition(" ")
    code = rest[:3]
    if not protocol.startswith("HTTP/1.") or not code.isdecimal():
        raise EngineError(f"the engine answered attach with something that is not HTTP: {line[:80]!r}")
    return int(code)


async def _sentence(reader: asyncio.StreamReader, length: str) -> str:
    """The engine's own words from the body of a refusal."""
    if length.isdecimal():
        raw = await reader.readexactly(min(int(length), _BODY_LIMIT_BYTES))
    else:  # dockerd has hijacked the connection already: the sentence comes with the head, in plain text
        raw = await reader.read(_BODY_LIMIT_BYTES)
    body = raw.decode("utf-8", "replace")
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.strip() or "no reason given"
