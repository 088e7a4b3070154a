"""A line to the engine that can be cut, listened to and tampered with."""

import asyncio
import re
import ssl
from pathlib import Path

from agp_agent.docker_engine import Endpoint

_CHUNK_BYTES = 2**16
_REQUEST = re.compile(rb"(?:GET|POST|PUT|DELETE) /")


class Line:
    """A unix socket whose connections lead to the real engine."""

    def __init__(self, path: Path, engine: Endpoint) -> None:
        self.path = path
        self.requests = 0
        """How many requests the engine's client has sent."""
        self.tamper: tuple[bytes, bytes] | None = None
        """Bytes in the engine's answers, and what the client sees in their place (the same length)."""
        self._engine = engine
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._carry, self.path)

    async def open_tcp(self, context: ssl.SSLContext | None) -> int:
        """Listen on a port of loopback instead, with or without TLS; the port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def cut(self) -> None:
        """Break all connections and take no new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        engine_reader, engine_writer = await self._engine.connect()
        self._ends |= {writer, engine_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, engine_writer, outward=True))
                group.create_task(self._copy(engine_reader, writer, outward=False))
        finally:
            self._ends -= {writer, engine_writer}

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, outward: bool) -> None:
        try:
            while data := await source.read(_CHUNK_BYTES):
                if outward:
                    self.requests += len(_REQUEST.findall(data))
                elif self.tamper is not None:
                    data = data.replace(*self.tamper)  # the tampered data takes the data's place
                target.write(data)
                await target.drain()
        except OSError:
            pass  # one side is gone: so goes the other
        finally:
            target.close()
