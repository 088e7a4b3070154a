"""A small stand-in for the engine's HTTP API on a unix socket, for what the real engine cannot be made to do."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

_VERSIONED = re.compile(r"^/v[0-9.]+")


class Answer(NamedTuple):
    """One answer: a whole body, or chunks that are sent as they come."""

    status: int
    body: bytes | AsyncIterator[bytes]


Route = Callable[[], Answer]


def answer(document: Any, status: int = 200) -> Route:
    """Always the same JSON."""
    return lambda: Answer(status, json.dumps(document).encode())


class DockerApi:
    """Serves ``routes``: ``GET /info`` → what makes the answer. Everything else is 404."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.requests: list[str] = []
        self.queries: list[str] = []
        self._asked = asyncio.Event()
        self.routes: dict[str, Route] = {"GET /version": answer({"ApiVersion": "1.41"})}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def asked(self, request: str) -> None:
        """Wait until this was asked."""
        while request not in self.requests:
            self._asked.clear()
            await self._asked.wait()

    async def close(self) -> None:
        """Break all connections, and listen no more. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client is gone, or the server closes
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        length = re.search(r"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        request = f"{method} {_VERSIONED.sub('', target.partition('?')[0])}"
        self.requests.append(request)
        self.queries.append(unquote(target.partition("?")[2]))
        self._asked.set()
        status, body = self.routes.get(request, answer({"message": f"no route {request}"}, 404))()
        if isinstance(body, bytes):
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        else:
            writer.write(f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            await writer.drain()
            async for chunk in body:
                writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def docker_api(path: Path) -> AsyncIterator[DockerApi]:
    """A listening stand-in."""
    api = DockerApi(path)
    await api.open()
    try:
        yield api
    finally:
        await api.close()
