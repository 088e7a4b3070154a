"""Counts the starts of playbooks from outside: what every container of an agent prints, from before its start."""

import contextlib
import json
import re
import socket
import threading
from collections import defaultdict
from typing import Final, Self
from urllib.parse import quote

import docker
from docker.errors import DockerException

from support.engine_proxy import connect_to_engine

_LABEL: Final = "agp.instance"
_LINE: Final = re.compile(rb"run ([0-9a-f]{8}) ([0-9a-f]{16})\n")
_CREATED: Final = re.compile(rb'"status":"create","id":"([0-9a-f]{64})"')
_HEAD_BYTES: Final = 8192
_RETRY_S: Final = 0.2
_PATIENCE_S: Final = 5.0
_READ_BYTES: Final = 65536


def numbered(mark: str, script: str) -> str:
    """A shell playbook whose first line of output is ``run <mark> <a number that no other start has>``."""
    return f"printf 'run {mark} %s\\n' $(od -An -N8 -tx8 /dev/urandom)\n{script}"


def numbered_in_silence(mark: str, script: str) -> str:
    """The same, but on the container's own stderr, which is no output: it is told to us, and not in the result."""
    return f"printf 'run {mark} %s\\n' $(od -An -N8 -tx8 /dev/urandom) >/proc/1/fd/2\n{script}"


def number_in(output: str, mark: str) -> str | None:
    """The number of the start whose output this is; None where its line is not there."""
    found = re.search(rf"^run {mark} ([0-9a-f]{{16}})$", output, re.MULTILINE)
    return found[1] if found else None


class StartsSeen:
    """Follows the engine's events in threads. ``numbers`` says which starts of a ``numbered`` playbook there were."""

    def __init__(self, instance: str, docker_host: str | None = None) -> None:
        """Begin to watch the containers of this instance, on the engine that the environment or an address names."""
        self._label = {"label": [f"{_LABEL}={instance}"]}
        self._docker_host = docker_host
        self._numbers: defaultdict[str, set[str]] = defaultdict(set)
        self._followed: set[str] = set()
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._watching = threading.Event()
        self._streams: list[socket.socket] = []
        self._thread = threading.Thread(target=self._watch, name="starts-seen", daemon=True)
        self._thread.start()
        self._watching.wait(_PATIENCE_S)

    def numbers(self, mark: str) -> set[str]:
        """The numbers that were printed under this mark; one for each start."""
        with self._lock:
            return set(self._numbers[mark])

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        for stream in self._streams:  # an attach to a container that was removed before its start never ends
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in (self._thread, *self._readers):
            thread.join(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(OSError, DockerException):  # the engine is away, or we close
                self._watch_once()
            self._closing.wait(_RETRY_S)

    def _watch_once(self) -> None:
        filters = self._label | {"event": ["create"], "type": ["container"]}
        with self._request("GET", f"/events?filters={quote(json.dumps(filters))}") as events:
            self._streams.append(events)
            rest = events.recv(_READ_BYTES)  # the head of the answer: from now on no event is missed
            for container_id, state in self._containers():
                self._follow(container_id, with_log=state != "created")
            self._watching.set()
            while chunk := events.recv(_READ_BYTES):
                whole, _, rest = (rest + chunk).rpartition(b"\n")
                for container_id in _CREATED.findall(whole):
                    self._follow(container_id.decode(), with_log=False)

    def _containers(self) -> list[tuple[str, str]]:
        client = docker.DockerClient(self._docker_host) if self._docker_host else docker.from_env()
        with contextlib.closing(client):
            return [(str(one["Id"]), str(one["State"])) for one in client.api.containers(all=True, filters=self._label)]

    def _follow(self, container_id: str, *, with_log: bool) -> None:
        """Read what a container prints; ``with_log``: also what it had printed before."""
        if container_id in self._followed:
            return
        self._followed.add(container_id)
        path = f"/containers/{container_id}/attach?stdout=1&stderr=1&stream=1&logs={int(with_log)}"
        reader = threading.Thread(target=self._read, args=(container_id, path), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _read(self, container_id: str, path: str) -> None:
        head = b""
        try:
            with self._request("POST", path) as stream:
                self._streams.append(stream)
                while chunk := stream.recv(_READ_BYTES):
                    if len(head) < _HEAD_BYTES:  # read on: an attach that nobody reads stalls the container
                        head = (head + chunk)[:_HEAD_BYTES]
                        self._note(head)
        except OSError:  # the engine went away under the stream
            self._followed.discard(container_id)

    def _request(self, method: str, path: str) -> socket.socket:
        """Send a request on a connection of its own. The SDK's cannot be ended from another thread."""
        stream = connect_to_engine(self._docker_host)
        request = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        stream.sendall(request.encode())
        return stream

    def _note(self, head: bytes) -> None:
        with self._lock:
            for mark, number in _LINE.findall(head):
                self._numbers[mark.decode()].add(number.decode())
