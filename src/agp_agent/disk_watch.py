"""Watches the disk: flushes the audit trail, and tries a journal again that could not be written."""

import asyncio
from typing import Final

from agp_agent.audit import Audit
from agp_agent.journal import Journal, JournalUnavailable
from agp_agent.readiness import Readiness

_EVERY_S: Final = 1.0


class DiskWatch:
    """Loop; whoever meets a problem of the disk in between reports it by itself."""

    def __init__(self, journal: Journal, audit: Audit, readiness: Readiness) -> None:
        """Watch these two."""
        self._journal = journal
        self._audit = audit
        self._readiness = readiness

    async def run(self) -> None:
        """Look every second."""
        while True:
            await self._look()
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> None:
        try:
            await self._audit.flush()
        except OSError as error:
            self._readiness.report("audit", f"the audit trail cannot be written: {error.strerror}")
        else:
            self._readiness.report("audit", None)
        if "journal" not in self._readiness.problems:
            return
        try:
            await self._journal.probe()
        except JournalUnavailable as error:
            self._readiness.report("journal", str(error))
        else:
            self._readiness.report("journal", None)
