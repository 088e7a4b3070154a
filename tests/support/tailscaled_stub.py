"""A tailscaled as far as its LocalAPI tells who a peer is: same host, path, parameters, statuses and answers."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_HOST: Final = "local-tailscaled.sock"


def node(name: str, *tags: str, stable_id: str = "nKpbP5gfWJ11CNTRL") -> dict[str, Any]:
    """What tailscaled 1.102 tells of a node, as far as anybody here could look at it. ``name`` has no last dot."""
    tagged: dict[str, Any] = {"Tags": list(tags)} if tags else {}
    return {
        "Node": {
            "ID": 5,
            "StableID": stable_id,
            "Name": f"{name}.",
            "User": 2147455555,
            "Key": "nodekey:0",
            "Addresses": ["100.64.0.5/32", "fd7a:115c:a1e0::5/128"],
            "AllowedIPs": ["100.64.0.5/32", "fd7a:115c:a1e0::5/128"],
            "Hostinfo": {"OS": "linux", "Hostname": "told-by-itself"},
            **tagged,
            "Online": True,
            "ComputedName": name.partition(".")[0],
        },
        "UserProfile": {"ID": 2147455555, "LoginName": "tagged-devices", "DisplayName": "Tagged Devices"},
        "CapMap": None,
    }


class TailscaledStub:
    """Answers for the addresses in ``peers``: ``ip:port``, or an ip for all of its ports."""

    def __init__(self, path: Path) -> None:
        """Listen at ``path`` from ``serving`` on."""
        self.path = path
        self.peers: dict[str, Mapping[str, Any]] = {}
        self.asked: list[str] = []
        """The addresses that were asked for."""
        self.state = "Running"
        self.raw: tuple[int, bytes] | None = None
        """Status and body that are answered instead, whatever is asked."""
        self.hanging = threading.Event()
        """While it is set, nothing is answered."""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve in threads."""
        with _Server(str(self.path), self) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield
            finally:
                self.hanging.clear()
                server.shutdown()
                thread.join()
                self.path.unlink(missing_ok=True)

    def answer(self, host: str, target: str) -> tuple[int, bytes]:
        """What the real one answers."""
        url = urlsplit(target)
        asked = parse_qs(url.query)
        if host != _HOST:
            return 403, b"invalid localapi request\n"
        if url.path == "/localapi/v0/status":
            return 200, json.dumps({"BackendState": self.state}).encode()
        if url.path != "/localapi/v0/whois":
            return 404, b"404 page not found\n"
        if "addr" not in asked:
            return 400, b"missing 'addr' parameter\n"
        assert asked["proto"] == ["tcp"]
        address = asked["addr"][0]
        self.asked.append(address)
        if self.raw is not None:
            return self.raw
        found = self.peers.get(address) or self.peers.get(address.rpartition(":")[0])
        return (404, b"no match for IP:port\n") if found is None else (200, json.dumps(found).encode())


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, stub: TailscaledStub) -> None:
        self.stub = stub
        self._open: list[socket.socket] = []
        super().__init__(path, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        self._open.append(connection)
        return connection, ("", 0)

    def server_close(self) -> None:
        super().server_close()
        for connection in self._open:  # kept alive by their clients
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        stub = self.server.stub
        status, body = stub.answer(self.headers["Host"], self.path)
        while stub.hanging.is_set():
            threading.Event().wait(0.02)
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
        """Print nothing."""
