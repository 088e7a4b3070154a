"""A dashboard whose mood changes: it fails, is slow, forgets to answer, and is away now and then, all by the seed."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Final

from campaign.book import Book
from support.dashboard_stub import DashboardStub, Reply

_REBIND_S: Final = 0.1
_ERROR: Final = Reply(500, b'{"detail":"out of order"}')
_BUSY: Final = Reply(503, b'{"detail":"busy"}', {"Retry-After": "1"})
_RESET: Final = Reply(reset=True)


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares of the requests that meet each kind of trouble; the rest is taken and acknowledged."""

    name: str
    error: float = 0.0
    busy: float = 0.0
    reset: float = 0.0
    forgotten: float = 0.0
    """Taken, and then the connection is reset."""
    slow_s: float = 0.0
    """Longest pause before an answer."""
    down: bool = False
    """Nobody listens."""


CALM: Final = Weather("calm")
WEATHERS: Final = (
    CALM,
    CALM,
    CALM,
    Weather("errors", error=0.3),
    Weather("busy", busy=0.2),
    Weather("resets", reset=0.2),
    Weather("forgetful", forgotten=0.3),
    Weather("slow", slow_s=1.0),
    Weather("mixed", error=0.1, busy=0.1, reset=0.1, forgotten=0.2, slow_s=0.3),
    Weather("down", down=True),
)


class MoodyDashboard:
    """Listens always at the same address, but for the times when it is down. What it keeps it writes into the book."""

    def __init__(self, book: Book, seed: str) -> None:
        """Begin with calm weather."""
        self._book = book
        self._random = random.Random(seed)  # noqa: S311  a seed repeats it
        self._lock = threading.Lock()
        self._weather = CALM
        self._stub: _Stub | None = _Stub(0, None, self._answer)
        self.url, self.token = self._stub.url, self._stub.token

    def change(self, weather: Weather) -> None:
        """From now on it is like this."""
        self._weather = weather
        if weather.down:
            self.close()
        elif self._stub is None:
            self._stub = self._reopened()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._stub is not None:
            self._stub.close()
            self._stub = None

    def _reopened(self) -> "_Stub":
        port = int(self.url.rpartition(":")[2])
        while True:
            with contextlib.suppress(OSError):  # somebody was given the port for a moment
                return _Stub(port, self.token, self._answer)
            time.sleep(_REBIND_S)

    def _answer(self, headers: Mapping[str, str], body: bytes) -> Reply:
        weather = self._weather
        with self._lock:
            draw, delay_s = self._random.random(), self._random.uniform(0, weather.slow_s)
        for share, reply in ((weather.error, _ERROR), (weather.busy, _BUSY), (weather.reset, _RESET)):
            if draw < share:
                return reply
            draw -= share
        self._book.take(body, headers["idempotency-key"])
        return _RESET if draw < weather.forgotten else Reply(delay_s=delay_s)


class _Stub(DashboardStub):
    """Asks for every answer, and remembers no request: a campaign has many."""

    def __init__(self, port: int, token: str | None, answer: Callable[[Mapping[str, str], bytes], Reply]) -> None:
        self._answer = answer
        super().__init__(port=port, token=token)

    def take(self, request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        headers = {name.lower(): value for name, value in request.headers.items()}
        refused = self._decide(request.command, request.path, headers, body)
        return self._answer(headers, body) if refused.acknowledges else refused
