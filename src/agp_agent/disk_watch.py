"""Watches what the agent writes with: disk, journal, audit trail, and the file descriptors for all of them.

It flushes the trail, keeps a reserve of space, and tries a journal again that could not be written.

The reserve is space that is taken while all is well. When the disk is full it is given up for the results of what runs,
and no new task is taken on until it could be taken again.
"""

import asyncio
import contextlib
import math
import os
import time
from pathlib import Path
from typing import Final

from agp_agent import descriptors
from agp_agent.audit import Audit
from agp_agent.journal import Journal, JournalUnavailable
from agp_agent.readiness import Readiness

RESERVE_BYTES: Final = 32 * 2**20
_FULL: Final = f"the state directory is full, or cannot be written; it needs {2 * RESERVE_BYTES // 2**20} MiB free"
_EVERY_S: Final = 1.0
_TOUCH_EVERY_S: Final = 30.0


class DiskWatch:
    """Loop; whoever meets a problem of the disk in between reports it by itself."""

    def __init__(self, journal: Journal, audit: Audit, readiness: Readiness, reserve: Path) -> None:
        """Watch journal and audit trail; ``reserve`` is a file beside them."""
        self._journal = journal
        self._audit = audit
        self._readiness = readiness
        self._reserve = reserve
        self._touched_s = -math.inf

    async def run(self) -> None:
        """Look every second."""
        while True:
            await self._look()
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> None:
        self._readiness.report("file descriptors", descriptors.problem())
        await self._flush_audit()
        if "journal" in self._readiness.problems:
            await self._retry_journal()
        if not {"journal", "audit"} & set(self._readiness.problems):
            self._readiness.report("disk", await asyncio.to_thread(self._take_reserve))

    async def _flush_audit(self) -> None:
        try:
            await self._audit.flush()
        except OSError as error:
            self._readiness.report("audit", f"the audit trail cannot be written: {error.strerror}")
            self._give_up_reserve()
        else:
            self._readiness.report("audit", None)

    async def _retry_journal(self) -> None:
        self._give_up_reserve()
        try:
            await self._journal.probe()
        except JournalUnavailable as error:
            self._readiness.report("journal", str(error))
        else:
            self._readiness.report("journal", None)

    def _take_reserve(self) -> str | None:
        """Why the reserve cannot be taken; None where it is there."""
        try:
            is_taken = self._reserve.exists() and self._reserve.stat().st_size >= RESERVE_BYTES
            # As much must be free beside it: for a new task, and for the result that it may just be given up for.
            if _free_bytes(self._reserve.parent) < (RESERVE_BYTES if is_taken else 2 * RESERVE_BYTES):
                return _FULL
            if is_taken:
                self._touch()
                return None
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            self._give_up_reserve()
            return f"{_FULL} ({error.strerror})"
        return None

    def _touch(self) -> None:
        """Write something now and then: an agent without work would not notice that its disk turned read-only."""
        now_s = time.monotonic()
        if now_s - self._touched_s >= _TOUCH_EVERY_S:
            os.utime(self._reserve)
            self._touched_s = now_s

    def _give_up_reserve(self) -> None:
        """What runs may need it for its result; no new task is taken on meanwhile."""
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
        self._readiness.report("disk", _FULL)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
