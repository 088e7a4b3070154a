"""A real HTTP dashboard on loopback that records every request and answers as a test tells it to."""

import contextlib
import json
import secrets
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from support.waiting import PATIENCE_S, eventually

REPORT_PATH: Final = "/api/v1/agents/report_result"
RECEIVED: Final = b'{"message":"Result received"}'
_END_OF_PATIENCE_BYTES: Final = 2**30
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``reset`` breaks the connection instead; ``delay_s`` and ``after`` are waited for before either.

    With ``endless`` the body comes in chunks, over and over, until the client has had enough.
    """

    status: int = 200
    body: bytes = RECEIVED
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    reset: bool = False
    after: threading.Event | None = None
    endless: bool = False

    @property
    def acknowledges(self) -> bool:
        """Whether it is what the contract calls an acknowledgement."""
        return self.status == 200 and self.body == RECEIVED and not self.reset


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it came in, and how it was answered. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    reply: Reply
    at_s: float
    """By ``time.monotonic``."""

    @property
    def result(self) -> dict[str, Any]:
        """The body as JSON."""
        result: dict[str, Any] = json.loads(self.body)
        return result


class DashboardStub:
    """The server. It answers what ``script`` says for a task, else ``reply``; a wrong token gets 401."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> None:
        """Listen on ``host``, by default at a free port, and serve in threads; ``token`` is what agents must send."""
        self.token = token or secrets.token_urlsafe(32)
        self.reply = Reply()
        self._scripts: dict[str, deque[Reply]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._deliveries: list[Delivery] = []
        self._by_task: defaultdict[str, list[Delivery]] = defaultdict(list)
        self._at_once = 0
        self.most_at_once = 0
        """Requests that were being answered at the same time; a test may set it back to 0."""
        self.endless_bytes = 0
        """How much of endless bodies was sent before the client closed the connection."""
        self._reserved: socket.socket | None = None
        self._listen(host, port)
        self.host, self.port = host, int(self._server.server_address[1])
        self.url = f"http://{host}:{self.port}"

    def _listen(self, host: str, port: int) -> None:
        self._server = _Server((host, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end all connections."""
        if self._reserved is not None:
            self._reserved.close()
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def go_away(self) -> None:
        """Break all connections and refuse new ones; the port stays this stub's."""
        self.close()
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((self.host, self.port))

    def come_back(self) -> None:
        """Listen again, at the same place."""
        assert self._reserved is not None, "it was not away"
        self._listen(self.host, self.port)
        self._reserved.close()
        self._reserved = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def script(self, task_id: str, *replies: Reply) -> None:
        """Answer the next deliveries of this task with these, in this order."""
        with self._lock:
            self._scripts[task_id].extend(replies)

    def deliveries(self, task_id: str | None = None) -> list[Delivery]:
        """Everything that came in, or what came in for one task."""
        with self._lock:
            return list(self._deliveries if task_id is None else self._by_task.get(task_id, ()))

    def wait_deliveries(self, task_id: str, number: int) -> list[Delivery]:
        """Return the deliveries of a task once there are so many."""

        def look() -> list[Delivery]:
            seen = self.deliveries(task_id)
            return seen if len(seen) >= number else []

        return eventually(look, f"{number} deliveries of {task_id!r}")

    def wait_unauthorized(self, task_id: str) -> None:
        """Return once a delivery of this task had a wrong token."""
        eventually(lambda: any(one.reply.status == 401 for one in self.deliveries(task_id)), f"401 for {task_id!r}")

    def acknowledged(self, task_id: str, *, number: int = 1, patience_s: float = PATIENCE_S) -> Delivery:
        """Return the ``number``-th delivery of a task that was acknowledged, as soon as it is there."""

        def look() -> Delivery | None:
            taken = [one for one in self.deliveries(task_id) if one.reply.acknowledges]
            return taken[number - 1] if len(taken) >= number else None

        found = eventually(look, f"result of {task_id!r}", patience_s=patience_s)
        assert found is not None
        return found

    def result(self, task_id: str, *, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return a task's acknowledged result as soon as it is there."""
        return self.acknowledged(task_id, patience_s=patience_s).result

    def take(self, request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        """Record a request and decide the answer."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            reply = self._decide(request.command, request.path, headers, body)
            delivery = Delivery(request.command, request.path, headers, body, reply, time.monotonic())
            self._deliveries.append(delivery)
            self._by_task[_task_id(body)].append(delivery)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        return reply

    def answers(self) -> None:
        """A request that was taken is about to be answered."""
        with self._lock:
            self._at_once -= 1

    def _decide(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, b'{"detail":"The bearer token is missing or invalid."}')
        if (method, path) != ("POST", REPORT_PATH):
            return Reply(404, b'{"detail":"Not Found"}')
        script = self._scripts.get(_task_id(body))
        return script.popleft() if script else self.reply


def _task_id(body: bytes) -> str:
    try:
        return str(json.loads(body)["task_id"])
    except (ValueError, KeyError, TypeError):
        return ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], stub: DashboardStub) -> None:
        self.stub = stub
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for request in list(self._open):  # kept alive by their clients
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Take one delivery."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away in the middle: nobody takes half a request for one
            self.close_connection = True
            return
        reply = self.server.stub.take(self, body)
        time.sleep(reply.delay_s)
        if reply.after is not None:
            reply.after.wait(PATIENCE_S)
        self.server.stub.answers()
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        if reply.endless:
            self._send_for_ever(reply.body)
            return
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _send_for_ever(self, chunk: bytes) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has had enough
            while self.server.stub.endless_bytes < _END_OF_PATIENCE_BYTES:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.server.stub.endless_bytes += len(chunk)

    do_GET = do_POST  # noqa: N815  the base class calls it so

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
        """Print nothing."""
