"""The dashboard's side of the contract as bytes: as little work as can be, so that it does not colour the figures."""

import json
import socket
from types import TracebackType
from typing import Final, Self

from bench.problem import BenchError

_TIMEOUT_S: Final = 60.0
_ACCEPTED: Final = 202


def task_request(token: str, task_id: str, script: str) -> bytes:
    """The bytes of ``POST /execute_task`` with a shell script."""
    return named_request(token, task_id, "bench.sh", script)


def named_request(token: str, task_id: str, name: str, content: str) -> bytes:
    """The bytes of ``POST /execute_task`` with any playbook."""
    body = json.dumps({"task_id": task_id, "playbook": {"name": name, "content": content}}).encode()
    return request("POST", "/execute_task", token, body)


def request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """The bytes of any request to the agent."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def head_of(head: bytes) -> tuple[int, int]:
    """Status and content length out of the head of an answer."""
    lines = head.lower().split(b"\r\n")
    lengths = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split(b" ")[1]), int(lengths[0]) if lengths else 0


class Connection:
    """One keep-alive connection to the agent, blocking."""

    def __init__(self, port: int) -> None:
        """Connect to the agent on loopback."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, request_bytes: bytes) -> tuple[int, bytes]:
        """Send a request; status and body of its answer."""
        self._socket.sendall(request_bytes)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        status, length = head_of(head)
        while len(body) < length:
            body += self._receive()
        return status, body

    def order(self, request_bytes: bytes) -> None:
        """Send a task; it must be accepted."""
        status, body = self.ask(request_bytes)
        if status != _ACCEPTED:
            raise BenchError(f"The agent answered a task with {status}: {body.decode(errors='replace')[:300]}")

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise BenchError("The agent closed the connection; its log tells why.")
        return data
