"""Lets connections in, no more at a time than there is room for."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import structlog
from uvicorn.server import ServerState

from agp_agent.api.connection import HEADERS_DEADLINE_S, Connection, order_of_leaving

log = structlog.get_logger(__name__)

_HANDSHAKE_GRACE_S: Final = 1.0
_SHUTDOWN_S: Final = 5.0
_LOOK_S: Final = 0.1
_QUIET_S: Final = 60.0


class Door:
    """Accepts on one listening socket while there are less than ``limit`` connections and ``strangers_max`` strangers.

    A stranger is a connection over which no right token has come yet. At either limit, the stranger that has kept the
    server waiting for longest gives way, be it silent, dripping or idle. One that has shown a right token gives way
    only where strangers hold less than half of the places, and none of them can. Where every one is being answered the
    next waits in the kernel's queue. So slow clients cost each other their connections, and never an honest one its
    answer.
    """

    def __init__(
        self,
        listener: socket.socket,
        state: ServerState,
        connection: Callable[[Callable[[], None]], Connection],
        tls: ssl.SSLContext | None,
        limit: int,
        strangers_max: int,
    ) -> None:
        """``connection`` makes the protocol of one connection, which calls what it is given when it is lost."""
        self._listener = listener
        self._state = state
        self._connection = connection
        self._tls = tls
        self._limit = limit
        self._strangers_max = strangers_max
        self._opening: dict[asyncio.Task[Any], float] = {}
        self._changed = asyncio.Event()
        self._pressed_s = -_QUIET_S
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Accept until this is cancelled."""
        self._listener.setblocking(False)  # noqa: FBT003  the standard library's
        try:
            while True:
                connected = await self._next()
                try:
                    await self._room()  # only now: nobody gives way before somebody else is there
                except BaseException:
                    connected.close()
                    raise
                task = asyncio.create_task(self._open(connected))
                self._opening[task] = self._loop.time()
                task.add_done_callback(self._opened)
        finally:
            for task in self._opening:
                task.cancel()

    async def _next(self) -> socket.socket:
        while True:
            try:
                connected, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:  # no file descriptor left, or a client that went away in the queue
                self._tell(why=error.strerror or str(error))
                self._make_room("there are no file descriptors left")
                await asyncio.sleep(_LOOK_S)
            else:
                return connected

    async def _open(self, connected: socket.socket) -> None:
        tls = {"ssl_handshake_timeout": HEADERS_DEADLINE_S, "ssl_shutdown_timeout": _SHUTDOWN_S} if self._tls else {}
        try:
            with contextlib.suppress(OSError):  # it went away, or its TLS is none
                await self._loop.connect_accepted_socket(
                    lambda: self._connection(self._changed.set), connected, ssl=self._tls, **tls
                )
        except BaseException:
            connected.close()
            raise

    def _opened(self, task: "asyncio.Task[Any]") -> None:
        del self._opening[task]
        self._changed.set()

    async def _room(self) -> None:
        """Return once there may be one more."""
        while (crowd := self._crowd()) is not None:
            self._changed.clear()
            self._make_room(crowd, strangers_only=self._strangers() >= min(self._limit // 2, self._strangers_max))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()

    def _crowd(self) -> str | None:
        """Which limit is reached; None where one more may come in, a stranger as everybody is at first."""
        if len(self._state.connections) + len(self._opening) >= self._limit:
            return f"there are {self._limit} connections"
        if self._strangers() >= self._strangers_max:
            return f"there are {self._strangers_max} connections without a right token"
        return None

    def _strangers(self) -> int:
        connections: Any = self._state.connections
        return len(self._opening) + sum(not connection.visitor.trusted for connection in connections)

    def _make_room(self, why: str, *, strangers_only: bool = False) -> None:
        """Close the connection that has been waited for longest, if there is one that may be closed."""
        now_s = self._loop.time()
        connections: Any = self._state.connections
        spare = [one for one in connections if one.spare_from_s <= now_s]
        first = min(spare, key=order_of_leaving, default=None)
        if first is not None and not first.visitor.trusted:
            self._tell(why)
            first.give_way()
            return
        handshake, since_s = next(iter(self._opening.items()), (None, now_s))  # the oldest first
        if handshake is not None and now_s - since_s > _HANDSHAKE_GRACE_S:
            self._tell(why)
            handshake.cancel()
        elif first is not None and not strangers_only:
            self._tell(why)
            first.give_way()

    def _tell(self, why: str) -> None:
        """One line a burst."""
        now_s = self._loop.time()
        if now_s - self._pressed_s >= _QUIET_S:
            log.warning("too many connections: those that are waited for longest are closed", why=why)
        self._pressed_s = now_s
