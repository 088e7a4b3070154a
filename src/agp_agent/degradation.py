"""Audits each degradation once: when a part begins to be a problem, and when it is well again.

What is tried again every second may be well for a moment and fail the next time, with another sentence each time. That
is one degradation, not many: a part is taken as well again only when it has been so for a while.
"""

import asyncio
from typing import Final

from agp_agent.audit import Audit, AuditEvent

SETTLED_S: Final = 3.0
"""Longer than the pause between two tries of anything in the agent."""


class Degradation:
    """Hears every news of ``Readiness``. Belongs to the event loop."""

    def __init__(self, audit: Audit, settled_s: float = SETTLED_S) -> None:
        """Nothing is degraded yet; a part that has never been well is not degraded either, until it fails."""
        self._audit = audit
        self._settled_s = settled_s
        self._degraded: set[str] = set()
        self._settling: dict[str, asyncio.TimerHandle] = {}

    def hear(self, part: str, problem: str | None) -> None:
        """Take in that a part has a problem, another problem, or none any more."""
        if (settling := self._settling.pop(part, None)) is not None:
            settling.cancel()
        if problem is None and part in self._degraded:
            loop = asyncio.get_running_loop()
            self._settling[part] = loop.call_later(self._settled_s, self._recovered, part)
        elif problem is not None and part not in self._degraded:
            self._degraded.add(part)
            self._audit.record(AuditEvent.AGENT_DEGRADED, part=part, why=problem)

    def close(self) -> None:
        """Wait for nothing any more; what was well at the end counts as well."""
        for part, settling in list(self._settling.items()):
            settling.cancel()
            self._recovered(part)

    def _recovered(self, part: str) -> None:
        self._settling.pop(part)
        self._degraded.discard(part)
        self._audit.record(AuditEvent.AGENT_RECOVERED, part=part)
