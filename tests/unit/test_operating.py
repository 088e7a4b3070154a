"""What operators do by hand, where the disk does not take it: nothing is changed, and that is said."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.audit import Audit, AuditEvent
from agp_agent.caller import Caller
from agp_agent.errors import Unavailable
from agp_agent.journal import Journal
from agp_agent.operating import Operating
from agp_agent.readiness import Readiness
from support.clock import SetClock
from support.orders import due_now, finished

CALLER = Caller("127.0.0.1")


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    """The trail."""
    opened = Audit(tmp_path / "audit.jsonl")
    yield opened
    await opened.aclose()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """A journal with one dead letter."""
    opened = Journal(tmp_path / "journal.db", SetClock())
    await finished(opened, "t")
    await opened.dead_letter((await due_now(opened))[0], error="x")
    yield opened
    opened.close()


async def test_a_result_is_kept_while_the_trail_cannot_say_that_it_was_given_up(
    journal: Journal, audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail is all that would remain of it."""
    operating = Operating(journal, audit, Readiness(), tmp_path / "paused")
    found = await journal.views.dead_letter("t")
    assert found is not None
    audit.record(AuditEvent.TASK_ACCEPTED, task_id="t", attempt=1, run_id=found["run_id"], playbook_name="p")

    def owed() -> list[str]:
        return [task.run_id for task in audit.open_tasks()]

    async def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as trouble:
        trouble.setattr(audit, "flush", full)
        with pytest.raises(Unavailable, match="No space left on device; nothing was forgotten"):
            await operating.drop("t", CALLER)
    assert await journal.views.dead_letter("t") is not None
    assert owed() == [found["run_id"]], "a journal that is lost now must not lose it"
    assert await operating.drop("t", CALLER)
    assert (await journal.views.task("t"), owed()) == (None, [])


async def test_a_result_that_is_being_delivered_again_is_not_dropped(
    journal: Journal, audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody had it delivered again while the trail was written: it is owed as before, and the trail says so."""
    operating = Operating(journal, audit, Readiness(), tmp_path / "paused")
    found = await journal.views.dead_letter("t")
    assert found is not None
    audit.record(AuditEvent.TASK_ACCEPTED, task_id="t", attempt=1, run_id=found["run_id"], playbook_name="p")
    flush = audit.flush

    async def meanwhile() -> None:
        await flush()
        await journal.retry_dead_letters()

    with monkeypatch.context() as trouble:
        trouble.setattr(audit, "flush", meanwhile)
        assert not await operating.drop("t", CALLER)
    assert [task.run_id for task in audit.open_tasks()] == [found["run_id"]]


async def test_a_pause_that_could_not_outlive_a_restart_is_none(journal: Journal, audit: Audit, tmp_path: Path) -> None:
    """Neither way."""
    readiness = Readiness(max_running=4)
    operating = Operating(journal, audit, readiness, tmp_path / "gone" / "paused")
    with pytest.raises(Unavailable, match="cannot note that it is paused"):
        operating.pause(CALLER)
    assert (readiness.paused, readiness.slots) == (False, 4)
    with pytest.raises(Unavailable, match="cannot note that it goes on"):
        operating.resume(CALLER)


async def test_who_was_paused_begins_paused(journal: Journal, audit: Audit, tmp_path: Path) -> None:
    """And goes on when it is told to, for good."""
    Operating(journal, audit, Readiness(), tmp_path / "paused").pause(CALLER)
    readiness = Readiness(max_running=4)
    operating = Operating(journal, audit, readiness, tmp_path / "paused")
    assert (readiness.paused, readiness.slots) == (True, 0)
    operating.resume(CALLER)
    assert (readiness.slots, (tmp_path / "paused").exists()) == (4, False)
