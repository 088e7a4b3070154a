"""The intake: what is taken on, what is refused, and what is on disk by then."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent import catalog
from agp_agent.audit import AuditEvent
from agp_agent.caller import Caller
from agp_agent.catalog import Catalogs
from agp_agent.errors import AlreadyRunning, InvalidBody, Refused, TooLarge, Unavailable
from agp_agent.intake import Intake
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.models import TaskStatus
from agp_agent.tally import ONE_BY_ONE, Tally
from support.agent_parts import Parts, agent, catalog_of, machine

LIMIT = 1000


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An agent's parts; nothing that is accepted starts."""
    async with machine() as host, agent(tmp_path, host, max_running=2) as made:
        yield made


@pytest.fixture
def intake(parts: Parts) -> Intake:
    """What is tested."""
    return Intake(
        parts.journal,
        parts.audit,
        Tally(parts.audit, AuditEvent.TASK_REFUSED),
        parts.readiness,
        Catalogs(catalog.load()),
        max_queued=2,
        rerun_after_s=0,
        playbook_limit_bytes=LIMIT,
    )


def body(task_id: str = "t", name: str = "a.sh", content: str = "echo hi\n", **dumps: Any) -> bytes:
    """Return the bytes of an order."""
    return json.dumps({"task_id": task_id, "playbook": {"name": name, "content": content}}, **dumps).encode()


async def test_an_accepted_order_is_in_journal_and_audit_when_accept_returns(intake: Intake, parts: Parts) -> None:
    """Both on disk: whatever happens next, it will be reported."""
    task, accepted = await intake.accept(body(), None, Caller("10.0.0.1"))
    assert (task.task_id, accepted.status) == ("t", TaskStatus.RUNNING)
    attempt = await parts.attempt(accepted.run_id)
    assert (attempt.playbook, attempt.runner, attempt.state) == (b"echo hi\n", "shell", State.QUEUED)
    (line,) = [json.loads(text) for text in (parts.folder / "audit.jsonl").read_text().splitlines()]
    assert (line["event"], line["task_id"], line["run_id"]) == ("task accepted", "t", accepted.run_id)
    assert (line["playbook_name"], line["runner"], line["peer"]) == ("a.sh", "shell", "10.0.0.1")
    assert line["playbook_sha256"] == attempt.playbook_sha256
    assert "echo hi" not in json.dumps(line)


async def test_a_playbook_without_runner_is_accepted_and_comes_back_failed(intake: Intake, parts: Parts) -> None:
    """With the known runners named; both events are audited."""
    _, accepted = await intake.accept(body(name="a.exe"), None, Caller("p"))
    verdict, due = await parts.result(accepted.run_id)
    assert verdict == Verdict(
        Outcome.REJECTED, Reason.NO_RUNNER, "no runner for 'a.exe'; known runners: shell, python, ansible"
    )
    assert due.output.text() == ""
    assert await parts.events() == ["task accepted", "task finished"]


@pytest.mark.parametrize("raw", [b"", b"{}", b"nonsense", body(task_id="a\n"), body(content="")])
async def test_a_wrong_body_changes_nothing_but_the_audit(intake: Intake, parts: Parts, raw: bytes) -> None:
    """The refusal is recorded with its status and sentence."""
    with pytest.raises(InvalidBody) as caught:
        await intake.accept(raw, None, Caller("10.0.0.1"))
    assert await parts.journal.counts() == {}
    (line,) = await parts.audited()
    assert (line["event"], line["status"], line["peer"]) == ("task refused", 400, "10.0.0.1")
    assert line["why"] == caught.value.detail


async def test_a_playbook_is_measured_in_bytes(intake: Intake) -> None:
    """Exactly at the limit it passes."""
    await intake.accept(body(content="é" * (LIMIT // 2)), None, Caller("p"))
    with pytest.raises(TooLarge, match=r"^playbook\.content is larger than 1000 bytes\.$"):
        await intake.accept(body("u", content="é" * (LIMIT // 2) + "x"), None, Caller("p"))


def test_the_largest_body_has_room_for_every_spelling_of_the_largest_playbook(intake: Intake) -> None:
    """JSON may need six bytes for one."""
    escaped = "".join(f"\\u{ord(char):04x}" for char in "x" * LIMIT)
    spelled = body(task_id="\\" * 256, name="\\" * 255).replace(b"echo hi\\n", escaped.encode())
    assert len(spelled) <= intake.body_limit_bytes < len(spelled) + 20_000


async def test_an_open_task_is_refused_and_audited(intake: Intake, parts: Parts) -> None:
    """409, with its id."""
    await intake.accept(body(), None, Caller("p"))
    with pytest.raises(AlreadyRunning):
        await intake.accept(body(), None, Caller("p"))
    (refused,) = await parts.audited("task refused")
    assert (refused["status"], refused["task_id"]) == (409, "t")


async def test_a_storm_of_refusals_is_counted_and_not_written_down_one_by_one(intake: Intake, parts: Parts) -> None:
    """Or a sender that asks again and again would push everything else out of the audit trail."""
    for _ in range(5 * ONE_BY_ONE):
        with pytest.raises(InvalidBody):
            await intake.accept(b"nonsense", None, Caller("p"))
    assert len(await parts.audited("task refused")) == ONE_BY_ONE


async def test_of_a_hundred_equal_orders_one_is_taken_on(intake: Intake, parts: Parts) -> None:
    """However close they come."""
    results = await asyncio.gather(
        *(intake.accept(body(), None, Caller("p")) for _ in range(100)), return_exceptions=True
    )
    assert sum(isinstance(result, AlreadyRunning) for result in results) == 99
    assert (await parts.journal.counts())[State.QUEUED] == 1


@pytest.mark.parametrize("part", ["disk", "journal size", "file descriptors"])
async def test_what_lacks_room_takes_nothing_on(intake: Intake, parts: Parts, part: str) -> None:
    """503, with its reason."""
    parts.readiness.report(part, "there is no room")
    with pytest.raises(Unavailable, match=r"^The agent takes on no more tasks: there is no room\.$"):
        await intake.accept(body(), None, Caller("p"))
    assert await parts.journal.counts() == {}


async def test_places_then_queue_then_refusal(intake: Intake) -> None:
    """Running, pending, 503."""
    statuses = [(await intake.accept(body(name), None, Caller("p")))[1].status for name in "abcd"]
    assert statuses == [TaskStatus.RUNNING] * 2 + [TaskStatus.PENDING] * 2
    with pytest.raises(Unavailable, match="queue is full"):
        await intake.accept(body("e"), None, Caller("p"))


async def test_without_an_engine_orders_are_accepted_and_wait(intake: Intake, parts: Parts) -> None:
    """Up to the queue's limit."""
    parts.readiness.report("engine", "away")
    assert (await intake.accept(body(), None, Caller("p")))[1].status is TaskStatus.PENDING


async def test_a_stopping_agent_takes_on_nothing(intake: Intake, parts: Parts) -> None:
    """503: send it again later."""
    parts.readiness.drain()
    with pytest.raises(Unavailable, match="is stopping"):
        await intake.accept(body(), None, Caller("p"))
    assert await parts.journal.counts() == {}


# --- Idempotency-Key ---------------------------------------------------------------------------------------------


async def test_an_equal_order_under_the_same_key_is_answered_again(intake: Intake, parts: Parts) -> None:
    """However its JSON is spelled; nothing is recorded twice."""
    _, first = await intake.accept(body(content="é\n"), "key-1", Caller("p"))
    _, again = await intake.accept(body(content="é\n", ensure_ascii=False, indent=2), "key-1", Caller("p"))
    assert (again.status, again.replayed) == (first.status, True)
    assert await parts.events() == ["task accepted"]


@pytest.mark.parametrize(
    "other", [body("u"), body(name="b.sh"), body(content="echo ho\n"), body(name="a.she", content="cho hi\n")]
)
async def test_another_order_under_the_same_key_is_refused(intake: Intake, other: bytes) -> None:
    """Whatever differs, where one field ends and the next begins included."""
    await intake.accept(body(), "key-1", Caller("p"))
    with pytest.raises(AlreadyRunning, match="Idempotency-Key"):
        await intake.accept(other, "key-1", Caller("p"))


@pytest.mark.parametrize("key", ["k", "k" * 255, "!~", '"quoted"'])
async def test_any_visible_ascii_is_a_key(intake: Intake, key: str) -> None:
    """Up to 255 characters."""
    await intake.accept(body(), key, Caller("p"))


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "é", "a\x00", "a\n"])
async def test_anything_else_is_no_key(intake: Intake, parts: Parts, key: str) -> None:
    """400, and nothing runs."""
    with pytest.raises(InvalidBody, match="Idempotency-Key header must have 1 to 255 visible ASCII characters"):
        await intake.accept(body(), key, Caller("p"))
    assert await parts.journal.counts() == {}


async def test_an_order_keeps_the_runner_it_was_accepted_under(intake: Intake, parts: Parts) -> None:
    """The catalog may change while it waits; one that is replayed keeps the first."""
    old = intake._catalogs.current.runners["shell"]
    _, accepted = await intake.accept(body("a"), "key", Caller("p"))
    changed = {"shell": {"memory": "32MiB", "match": {"suffixes": [".sh"]}}}
    intake._catalogs.replace(catalog_of(**changed))
    assert intake._catalogs.runner_of(accepted.run_id, "shell") == old
    await intake.accept(body("a"), "key", Caller("p"))
    assert intake._catalogs.runner_of(accepted.run_id, "shell") == old
    _, later = await intake.accept(body("b"), None, Caller("p"))
    assert intake._catalogs.runner_of(later.run_id, "shell") == intake._catalogs.current.runners["shell"]
    assert parts.readiness.warnings == {}


# --- a disk that does not write ----------------------------------------------------------------------------------


async def test_an_order_that_cannot_be_written_is_refused(parts: Parts) -> None:
    """503, nothing of it stays, and the agent is not ready any more; with room it is again."""
    intake = Intake(
        parts.journal,
        parts.audit,
        Tally(parts.audit, AuditEvent.TASK_REFUSED),
        parts.readiness,
        Catalogs(catalog.load()),
        max_queued=2,
        rerun_after_s=0,
        playbook_limit_bytes=10**6,
    )
    await parts.limit_journal(pages=1)
    large = body(content="x" * 500_000)
    with pytest.raises(Unavailable, match="cannot write durably"):
        await intake.accept(large, None, Caller("p"))
    assert "journal" in parts.readiness.problems
    assert await parts.journal.counts() == {}
    await parts.limit_journal(pages=10**6)
    await intake.accept(large, None, Caller("p"))
    assert parts.readiness.problems == {}


@pytest.mark.parametrize("part", ["disk", "file descriptors"])
async def test_without_room_nothing_is_taken_on(intake: Intake, parts: Parts, part: str) -> None:
    """503 with the reason, until there is room; what runs needs the rest for its result."""
    parts.readiness.report(part, "there is no room left")
    with pytest.raises(Unavailable, match="takes on no more tasks: there is no room left"):
        await intake.accept(body(), None, Caller("p"))
    assert await parts.journal.counts() == {}
    parts.readiness.report(part, None)
    await intake.accept(body(), None, Caller("p"))


async def test_an_audit_trail_that_cannot_be_written_is_reported(intake: Intake, parts: Parts) -> None:
    """The order stands in the journal, so it is accepted; the next ones wait until the disk is well."""
    good, full = os.dup(parts.audit._fd), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, parts.audit._fd)
    _, accepted = await intake.accept(body(), None, Caller("p"))
    assert accepted.status is TaskStatus.RUNNING
    assert "audit" in parts.readiness.problems
    os.dup2(good, parts.audit._fd)
    await intake.accept(body("u"), None, Caller("p"))
    assert parts.readiness.problems == {}
    assert (await parts.events()).count("task accepted") == 2
    os.close(good)
    os.close(full)


async def test_every_refusal_has_one_sentence(intake: Intake, parts: Parts) -> None:
    """Ready to be the detail of an answer."""
    parts.readiness.drain()
    for raw, key in ((b"{", None), (body(), " "), (body(), None), (body(content="x" * 2000), None)):
        with pytest.raises(Refused) as caught:
            await intake.accept(raw, key, Caller("p"))
        assert caught.value.detail.endswith(".")
        assert "\n" not in caught.value.detail
