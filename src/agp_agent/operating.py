"""What operators do by hand: pause and go on, deliver again, give a result up. Each is audited with who asked."""

import os
from pathlib import Path

from agp_agent.audit import Audit, AuditEvent, OpenTask
from agp_agent.caller import Caller
from agp_agent.errors import Unavailable
from agp_agent.journal import Journal
from agp_agent.readiness import Readiness


class Operating:
    """The operator's hands."""

    def __init__(self, journal: Journal, audit: Audit, readiness: Readiness, paused: Path) -> None:
        """``paused`` is a file that is there while the agent is: so it stays paused over its restarts."""
        self._journal = journal
        self._audit = audit
        self._readiness = readiness
        self._paused = paused
        readiness.pause(paused=paused.exists())

    def pause(self, caller: Caller) -> None:
        """Start no task any more; what comes is taken on and waits, what runs goes on.

        Raises:
            Unavailable: it could not be kept over a restart; nothing was changed.
        """
        try:
            self._paused.touch(mode=0o600)
            _sync(self._paused.parent)
        except OSError as error:
            raise Unavailable(f"The agent cannot note that it is paused: {error.strerror}.") from None
        self._readiness.pause(paused=True)
        self._audit.record(AuditEvent.AGENT_PAUSED, **caller.facts)

    def resume(self, caller: Caller) -> None:
        """Start tasks again. Raises as ``pause`` does."""
        try:
            self._paused.unlink(missing_ok=True)
            _sync(self._paused.parent)
        except OSError as error:
            raise Unavailable(f"The agent cannot note that it goes on: {error.strerror}.") from None
        self._readiness.pause(paused=False)
        self._audit.record(AuditEvent.AGENT_RESUMED, **caller.facts)

    async def retry(self, task_id: str, caller: Caller) -> bool:
        """Deliver a task's result now, also one that was given up. False: none waits."""
        done = await self._journal.retry_delivery(task_id)
        if done:
            self._audit.record(AuditEvent.DELIVERY_RETRIED, task_id=task_id, **caller.facts)
        return done

    async def retry_all(self, caller: Caller) -> int:
        """Deliver all results that were given up; how many there are."""
        number = await self._journal.retry_dead_letters()
        self._audit.record(AuditEvent.DELIVERY_RETRIED, dead_letters=number, **caller.facts)
        return number

    async def drop(self, task_id: str, caller: Caller) -> bool:
        """Forget a result that was given up: the dashboard will never have it. False: there is none.

        Raises:
            Unavailable: the audit trail cannot take it down; the result is kept.
        """
        found = await self._journal.views.dead_letter(task_id)
        if found is None:
            return False
        still_owed = [task for task in self._audit.open_tasks() if task.run_id == found["run_id"]]
        self._audit.record(AuditEvent.TASK_DROPPED, **found, **caller.facts)
        try:
            await self._audit.flush()  # the trail is what remains of it
        except OSError as error:
            self._take_back(still_owed)
            raise Unavailable(f"The audit trail cannot be written: {error.strerror}; nothing was forgotten.") from None
        if await self._journal.drop_dead_letter(found["run_id"]):
            return True
        self._take_back(still_owed)  # it is being delivered again
        return False

    def _take_back(self, still_owed: list[OpenTask]) -> None:
        """What the trail was told to forget, and what is kept all the same, stands in it again, behind that line."""
        for task in still_owed:
            self._audit.record(AuditEvent.TASK_CARRIED, **task.facts | {"last_step": task.last_step})


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
