"""The HTTP server: uvicorn, with signals that drain instead of stopping, and its own errors in the contract's shape."""

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agp_agent.errors import ConfigurationError

_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75


class _Protocol(HttpToolsProtocol):
    """Says what is wrong with bytes that are no HTTP in the same shape as every other error."""

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"detail": msg if msg.endswith(".") else f"{msg}."}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
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
        """TLS where both files are given."""
        self._on_signal = on_signal
        super().__init__(
            uvicorn.Config(
                api,
                http=_Protocol,
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
