"""Keeps tasks flowing to the agent, whatever happens to it: every one is sent until it is answered."""

import contextlib
import heapq
import threading
import time
from typing import Final
from urllib.parse import quote

import httpx

from campaign.book import WRONG, Book
from campaign.mix import Mix, Order
from support.agent_process import AgentProcess

_SENDERS: Final = 2
_OPEN_MAX: Final = 60
"""Tasks without a result, above which no more are sent."""
_RETRY_S: Final = 0.05
_TIMEOUT_S: Final = 10.0
_JOIN_S: Final = 30.0


class Flow:
    """Threads that send and cancel. ``pause`` and ``resume`` as often as wanted, ``close`` at the end."""

    def __init__(self, agent: AgentProcess, book: Book, mix: Mix, pause_s: float) -> None:
        """Begin, paused; ``pause_s`` is what a sender waits between two tasks."""
        self._agent, self._book, self._mix, self._pause_s = agent, book, mix, pause_s
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._flowing, self._closing, self._busy = False, False, 0
        self._cancels: list[tuple[float, str]] = []
        self._http = httpx.Client(trust_env=False, timeout=_TIMEOUT_S)
        jobs = [self._send_on] * _SENDERS + [self._cancel_on]
        self._threads = [threading.Thread(target=job, name="flow", daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def resume(self) -> None:
        """Send."""
        with self._changed:
            self._flowing = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Send nothing new; return once every task that was begun is answered. The agent must be there."""
        with self._changed:
            self._flowing = False
            self._changed.wait_for(lambda: not self._busy)

    def close(self) -> None:
        """End all threads, also in the middle of it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._http.close()

    def send(self, order: Order) -> None:
        """Send one task until it is answered."""
        self._book.sending(order)
        while not self._closing and not self._try(order):
            time.sleep(_RETRY_S)

    def bring(self, order: Order) -> None:
        """Send one more beside what flows; return at once."""
        with self._changed:
            self._busy += 1
        thread = threading.Thread(target=self._bring, args=(order,), name="brought", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _bring(self, order: Order) -> None:
        try:
            self.send(order)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _send_on(self) -> None:
        while self._begin():
            try:
                with self._lock:
                    order = next(self._mix)
                self.send(order)
            finally:
                self._end()

    def _begin(self) -> bool:
        """Wait until a task may be sent; False: it is over."""
        with self._changed:
            while not self._closing:
                if self._flowing and len(self._book.unreported) < _OPEN_MAX:
                    self._busy += 1
                    return True
                self._changed.wait(_RETRY_S)
        return False

    def _end(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing, self._pause_s)

    def _try(self, order: Order) -> bool:
        """Send it once; True: there is nothing more to be done about it."""
        body = {"task_id": order.task_id, "playbook": {"name": order.name, "content": order.content}}
        headers = {"Idempotency-Key": order.key} if order.key else {}
        try:
            answer = self._post("/execute_task", json=body, headers=headers)
        except httpx.ConnectError:  # nobody was there: nothing was sent
            return False
        except httpx.HTTPError:
            return self._book.unknown(order.task_id)
        return self._note(order, answer)

    def _note(self, order: Order, answer: httpx.Response) -> bool:
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return False
        if answer.status_code in (httpx.codes.ACCEPTED, httpx.codes.CONFLICT):
            self._book.accept(order.task_id, anew=answer.status_code == httpx.codes.ACCEPTED)
            if order.cancel_after_s is not None:
                with self._changed:
                    heapq.heappush(self._cancels, (time.monotonic() + order.cancel_after_s, order.task_id))
        else:
            self._book.violate(WRONG, order.task_id, f"the agent answered {answer.status_code}: {answer.text}")
        return True

    def _post(self, path: str, **more: object) -> httpx.Response:
        headers = {**self._agent.headers, **more.pop("headers", {})}  # type: ignore[dict-item]
        return self._http.post(f"http://127.0.0.1:{self._agent.port}{path}", headers=headers, **more)  # type: ignore[arg-type]

    # --- cancelling --------------------------------------------------------------------------------------------------

    def _cancel_on(self) -> None:
        while not self._closing:
            with self._changed:
                due = self._cancels[0] if self._cancels and self._cancels[0][0] < time.monotonic() else None
            if due is not None and self._cancelled(due[1]):
                with self._changed:
                    self._cancels.remove(due)
                    heapq.heapify(self._cancels)
            else:
                time.sleep(_RETRY_S)

    def _cancelled(self, task_id: str) -> bool:
        """Ask once; True: it was heard, or the task has ended."""
        with contextlib.suppress(httpx.HTTPError):
            return self._post(f"/tasks/{quote(task_id, safe='')}/cancel").status_code in _HEARD
        return False


_HEARD: Final = frozenset({httpx.codes.ACCEPTED, httpx.codes.NOT_FOUND, httpx.codes.CONFLICT})
