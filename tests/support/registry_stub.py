"""A container registry that has nothing good to offer: it refuses, hangs, lies, or wants another password."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

_MANIFEST: Final = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {},
        "layers": [],
    }
).encode()


class RegistryStub:
    """Serves on a socket that listens already. What it does with a repository is told by the repository's name.

    ``hangs/…`` is never answered, ``other/…`` is answered with something else than what was asked for, and anything
    else is not there.
    """

    def __init__(self, listener: socket.socket, *, private: bool = False, silent: bool = False) -> None:
        """Begin to serve; a ``private`` one wants a password, and takes none; a ``silent`` one answers nothing.

        That is: nothing in HTTP. To TLS it says at once that it has none, for dockerd waits 10 s for it.
        """
        self.private, self.silent = private, silent
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.asked: list[tuple[str, str]] = []
        """Path and Authorization header of every request."""
        self.closing = threading.Event()
        self._server = _Server(listener, self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """End it with all requests that still hang."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    def __init__(self, listener: socket.socket, stub: RegistryStub) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.stub = stub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer as the repository's name says."""
        self.server.stub.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.server.stub.silent:
            self.server.stub.closing.wait()
        elif self.server.stub.private:
            self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
        elif self.path == "/v2/":
            self._answer(200, b"{}")
        elif "/hangs/" in self.path:
            self.server.stub.closing.wait()
        elif "/other/" in self.path:
            self._answer(200, _MANIFEST)
        else:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    def do_HEAD(self) -> None:
        """The same without a body."""
        self.do_GET()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""
