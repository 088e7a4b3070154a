"""Blocking SDK calls, run in a bounded pool of threads of the engine's own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from docker import APIClient

from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.errors import told
from agp_agent.errors import EngineUnavailable

_THREADS = 8
"""Fewer than the SDK's pool holds connections (10), so that none is opened for one call only."""

T = TypeVar("T")


class EngineCalls:
    """One lazily made SDK client with timeouts, and the threads that use it."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine-call")
        self._client: APIClient | None = None
        self._retired: APIClient | None = None
        """The client before: closed one renewal later, because a thread may still be using it."""
        self._lock = threading.Lock()

    async def run(self, work: Callable[[APIClient], T]) -> T:
        """Do blocking work with the client in one of the threads; its errors come out as the port's.

        Work that was begun goes on when the caller is cancelled: it must clean up after itself.
        """
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[APIClient], T]) -> "Future[T]":
        """The same for a caller that wants to know how it ended even when cancelled."""
        try:
            return self._pool.submit(self._call, work)
        except RuntimeError as error:
            raise EngineUnavailable("this agent has closed its connection to the engine") from error

    def renew(self) -> None:
        """Make a new client for the next call: the engine that answers now may speak another API version."""
        with self._lock:
            older, self._retired, self._client = self._retired, self._client, None
        if older is not None:
            older.close()

    def close(self) -> None:
        """Wait for what runs and end the threads. Blocks; idempotent."""
        self._pool.shutdown(cancel_futures=True)
        self.renew()
        self.renew()

    def _call(self, work: Callable[[APIClient], T]) -> T:
        with told(self.endpoint):
            return work(self._ready_client())

    def _ready_client(self) -> APIClient:
        """The client; making it asks the engine, so it is made outside the lock and the first one made is kept."""
        with self._lock:
            if self._client is not None:
                return self._client
        made = self.endpoint.client(self.timeout_s)
        with self._lock:
            if self._client is None:
                self._client = made
            kept = self._client
        if kept is not made:
            made.close()
        return kept
