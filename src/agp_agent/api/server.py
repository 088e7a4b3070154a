"""The HTTP server: uvicorn, with signals that drain instead of stopping, and a door that bounds its connections."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from agp_agent import descriptors
from agp_agent.api.connection import Connection
from agp_agent.api.door import Door
from agp_agent.api.entrance import Entrance
from agp_agent.api.listening import check_tls


class AgentServer(uvicorn.Server):
    """Serves until ``should_exit``; a signal only calls ``on_signal``, and the process ends with exit code 0."""

    def __init__(
        self,
        api: FastAPI,
        on_signal: Callable[[], None],
        *,
        tls_cert_file: Path | None = None,
        tls_key_file: Path | None = None,
        max_strangers: int | None = None,
        entrance: Entrance | None = None,
    ) -> None:
        """TLS where both files are given. ``max_strangers``: connections over which no right token has come.

        ``entrance``: the device to listen on, beside the sockets that ``serve`` is given.

        Raises:
            ConfigurationError: these files cannot be used.
        """
        self._on_signal = on_signal
        self._max_strangers = max_strangers
        self._entrance = entrance
        self._doors: list[asyncio.Task[None]] = []
        check_tls(tls_cert_file, tls_key_file)
        super().__init__(
            uvicorn.Config(
                api,
                http=Connection,
                ws="none",
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=5,
                ssl_certfile=str(tls_cert_file) if tls_cert_file else None,
                ssl_keyfile=str(tls_key_file) if tls_key_file else None,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn would accept whatever comes, until there is no file descriptor left."""
        open_ones: list[Coroutine[Any, Any, None]] = [self._door(listener).run() for listener in sockets or []]
        if self._entrance is not None:
            open_ones.append(self._entrance.run(lambda listener: self._door(listener).run()))
        self._doors = [asyncio.create_task(one, name="door") for one in open_ones]
        self.servers = []
        self.started = True

    def _door(self, listener: socket.socket) -> Door:
        loop, config, state = asyncio.get_running_loop(), self.config, self.server_state
        descriptors_max = descriptors.limit()
        return Door(
            listener,
            state,
            lambda on_lost: Connection(config, state, loop, on_lost),
            config.ssl,
            descriptors.clients_max(descriptors_max),
            descriptors.strangers_max(descriptors_max, self._max_strangers),
        )

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second. A door that is no more must not leave an agent that hears nobody."""
        for door in self._doors:
            if door.done():
                door.result()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, and finish what is being answered."""
        for door in self._doors:
            door.cancel()
        await asyncio.gather(*self._doors, return_exceptions=True)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Uvicorn would stop at once, and raise the signal again when it has stopped."""
        del sig, frame
        self._on_signal()
