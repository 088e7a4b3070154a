"""Watches what the agent writes with: disk, journal, audit trail, and the file descriptors for all of them.

It flushes the trail, keeps a reserve of space, tries a journal again that could not be written, and bounds its size.

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
from agp_agent.journal import Journal, JournalLocked, JournalUnavailable
from agp_agent.readiness import Readiness

RESERVE_BYTES: Final = 32 * 2**20
_FULL: Final = f"the state directory is full, or cannot be written; it needs {2 * RESERVE_BYTES // 2**20} MiB free"
_OVERFULL: Final = (
    "what the dashboard has not acknowledged fills the journal ({used} MiB; AGP_JOURNAL_LIMIT_BYTES allows {limit} MiB)"
)
_EVERY_S: Final = 1.0
_TOUCH_EVERY_S: Final = 30.0


class DiskWatch:
    """Loop; whoever meets a problem of the disk in between reports it by itself."""

    def __init__(
        self, journal: Journal, audit: Audit, readiness: Readiness, reserve: Path, *, journal_limit_bytes: int
    ) -> None:
        """Watch journal and audit trail; ``reserve`` is a file beside them."""
        self._journal = journal
        self._audit = audit
        self._readiness = readiness
        self._reserve = reserve
        self._journal_limit_bytes = journal_limit_bytes
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
        with contextlib.suppress(JournalUnavailable):  # whoever writes to it says so
            self._readiness.report("journal size", await self._bound_journal())

    async def _flush_audit(self) -> None:
        try:
            await self._audit.flush()
        except OSError as error:
            self._readiness.report("audit", f"the audit trail cannot be written: {error.strerror}")
            self._give_up_reserve()
        else:
            self._readiness.report("audit", None)

    async def _retry_journal(self) -> None:
        problem = await self._problem_of_journal()
        if problem is not None and not isinstance(problem, JournalLocked):
            self._give_up_reserve()
            problem = await self._problem_of_journal()
        self._readiness.report("journal", None if problem is None else str(problem))

    async def _problem_of_journal(self) -> JournalUnavailable | None:
        try:
            await self._journal.probe()
        except JournalUnavailable as error:
            return error
        return None

    async def _bound_journal(self) -> str | None:
        """Let the oldest acknowledged results go where the journal is too large; why it is too large without them."""
        limit_bytes = self._journal_limit_bytes
        while (used_bytes := await self._journal.used_bytes()) > limit_bytes:
            may_forget = "audit" not in self._readiness.problems
            if not (may_forget and await self._journal.make_room(limit_bytes=limit_bytes)):
                return _OVERFULL.format(used=used_bytes // 2**20, limit=limit_bytes // 2**20)
        return None

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
