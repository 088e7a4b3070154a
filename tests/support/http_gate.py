"""A gate on the way of HTTP: it passes everything on, and stops where a test told it to.

It stands between the agent and its engine (a unix socket), or between the agent and its dashboard (TCP). It knows just
enough HTTP to tell the calls of one connection apart: bodies with a length, in chunks or up to the end, and connections
that are upgraded to a stream (attach).
"""

import contextlib
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from support.engine_proxy import connect_to_engine
from support.waiting import PATIENCE_S

_READ_BYTES: Final = 65536
_HEAD_END: Final = b"\r\n\r\n"
_VERSION: Final = re.compile(r"^/v\d+\.\d+(?=/)")
_NO_BODY: Final = frozenset({204, 304})
_UPGRADED: Final = 101

Action = Callable[[], bool]
"""What happens where the gate stops; True: it goes on, False: the connection is cut."""


class Moment(StrEnum):
    """Where on the way of a call the gate stops."""

    CALL = "call"
    """The call has come in; the other side knows nothing of it."""
    ANSWER = "answer"
    """The other side has answered, so it is done; the caller knows nothing of it."""
    UP = "up"
    """A piece of a stream, on its way to the engine."""
    DOWN = "down"
    """A piece of a body or of a stream, on its way to the caller."""
    DOWN_PASSED = "down passed"
    """The same, just after it was passed on."""
    UP_PASSED = "up passed"
    """The same, just after it was passed on."""


@dataclass(slots=True)
class _Stop:
    moment: Moment
    call: re.Pattern[str]
    action: Action
    number: int
    containing: bytes

    def meets(self, moment: Moment, call: str, data: bytes) -> bool:
        """Count; True at the last."""
        if moment is not self.moment or not self.call.search(call) or self.containing not in data:
            return False
        self.number -= 1
        return self.number == 0


@dataclass(slots=True)
class Hold:
    """An action that stops without harm: it says when it was ``reached``, and waits for ``release``."""

    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> bool:
        """Wait, then pass on."""
        self.reached.set()
        return self.release.wait(PATIENCE_S)

    def wait(self) -> None:
        """Return once somebody is held."""
        assert self.reached.wait(PATIENCE_S), "nobody came to the gate"


class HttpGate:
    """Listens while it is open. ``at`` says where it stops, once; closing it breaks every connection."""

    def __init__(self, connect: Callable[[], socket.socket], path: Path | None = None) -> None:
        """``connect`` opens a connection to the other side; ``path`` is the unix socket, None is a port on loopback."""
        self._connect = connect
        self._path = path
        self._port = 0
        self._stops: list[_Stop] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.calls: list[str] = []
        """Every call that came in, as ``METHOD /path?query`` without the API's version."""

    @classmethod
    def to_engine(cls, folder: Path, docker_host: str | None = None) -> Self:
        """A gate before an engine; by default the one that the environment names. Its socket is made in ``folder``."""
        return cls(lambda: connect_to_engine(docker_host), folder / "gate.sock").open()

    @classmethod
    def to_dashboard(cls, url: str) -> Self:
        """A gate before a dashboard, on a port of its own."""
        address = urlsplit(url)
        return cls(lambda: socket.create_connection((address.hostname or "", address.port or 80))).open()

    @property
    def address(self) -> str:
        """As DOCKER_HOST has it, or as a URL."""
        return f"unix://{self._path}" if self._path else f"http://127.0.0.1:{self._port}"

    def at(self, moment: Moment, call: str, action: Action, *, number: int = 1, containing: bytes = b"") -> None:
        """Stop once: at the ``number``-th such moment of calls that match ``call`` (a regular expression)."""
        with self._lock:
            self._stops.append(_Stop(moment, re.compile(call), action, number, containing))

    def forget(self) -> None:
        """Stop nowhere any more."""
        with self._lock:
            self._stops.clear()

    # --- its life --------------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Begin to listen; again at the same address after ``close``."""
        self._listener = self._listen()
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), name="gate", daemon=True).start()
        return self

    def close(self) -> None:
        """Stop listening and break all connections, as a machine that dies does. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _break(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _listen(self) -> socket.socket:
        if self._path is None:
            listener = socket.create_server(("127.0.0.1", self._port))
            self._port = listener.getsockname()[1]
            return listener
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near,), name="gate", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), self._connect() as far:
            with self._lock:
                self._connections |= {near, far}
            try:
                _Passage(self._passes, _Side(near), _Side(far)).run()
            finally:
                for side in (near, far):
                    _break(side)
                with self._lock:
                    self._connections -= {near, far}

    def _passes(self, moment: Moment, call: str, data: bytes) -> bool:
        """Count the moment, and stop where that was asked for; True: go on."""
        with self._lock:
            if moment is Moment.CALL:
                self.calls.append(call)
            met = [stop for stop in self._stops if stop.meets(moment, call, data)]
            self._stops = [stop for stop in self._stops if stop not in met]
        goes_on = [stop.action() for stop in met]
        return all(goes_on)


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Side:
    """One connection, and what was read of it too early."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""

    def read(self) -> bytes:
        """What there is, or b"" at the end."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        return self.socket.recv(_READ_BYTES)

    def read_until(self, end: bytes) -> bytes:
        """All up to and with ``end``; b"" where the connection ended before."""
        data = b""
        while end not in data:
            if not (more := self.read()):
                return b""
            data += more
        whole, _, self._rest = data.partition(end)
        return whole + end

    def read_up_to(self, length: int) -> bytes:
        """At most ``length`` bytes."""
        data = self.read()
        self._rest = data[length:]
        return data[:length]

    @property
    def holds(self) -> bool:
        """Whether something was read too early."""
        return bool(self._rest)


class _Gone(OSError):
    """A side went away, or the connection is to be cut."""


class _Passage:
    """One connection of a caller, call by call."""

    def __init__(self, passes: Callable[[Moment, str, bytes], bool], near: _Side, far: _Side) -> None:
        self._passes = passes
        self._near = near
        self._far = far
        self._call = ""

    def run(self) -> None:
        """Pass calls on until a side ends."""
        while head := self._near.read_until(_HEAD_END):
            method, target = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")[:2]
            self._call = f"{method} {_VERSION.sub('', target)}"
            self._check(Moment.CALL)
            self._far.socket.sendall(head)
            for piece in _body(self._near, head, no_length_means=_nothing):
                self._far.socket.sendall(piece)
            if not self._answer(method):
                return

    def _answer(self, method: str) -> bool:
        """Pass the answer on; False: the connection is over."""
        head = self._far.read_until(_HEAD_END)
        while head.split(b" ", 2)[1:2] == [b"100"]:
            self._near.socket.sendall(head)
            head = self._far.read_until(_HEAD_END)
        if not head:
            return False
        self._check(Moment.ANSWER)
        self._near.socket.sendall(head)
        status = int(head.split(b" ", 2)[1])
        if status == _UPGRADED:
            self._stream()
            return False
        if method == "HEAD" or status in _NO_BODY:
            return True
        for piece in _body(self._far, head, no_length_means=_all, watched=self._near):
            self._down(piece)
        return b"content-length" in head.lower() or b"chunked" in head.lower()

    def _stream(self) -> None:
        """Pass on both ways, each of which may end before the other."""
        back = threading.Thread(target=self._pump, args=(self._far, self._near, self._down), daemon=True)
        back.start()
        self._pump(self._near, self._far, self._up)
        back.join()

    def _pump(self, source: _Side, target: _Side, pass_on: Callable[[bytes], None]) -> None:
        try:
            while data := source.read():
                pass_on(data)
        except OSError:
            for side in (source, target):
                _break(side.socket)
        with contextlib.suppress(OSError):
            target.socket.shutdown(socket.SHUT_WR)

    def _down(self, data: bytes) -> None:
        self._check(Moment.DOWN, data)
        self._near.socket.sendall(data)
        self._check(Moment.DOWN_PASSED, data)

    def _up(self, data: bytes) -> None:
        self._check(Moment.UP, data)
        self._far.socket.sendall(data)
        self._check(Moment.UP_PASSED, data)

    def _check(self, moment: Moment, data: bytes = b"") -> None:
        if not self._passes(moment, self._call, data):
            raise _Gone


def _nothing(_side: _Side) -> Iterator[bytes]:
    return iter(())


def _all(side: _Side) -> Iterator[bytes]:
    while data := side.read():
        yield data


def _body(
    side: _Side,
    head: bytes,
    *,
    no_length_means: Callable[[_Side], Iterator[bytes]],
    watched: _Side | None = None,
) -> Iterator[bytes]:
    """The pieces of a body as they come; ends at once where the ``watched`` side goes away."""
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        yield from _chunks(side, watched)
    elif found := re.search(rb"\r\ncontent-length: *(\d+)", lower):
        left = int(found[1])
        while left and (piece := side.read_up_to(left)):
            left -= len(piece)
            yield piece
    else:
        yield from no_length_means(side)


def _chunks(side: _Side, watched: _Side | None) -> Iterator[bytes]:
    while True:
        if watched is not None and not side.holds:
            _wait_for_either(side.socket, watched.socket)
        line = side.read_until(b"\r\n")
        if not line:
            raise _Gone
        left = int(line.split(b";")[0], 16) + 2
        piece = line
        while left:
            more = side.read_up_to(left)
            if not more:
                raise _Gone
            left -= len(more)
            piece += more
        yield piece
        if line.startswith(b"0"):
            return


def _wait_for_either(source: socket.socket, watched: socket.socket) -> None:
    """Return once there is something to read at the source; raise where the watched side went away instead."""
    readable, _, _ = select.select([source, watched], [], [])
    if source not in readable and not watched.recv(1, socket.MSG_PEEK):
        raise _Gone
