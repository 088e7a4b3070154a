"""The door: how many connections come in, and which one gives way."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from agp_agent.api.connection import Connection
from agp_agent.api.door import Door
from agp_agent.api.listening import listen
from agp_agent.api.visitor import VISITOR
from support.async_waiting import until

REQUEST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


class App:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        """At first it answers at once."""
        self.go = asyncio.Event()
        self.go.set()
        self.asked = 0

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        """Answer 200, once it may."""
        del scope, receive
        self.asked += 1
        await self.go.wait()
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def door(app: App, limit: int, strangers_max: int | None = None) -> AsyncIterator[tuple[int, ServerState]]:
    """An open one; yields its port and the connections that it let in."""
    config, state, listener = Config(app, http=Connection, lifespan="off", log_config=None), ServerState(), None
    config.load()
    loop, listener = asyncio.get_running_loop(), listen("127.0.0.1", 0, None)
    opened = Door(
        listener, state, lambda on_lost: Connection(config, state, loop, on_lost), None, limit, strangers_max or limit
    )
    running = asyncio.create_task(opened.run())
    try:
        yield listener.getsockname()[1], state
    finally:
        running.cancel()
        listener.close()
        for connection in list(state.connections):
            connection.give_way()  # type: ignore[union-attr]


async def connect(port: int, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that says this at first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(sent)
    return reader, writer


async def test_the_one_that_was_waited_for_longest_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    """A silent one before a younger one; whoever asks is answered; one line tells of it."""
    async with door(App(), 3) as (port, state):
        slow = [await connect(port) for _ in range(3)]
        await until(lambda: len(state.connections) == 3, "three connections")
        for closed in range(3):
            reader, writer = await connect(port, REQUEST)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert await slow[closed][0].read() == b""
            writer.close()
            await until(lambda: len(state.connections) <= 2, "room")
            slow.append(await connect(port))
            await until(lambda: len(state.connections) == 3, "three connections again")
        for _, one in slow:
            one.close()
    assert capsys.readouterr().out.count("too many connections") == 1


async def test_nobody_who_is_being_answered_gives_way() -> None:
    """The next waits until there is room, and is answered then."""
    app = App()
    app.go.clear()
    async with door(app, 2) as (port, state):
        asking = [await connect(port, REQUEST) for _ in range(3)]
        await until(lambda: app.asked == 2, "two requests")
        await asyncio.sleep(0.3)  # longer than any grace
        assert (app.asked, len(state.connections)) == (2, 2)
        app.go.set()
        for reader, writer in asking:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()


async def test_without_file_descriptors_the_door_waits_for_better_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An accept that fails ends nothing."""
    loop, failures = asyncio.get_running_loop(), [OSError(24, "Too many open files")]
    accept = loop.sock_accept

    async def failing(listener: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", failing)
    async with door(App(), 2) as (port, _):
        reader, writer = await connect(port, REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    assert "Too many open files" in capsys.readouterr().out


class Greeter(App):
    """Takes every request for one with a right token that says so in its path."""

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        """Note it as the guard does."""
        assert isinstance(scope, dict)
        scope[VISITOR].trusted |= scope["path"] == "/trusted"
        await super().__call__(scope, receive, send)


TRUSTED = REQUEST.replace(b"/x", b"/trusted")


async def answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer; whether there was one."""
    first = await reader.readline()
    while first and await reader.readline() not in {b"\r\n", b""}:
        pass
    return first.startswith(b"HTTP/1.1 200")


async def test_at_the_limit_a_stranger_gives_way_and_not_one_that_is_known() -> None:
    """The stranger that was waited for longest, however long the known ones have been idle."""
    async with door(Greeter(), 8) as (port, state):
        known = [await connect(port, TRUSTED) for _ in range(3)]
        assert [await answered(reader) for reader, _ in known] == [True] * 3
        strangers = [await connect(port) for _ in range(5)]
        await until(lambda: len(state.connections) == 8, "eight connections")
        late = await connect(port, REQUEST)
        assert await answered(late[0])
        assert await strangers[0][0].read() == b""
        for reader, writer in known:
            writer.write(TRUSTED)
            assert await answered(reader)
        for _, writer in (*known, *strangers, late):
            writer.close()


async def test_a_crowd_below_the_limit_is_answered_however_late() -> None:
    """All are strangers, and nobody has to give way for another."""
    async with door(Greeter(), 40) as (port, state):
        crowd = [await connect(port) for _ in range(39)]
        await until(lambda: len(state.connections) == 39, "all of them")
        await asyncio.sleep(0.15)  # longer than a stranger's grace
        for reader, writer in crowd:
            writer.write(REQUEST)
            assert await answered(reader)
            writer.close()


async def test_a_flood_of_strangers_costs_nobody_known_a_connection() -> None:
    """A hundred of them, silent: each takes the place of another one of them, however idle the known ones are."""
    async with door(Greeter(), 8) as (port, _):
        known = [await connect(port, TRUSTED) for _ in range(4)]
        assert [await answered(reader) for reader, _ in known] == [True] * 4
        flood = [await connect(port) for _ in range(100)]
        await until(lambda: sum(reader.at_eof() or _closed(reader) for reader, _ in flood) >= 90, "most were closed")
        for reader, writer in known:
            writer.write(TRUSTED)
            assert await answered(reader)
        for _, writer in (*known, *flood):
            writer.close()


def _closed(reader: asyncio.StreamReader) -> bool:
    return reader.exception() is not None


async def test_of_those_who_are_known_the_longest_idle_gives_way_to_another(capsys: pytest.CaptureFixture[str]) -> None:
    """Where all connections are known ones: only then."""
    async with door(Greeter(), 4) as (port, state):
        known = []
        for _ in range(4):
            known.append(await connect(port, TRUSTED))
            assert await answered(known[-1][0])
        assert len(state.connections) == 4
        await asyncio.sleep(0.15)
        late = await connect(port, TRUSTED)
        assert await answered(late[0])
        assert await known[0][0].read() == b"" or known[0][0].at_eof()
        for _, writer in (*known, late):
            writer.close()
    assert "there are 4 connections" in capsys.readouterr().out


async def test_there_are_never_more_strangers_than_the_cap(capsys: pytest.CaptureFixture[str]) -> None:
    """Though there are places left: those are for connections with a right token, and the oldest idle one goes."""
    async with door(Greeter(), 10, 4) as (port, state):
        known = [await connect(port, TRUSTED) for _ in range(3)]
        assert [await answered(reader) for reader, _ in known] == [True] * 3
        silent = [await connect(port) for _ in range(4)]
        await until(lambda: len(state.connections) == 7, "seven connections")
        late = await connect(port)
        assert await silent[0][0].read() == b""
        await until(lambda: len(state.connections) == 7, "seven connections again")
        honest = await connect(port, TRUSTED)
        assert await answered(honest[0])
        assert await silent[1][0].read() == b""
        for reader, writer in known:
            writer.write(TRUSTED)
            assert await answered(reader)
        for _, writer in (*known, *silent, late, honest):
            writer.close()
    assert "there are 4 connections without a right token" in capsys.readouterr().out


async def test_a_stranger_that_is_being_answered_does_not_give_way() -> None:
    """Whoever comes above the cap waits in the queue until one of them has its answer."""
    app = App()
    app.go.clear()
    async with door(app, 10, 2) as (port, state):
        asking = [await connect(port, REQUEST) for _ in range(3)]
        await until(lambda: app.asked == 2, "two requests")
        await asyncio.sleep(0.3)  # longer than any grace
        assert (app.asked, len(state.connections)) == (2, 2)
        app.go.set()
        assert [await answered(reader) for reader, _ in asking] == [True] * 3
        for _, writer in asking:
            writer.close()
