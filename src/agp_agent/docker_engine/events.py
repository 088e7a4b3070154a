"""The engine's event stream, read by one thread; it wakes whoever waits for a container's end, or for other images."""

import asyncio
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from docker import APIClient
from docker.errors import DockerException
from docker.types.daemon import CancellableStream
from requests.exceptions import RequestException

from agp_agent.docker_engine.http import json_lines, url
from agp_agent.docker_engine.translate import Json

_Stream: TypeAlias = "CancellableStream[Json]"  # a string: only the stubs make it generic
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_OF_CONTAINERS = ["die", "destroy", "kill", "pause"]
_OF_IMAGES = ["tag", "untag", "delete", "pull", "load", "import"]
_FILTERS = json.dumps({"type": ["container", "image"], "event": [*_OF_CONTAINERS, *_OF_IMAGES]})
_REMEMBERED_KILLS = 1024
_TIMEOUTS_S = (10.0, None)
"""To connect, and between events: there is none, for nothing may happen for days."""

_BROKEN = (DockerException, RequestException, OSError, ValueError, AttributeError)
"""What reading a stream raises that breaks, or that another thread closes (the last two)."""


class EventWatch:
    """Listens to the ends of containers, to what is sent to them, and to images, over any number of interruptions.

    Waiters are told "look again": when their container ends or goes, and whenever contact with the engine was
    (re)established, because events may have been missed in between. What really happened they ask the engine.
    """

    def __init__(self, connect: Callable[[], APIClient], on_contact: Callable[[], None]) -> None:
        """Take how to make a client without read timeouts, and what to do in the thread at every new contact."""
        self._connect = connect
        self._on_contact = on_contact
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._image_news: list[asyncio.Event] = []
        self._killed: deque[str] = deque(maxlen=_REMEMBERED_KILLS)
        self._tried = asyncio.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._stream: _Stream | None = None
        self._thread: threading.Thread | None = None
        self._interruptions = 0

    @property
    def epoch(self) -> int:
        """A number that stays the same only while the stream is unbroken; without contact no two are the same."""
        with self._lock:
            if self._stream is None:
                self._interruptions += 1
            return self._interruptions

    def start(self) -> None:
        """Start the thread, on the running event loop. Idempotent."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="engine-events", daemon=True)
            self._thread.start()

    async def first_attempt(self) -> None:
        """Return when the engine was reached or not reached for the first time."""
        await self._tried.wait()

    @contextmanager
    def waiting(self, container_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever the container should be looked at again."""
        bell = asyncio.Event()
        self._waiters[container_id].add(bell)
        try:
            yield bell
        finally:
            self._waiters[container_id].discard(bell)
            if not self._waiters[container_id]:
                del self._waiters[container_id]

    def image_news(self) -> asyncio.Event:
        """An event of the caller's own that is set whenever an image came, moved or went."""
        self._image_news.append(asyncio.Event())
        return self._image_news[-1]

    def killed(self, container_id: str) -> bool:
        """Whether a signal to this container was told of, be it by an engine process that is gone since."""
        return container_id in self._killed

    def close(self) -> None:
        """End the thread and wait for it. Blocks; idempotent."""
        self._stop.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            with suppress(*_BROKEN):
                stream.close()
        if self._thread is not None:
            self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        pause_s = _FIRST_PAUSE_S
        with suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            while not self._stop.is_set():
                reached = self._listen(loop)
                loop.call_soon_threadsafe(self._tried.set)
                pause_s = _FIRST_PAUSE_S if reached else min(2 * pause_s, _LONGEST_PAUSE_S)
                self._stop.wait(pause_s)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Read one stream to its end. False: the engine was not reached."""
        client = None
        try:
            client = self._connect()
            # All that the engine remembers is read again, so that nothing falls between two streams.
            params = {"since": "1", "filters": _FILTERS}
            stream = json_lines(client.get(url(client, "events"), params=params, stream=True, timeout=_TIMEOUTS_S))
        except _BROKEN:
            _close(client)
            return False
        try:
            self._read(stream, loop)
        finally:
            with self._lock:
                self._stream = None
                self._interruptions += 1
            _close(client)
        return True

    def _read(self, stream: _Stream, loop: asyncio.AbstractEventLoop) -> None:
        self._on_contact()
        with self._lock:
            self._stream = stream
            self._interruptions += 1
        loop.call_soon_threadsafe(self._ring_all)
        if self._stop.is_set():  # close() came before the stream was there to be closed
            return
        with suppress(*_BROKEN):
            for event in stream:
                loop.call_soon_threadsafe(self._heard(event), event["Actor"]["ID"])

    def _heard(self, event: Json) -> Callable[[str], None]:
        if event.get("Type") == "image":
            return self._tell_of_images
        return self._note_kill if event["Action"] == "kill" else self._ring

    def _tell_of_images(self, _name: str) -> None:
        for news in self._image_news:
            news.set()

    def _note_kill(self, container_id: str) -> None:
        if container_id not in self._killed:
            self._killed.append(container_id)

    def _ring(self, container_id: str) -> None:
        for bell in self._waiters.get(container_id, ()):
            bell.set()

    def _ring_all(self) -> None:
        self._tried.set()
        for container_id in self._waiters:
            self._ring(container_id)


def _close(client: APIClient | None) -> None:
    if client is not None:
        client.close()
