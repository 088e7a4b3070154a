"""Keeps events that others can cause at will from flooding the audit trail: one by one at first, then only counted."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from agp_agent.audit import Audit, AuditEvent

ONE_BY_ONE: Final = 10
"""So many events of a peer are recorded in a window; the others of it are one event with their number."""
TOLD_MAX: Final = 100
"""So many records of all peers together are written in a window: whoever has many addresses is many peers."""
OTHERS: Final = "others"
"""What stands for the peers of all that is beyond that: one event with their number."""
WINDOW_S: Final = 60.0
_PEERS_MAX: Final = 1024


class Tally:
    """Counts one kind of event, by peer and in all."""

    def __init__(
        self,
        audit: Audit,
        event: AuditEvent,
        now_s: Callable[[], float] = time.monotonic,
        *,
        window_s: float = WINDOW_S,
        counted: Callable[[], object] = lambda: None,
    ) -> None:
        """``event`` is recorded in ``audit``; each record has the peer and a count. ``counted`` hears of every one."""
        self._audit = audit
        self._event = event
        self._now_s = now_s
        self._window_s = window_s
        self._counted = counted
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._since_s = now_s()
        self._told = 0
        self._untold = 0

    def add(self, peer: str, **fields: object) -> bool:
        """Count one, and record it with ``fields`` or not; True where it was not: there are too many of this peer."""
        self._counted()
        now_s = self._now_s()
        if now_s - self._since_s >= self._window_s:
            self._begin_window()
        since_s, count = self._peers.pop(peer, (now_s, 0))
        if now_s - since_s >= self._window_s:
            self._summarise(peer, count)
            since_s, count = now_s, 0
        self._peers[peer] = (since_s, count + 1)
        if count < ONE_BY_ONE:
            self._tell(peer, 1, **fields)
        if len(self._peers) > _PEERS_MAX:
            oldest, (_, missed) = self._peers.popitem(last=False)
            self._summarise(oldest, missed)
        return count >= ONE_BY_ONE

    async def run(self) -> None:
        """Record what was only counted, once a window."""
        while True:
            await asyncio.sleep(self._window_s)
            self.flush()

    def flush(self) -> None:
        """Record what was only counted until now, and begin to count anew."""
        self._begin_window()
        while self._peers:
            peer, (_, count) = self._peers.popitem(last=False)
            self._summarise(peer, count)
        self._begin_window()

    def _summarise(self, peer: str, count: int) -> None:
        if count > ONE_BY_ONE:
            self._tell(peer, count - ONE_BY_ONE)

    def _tell(self, peer: str, count: int, **fields: object) -> None:
        if self._told < TOLD_MAX:
            self._told += 1
            self._audit.record(self._event, peer=peer, **fields, count=count)
        else:
            self._untold += count

    def _begin_window(self) -> None:
        """Record how many were beyond the bound of the last window, and begin one."""
        if self._untold:
            self._audit.record(self._event, peer=OTHERS, count=self._untold)
        self._since_s, self._told, self._untold = self._now_s(), 0, 0
