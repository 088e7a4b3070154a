"""The HTTP server: uvicorn, with signals that drain instead of stopping, and its own errors in the contract's shape."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agp_agent.api.app import BODY_DEADLINE_S
from agp_agent.errors import ConfigurationError

HEADERS_DEADLINE_S: Final = 10.0
_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75


class _Protocol(HttpToolsProtocol):
    """Adds what uvicorn lacks: a deadline for the arrival of a request, and its own errors in the contract's shape."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection must send a request at once."""
        super().connection_made(transport)
        self._arm(HEADERS_DEADLINE_S)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._arm(HEADERS_DEADLINE_S)

    def on_headers_complete(self) -> None:
        """The route has a deadline of its own for the body, and an answer; this one is for bodies nobody reads."""
        super().on_headers_complete()
        self._arm(2 * BODY_DEADLINE_S, self.transport.close)

    def on_message_complete(self) -> None:
        """All is there; from here on the keep-alive time counts."""
        self._disarm()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._disarm()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP."""
        self._refuse("400 Bad Request", msg if msg.endswith(".") else f"{msg}.")

    def _arm(self, delay_s: float, too_late: Callable[[], None] | None = None) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(delay_s, too_late or self._no_request)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _no_request(self) -> None:
        self._refuse("408 Request Timeout", "The request did not arrive in time.")

    def _refuse(self, status: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class AgentServer(uvicorn.Server):
    """Serves until ``should_exit``; a signal only calls ``on_signal``, and the process ends with exit code 0."""

    def __init__(
        self,
        api: FastAPI,
        on_signal: Callable[[], None],
        *,
        tls_cert_file: Path | None = None,
        tls_key_file: Path | None = None,
    ) -> None:
        """TLS where both files are given.

        Raises:
            ConfigurationError: these files cannot be used.
        """
        self._on_signal = on_signal
        check_tls(tls_cert_file, tls_key_file)
        super().__init__(
            uvicorn.Config(
                api,
                http=_Protocol,
                ws="none",
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
                ssl_certfile=str(tls_cert_file) if tls_cert_file else None,
                ssl_keyfile=str(tls_key_file) if tls_key_file else None,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Uvicorn would stop at once, and raise the signal again when it has stopped."""
        del sig, frame
        self._on_signal()


def check_tls(cert_file: Path | None, key_file: Path | None) -> None:
    """Find out whether these files can be used. Raises ``ConfigurationError`` where they cannot."""
    if cert_file is None or key_file is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error)
        raise ConfigurationError(
            f"AGP_TLS_CERT_FILE, AGP_TLS_KEY_FILE: {cert_file} and {key_file} cannot be used: {why}; "
            "expected a certificate chain and its private key, both PEM."
        ) from None


def listen(host: str, port: int, interface: str | None) -> socket.socket:
    """Open the listening socket.

    ``interface``: bound to this device too. An address alone is not enough to keep others out: Linux answers for it on
    every device.

    Raises:
        ConfigurationError: the address, the port or the device cannot be used.
    """
    try:
        found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigurationError(f"AGP_HOST: {host} is not an address of this machine: {error.strerror}.") from None
    family, kind, protocol, _, address = found
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
