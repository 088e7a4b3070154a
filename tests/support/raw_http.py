"""HTTP by hand: exact bytes out, exact bytes in, for what no client library would send."""

import contextlib
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_READ_BYTES: Final = 65536
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A parsed answer. ``closed``: the server closed the connection behind it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def detail(self) -> str:
        """The one sentence of an error, which is all that its body may hold."""
        document = json.loads(self.body)
        assert list(document) == ["detail"]
        assert isinstance(document["detail"], str)
        return document["detail"]


def exchange(port: int, parts: Iterable[bytes], *, source: str = "127.0.0.1") -> RawAnswer:
    """Send all parts, as far as the server takes them, and read one answer.

    ``source`` is the address on loopback that the server sees as its peer.
    """
    with connect(port, source) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        return read_answer(connection)


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Open a connection to a server on loopback."""
    return socket.create_connection(("127.0.0.1", port), _PATIENCE_S, source_address=(source, 0))


def read_answer(connection: socket.socket) -> RawAnswer:
    """Read one answer whose length is declared; look whether the connection is closed behind it."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers["content-length"])
    while len(body) < length:
        body += _more(connection)
    assert len(body) == length
    return RawAnswer(int(status_line.split(" ")[1]), headers, body, _is_closed(connection, headers))


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(_READ_BYTES)
    assert data, "the connection was closed in the middle of an answer"
    return data


def _is_closed(connection: socket.socket, headers: dict[str, str]) -> bool:
    if headers.get("connection", "").lower() != "close":
        return False
    with contextlib.suppress(ConnectionError):
        assert connection.recv(1) == b"", "the connection was said to be closed, and is not"
    return True


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request with a body of declared length; nothing but ``Host`` is added to ``headers``."""
    lines = [f"{method} {path} HTTP/1.1", "Host: agent", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def chunked(method: str, path: str, headers: dict[str, str], chunks: Iterable[bytes], *, end: bool) -> Iterable[bytes]:
    """The parts of a request whose body comes in chunks; without ``end`` it never ends."""
    lines = [f"{method} {path} HTTP/1.1", "Host: agent", *(f"{name}: {value}" for name, value in headers.items())]
    yield "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
    for chunk in chunks:
        yield f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
    if end:
        yield b"0\r\n\r\n"
