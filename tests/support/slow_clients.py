"""Clients that keep a server waiting: hundreds of connections in one thread."""

import contextlib
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

_DRIP_S: Final = 0.5
_READ_BYTES: Final = 4096


@dataclass(slots=True, eq=False)
class SlowClient:
    """One connection: what it says at once, and the byte that it drips then, if any."""

    connection: socket.socket
    drip: bytes
    opened_s: float
    answer: bytes = b""
    closed_after_s: float | None = None
    """None while the server keeps it open."""
    dripped_s: float = field(default=0.0)


def kinds(headers: Mapping[str, str]) -> Sequence[tuple[bytes, bytes]]:
    """The ways to be slow: silent, dripping headers, dripping a body of declared length, and a chunked one."""
    head = b"POST /execute_task HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n"
    right = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    return (
        (b"", b""),
        (head + b"X-Slow: ", b"x"),
        (head + right + b"Content-Length: 100000\r\n\r\n", b" "),
        (head + right + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (head + b"Content-Length: 100000\r\n\r\n", b" "),  # without a token: it has its 401 at once
    )


class SlowClients:
    """``number`` connections to a port, of all kinds in turn; open from entry to exit."""

    def __init__(self, port: int, headers: Mapping[str, str], number: int) -> None:
        """``headers`` hold the right token."""
        self._port, self._kinds, self._number = port, kinds(headers), number
        self._selector = selectors.DefaultSelector()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._drip, name="slow-clients")
        self.all: list[SlowClient] = []

    def __enter__(self) -> Self:
        for (first, drip), _ in zip(itertools.cycle(self._kinds), range(self._number), strict=False):
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
            with contextlib.suppress(OSError):  # it had to give way already
                connection.sendall(first)
            connection.setblocking(False)  # noqa: FBT003  the standard library's
            client = SlowClient(connection, drip, time.monotonic())
            self.all.append(client)
            self._selector.register(connection, selectors.EVENT_READ, client)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._selector.close()
        for client in self.all:
            client.connection.close()

    @property
    def still_open(self) -> int:
        """How many the server has not closed."""
        return sum(client.closed_after_s is None for client in list(self.all))

    def _drip(self) -> None:
        while not self._leaving.is_set():
            for key, _ in self._selector.select(_DRIP_S / 10):
                self._read(key.data)
            now_s = time.monotonic()
            for client in self.all:
                if client.drip and client.closed_after_s is None and now_s - client.dripped_s > _DRIP_S:
                    client.dripped_s = now_s
                    with contextlib.suppress(OSError):  # the reading side sees the end
                        client.connection.send(client.drip)

    def _read(self, client: SlowClient) -> None:
        try:
            data = client.connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        client.answer += data
        if not data:
            client.closed_after_s = time.monotonic() - client.opened_s
            self._selector.unregister(client.connection)
