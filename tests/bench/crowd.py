"""Many tasks at once: orders over several connections, and the wait for all their results."""

import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

from bench.problem import BenchError
from bench.wire import Connection, named_request, request
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub

_CONNECTIONS: Final = 8
_PATIENCE_S: Final = 300.0


def new_ids(number: int) -> list[str]:
    """Random task_ids."""
    return [secrets.token_hex(8) for _ in range(number)]


def send(agent: AgentProcess, task_ids: Sequence[str], content: str, name: str = "bench.sh") -> None:
    """Order all of them, over a few connections at once."""

    def some(ids: Sequence[str]) -> None:
        with Connection(agent.port) as connection:
            for task_id in ids:
                connection.order(named_request(agent.token, task_id, name, content))

    with ThreadPoolExecutor(_CONNECTIONS) as senders:
        list(senders.map(some, [task_ids[first::_CONNECTIONS] for first in range(_CONNECTIONS)]))


def cancel(agent: AgentProcess, task_ids: Sequence[str]) -> None:
    """Ask for the end of all of them."""
    with Connection(agent.port) as connection:
        for task_id in task_ids:
            connection.order(request("POST", f"/tasks/{task_id}/cancel", agent.token))


def acknowledged(dashboard: DashboardStub, task_ids: Sequence[str], status: str = "completed") -> float:
    """The moment at which the last of them was, by the monotonic clock.

    Raises:
        BenchError: one has another status.
    """
    mine = [dashboard.acknowledged(task_id, patience_s=_PATIENCE_S) for task_id in task_ids]
    for one in mine:
        if one.result["status"] != status:
            raise BenchError(f"A task ended {one.result['status']}, not {status}: {one.result['error']}")
    return max(one.at_s for one in mine)


class Heartbeats:
    """Asks for a heartbeat again and again, in a thread: how long the agent takes to answer meanwhile."""

    def __init__(self, agent: AgentProcess, pause_s: float = 0.02) -> None:
        """Use it as a context manager."""
        self._agent = agent
        self._pause_s = pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.samples_ms: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with Connection(self._agent.port) as connection:
            while not self._over.wait(self._pause_s):
                begin_s = time.perf_counter()
                connection.ask(request("POST", "/heartbeat", self._agent.token))
                self.samples_ms.append((time.perf_counter() - begin_s) * 1000)
