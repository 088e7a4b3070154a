"""Listening on a network device that comes and goes, as a tailnet's does with its daemon, its key, its address."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from agp_agent.api.listening import NotThereYet, is_there, listen

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0

Hear = Callable[[str | None], None]
"""Takes what is the matter with the device, as one sentence; None is nothing any more."""


class Entrance:
    """One address on one device. Where that is not there, the agent waits for it, says so, and listens again.

    A socket is bound to a device by its number. tailscaled makes a new device at every start, with another number: on
    the old socket nobody would ever come in again.
    """

    def __init__(self, host: str, port: int, interface: str) -> None:
        """Try at once; a device that is not there is no error.

        Raises:
            ConfigurationError: the address is none, or the port is taken.
        """
        self._where = (host, port, interface)
        self._problem: str | None = None
        self.hear: Hear = lambda _problem: None
        """Told at every look; set before ``run``."""
        self.port = port
        self._listener = self._try()
        if self._listener is not None:
            self.port = int(self._listener.getsockname()[1])
            self._where = (host, self.port, interface)

    async def run(self, door: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> None:
        """Keep a door open on the device, until this is cancelled or the door fails."""
        while True:
            listener = await self._opened()
            log.info("listening", host=self._where[0], port=self.port, interface=self._where[2])
            opened = asyncio.create_task(door(listener), name="door")
            try:
                await self._until_gone(listener.getsockname()[0], opened)
            finally:
                opened.cancel()
                await asyncio.gather(opened, return_exceptions=True)
                listener.close()

    async def _opened(self) -> socket.socket:
        while (
            listener := self._listener or await asyncio.to_thread(self._try)
        ) is None:  # it may have to ask for a name
            self.hear(self._problem)
            await asyncio.sleep(LOOK_S)
        self._listener = None
        self.hear(None)
        return listener

    async def _until_gone(self, address: str, opened: "asyncio.Task[None]") -> None:
        """Return when the device is no more. An address that is away for a while comes back to the same socket."""
        interface = self._where[2]
        number = _number(interface)
        while number is not None and _number(interface) == number:
            there = is_there(address)
            self.hear(None if there else f"{address} is no address of {interface} now; nobody can come in by it")
            done, _ = await asyncio.wait({opened}, timeout=LOOK_S)
            if done:
                opened.result()
                return

    def _try(self) -> socket.socket | None:
        try:
            return listen(*self._where)
        except NotThereYet as error:
            self._problem = str(error)
        return None


def _number(interface: str) -> int | None:
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(interface)
    return None
