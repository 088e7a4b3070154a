"""A way to the real engine that a test can open and close: a socket of its own that passes every byte on."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

_LOCAL: Final = "unix:///var/run/docker.sock"
_READ_BYTES: Final = 65536


class EngineProxy:
    """Listens on a unix socket while it is open. Closing it breaks every connection, as an engine that dies does."""

    def __init__(self, path: Path) -> None:
        """``path`` is where the socket will be; nothing is there until ``open``."""
        self.path = path
        self.rewrite: tuple[bytes, bytes] | None = None
        """Bytes in what the agent asks, and what the engine reads in their place (the same length)."""
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None

    @property
    def docker_host(self) -> str:
        """As DOCKER_HOST has it."""
        return f"unix://{self.path}"

    def open(self) -> Self:
        """Begin to listen."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def close(self) -> None:
        """Stop listening and break all connections. Idempotent."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._listener = None
        self.path.unlink()
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _rewritten(self, data: bytes) -> bytes:
        return data.replace(*self.rewrite) if self.rewrite else data

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, connect_to_engine() as far:
            with self._lock:
                self._connections |= {near, far}
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far, self._rewritten)
            back.join()
            with self._lock:
                self._connections -= {near, far}


def _copy(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes] = lambda data: data) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_READ_BYTES):
            target.sendall(change(data))
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)  # half-closed connections stay so: an attached stdin may end first


def connect_to_engine(docker_host: str | None = None) -> socket.socket:
    """Open a connection to the engine at an address as DOCKER_HOST has it; by default to the environment's."""
    host = urlsplit(docker_host or os.environ.get("DOCKER_HOST") or _LOCAL)
    if host.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(host.path)
        except OSError:
            connection.close()
            raise
        return connection
    return socket.create_connection((host.hostname or "localhost", host.port or 2375))
