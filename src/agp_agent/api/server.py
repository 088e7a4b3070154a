"""The HTTP server: uvicorn, with signals that drain instead of stopping, and a door that bounds its connections."""

import asyncio
import ipaddress
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from agp_agent import descriptors
from agp_agent.api.connection import Connection
from agp_agent.api.door import Door
from agp_agent.errors import ConfigurationError
from agp_agent.private_files import check_private

_BACKLOG: Final = 2048
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  the only spellings that are taken for meant


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
    ) -> None:
        """TLS where both files are given. ``max_strangers``: connections over which no right token has come.

        Raises:
            ConfigurationError: these files cannot be used.
        """
        self._on_signal = on_signal
        self._max_strangers = max_strangers
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
        loop, config, state = asyncio.get_running_loop(), self.config, self.server_state
        descriptors_max = descriptors.limit()
        for listener in sockets or []:
            door = Door(
                listener,
                state,
                lambda on_lost: Connection(config, state, loop, on_lost),
                config.ssl,
                descriptors.clients_max(descriptors_max),
                descriptors.strangers_max(descriptors_max, self._max_strangers),
            )
            self._doors.append(asyncio.create_task(door.run(), name="door"))
        self.servers = []
        self.started = True

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


def check_tls(cert_file: Path | None, key_file: Path | None) -> None:
    """Find out whether these files can be used. Raises ``ConfigurationError`` where they cannot."""
    if cert_file is None or key_file is None:
        return
    try:
        check_private(key_file)
    except OSError as error:
        raise ConfigurationError(f"AGP_TLS_KEY_FILE: {key_file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"AGP_TLS_KEY_FILE: {key_file} {error}.") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error)
        raise ConfigurationError(
            f"AGP_TLS_CERT_FILE, AGP_TLS_KEY_FILE: {cert_file} and {key_file} cannot be used: {why}; "
            "expected a certificate chain and its private key, both PEM."
        ) from None


def check_address(host: str) -> None:
    """Find out whether this can be listened on, as far as that shows without doing it. See ``listen``."""
    _find(host, 0)


def _find(host: str, port: int) -> Any:
    try:
        found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigurationError(f"AGP_HOST: {host} is not an address of this machine: {error.strerror}.") from None
    if ipaddress.ip_address(found[4][0].partition("%")[0]).is_unspecified and host not in _WILDCARDS:
        raise ConfigurationError(
            f"AGP_HOST: {host!r} would listen on every address of this machine; expected one address, or 0.0.0.0 or :: "
            "where that is meant."
        )
    return found


def listen(host: str, port: int, interface: str | None) -> socket.socket:
    """Open the listening socket.

    ``interface``: bound to this device too. An address alone is not enough to keep others out: Linux answers for it on
    every device.

    Raises:
        ConfigurationError: the address, the port or the device cannot be used.
    """
    family, kind, protocol, _, address = _find(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + struct.pack("x"))
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{host} port {port}" + (f" on {interface}" if interface else "")
        raise ConfigurationError(f"AGP_HOST, AGP_PORT: cannot listen on {where}: {error.strerror}.") from None
    return listener
