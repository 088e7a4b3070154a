"""Another machine, as far as this one can tell: a network namespace behind a veth pair, with addresses of all kinds.

Nothing sent to it leaves this machine. Needs root.
"""

import contextlib
import fcntl
import os
import secrets
import selectors
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self, TypeVar

from support.network_thread import in_network

T = TypeVar("T")

HERE: Final = "198.51.100.1"
"""This machine's end of the wire: an address of its own that is none of the private ones."""
PUBLIC: Final = "198.51.100.2"
"""The other end: as good as any address of the internet."""
PRIVATE: Final = "10.213.7.1"
PRIVATE_TOO: Final = "10.213.7.2"
SHARED: Final = "100.64.213.1"
METADATA: Final = "169.254.169.254"
_BEHIND: Final = (PRIVATE, PRIVATE_TOO, SHARED, METADATA)
_LOCK: Final = Path(tempfile.gettempdir()) / "agp-elsewhere.lock"


class Elsewhere:
    """The other machine. It has these addresses once for all tests of this machine: a second one waits for its turn."""

    def __init__(self) -> None:
        """Make the namespace, the wire and the routes."""
        assert os.geteuid() == 0, "another machine can be played by root alone"
        self._lock = _LOCK.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.name = f"agp{secrets.token_hex(4)}"
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self.received: list[tuple[str, int, bytes]] = []
        """Every datagram that arrived: address and port it was sent to, and its content."""
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        self._server = threading.Thread(target=self._serve, name="elsewhere")
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopping.set()
        self._server.join()
        self.close()

    def close(self) -> None:
        """Remove all traces. Idempotent."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self.name)  # the wire goes with it, and the routes with the wire
        self._lock.close()

    def listen(self, address: str, port: int) -> None:
        """Take connections there, greet, and close."""
        self._add(self._inside(lambda: socket.create_server((address, port))))

    def receive(self, address: str, port: int, answer: Callable[[bytes], bytes] | None = None) -> None:
        """Take datagrams there, and perhaps answer each."""

        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((address, port))
            return made

        self._add(self._inside(bind), answer)

    def _make(self) -> None:
        outer, inner = f"{self.name}h", f"{self.name}n"
        _ip("netns", "add", self.name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", self.name)
        _ip("address", "add", f"{HERE}/30", "dev", outer)
        _ip("link", "set", outer, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{PUBLIC}/30", "dev", inner),
            ("link", "set", inner, "up"),
            *(("address", "add", f"{address}/32", "dev", "lo") for address in _BEHIND),
            ("route", "add", "default", "via", HERE),
        ):
            _ip("-netns", self.name, *command)
        for address in _BEHIND:
            _ip("route", "add", f"{address}/32", "via", PUBLIC)

    def _inside(self, act: Callable[[], T]) -> T:
        return in_network(Path("/run/netns") / self.name, act)

    def _add(self, listener: socket.socket, answer: Callable[[bytes], bytes] | None = None) -> None:
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ, answer)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.1):
                listener = key.fileobj
                assert isinstance(listener, socket.socket)
                with contextlib.suppress(OSError):
                    self._take(listener, key.data)

    def _take(self, listener: socket.socket, answer: Callable[[bytes], bytes] | None) -> None:
        if listener.type == socket.SOCK_STREAM:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"elsewhere\n")
            return
        data, sender = listener.recvfrom(2**16)
        address, port = listener.getsockname()
        self.received.append((address, port, data))
        if answer is not None:
            listener.sendto(answer(data), sender)


@contextlib.contextmanager
def listening_here(address: str, port: int) -> Iterator[None]:
    """Take connections on an address of this machine itself."""
    with socket.create_server((address, port), backlog=64):
        yield


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)
