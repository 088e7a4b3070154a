"""The walk of one attempt, from the queue to its result, with everything that can happen on the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent import clock
from agp_agent.ending import Ending
from agp_agent.engine import Helped, Image, PullPolicy, Signal
from agp_agent.errors import EngineError, EngineUnavailable
from agp_agent.journal import Journal, JournalUnavailable, Release
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.planner import Limits
from fakes.fake_host import FakeHost
from support.agent_parts import IMAGE, LIMITS, Parts, agent, catalog_of, machine
from support.async_waiting import until
from support.clock import SetClock
from support.orders import to_preparing


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost) -> AsyncIterator[Parts]:
    """An agent's parts, with a dispatcher that starts what is queued."""
    async with agent(tmp_path, host) as made:
        made.go(made.dispatcher.run())
        yield made


async def test_a_task_runs_and_its_result_is_posted(parts: Parts) -> None:
    """Its output, its exit code, and nothing left of it."""
    run_id = await parts.post("print hi\nerr there\nexit 0\n")
    verdict, due = await parts.result(run_id)
    assert verdict == Verdict(Outcome.SUCCEEDED, Reason.EXIT_CODE, None, 0)
    assert due.output.text() == "hi\nthere\n"
    await parts.clean()


async def test_a_failing_playbook_is_a_failed_task(parts: Parts) -> None:
    """With its exit code in one sentence."""
    verdict, due = await parts.result(await parts.post("print oh no\nexit 2\n"))
    assert verdict == Verdict(Outcome.FAILED, Reason.EXIT_CODE, "exit code 2", 2)
    assert due.output.text() == "oh no\n"


async def test_output_beyond_the_limit_keeps_head_and_tail(parts: Parts) -> None:
    """The limit is that of the settings."""
    _, due = await parts.result(await parts.post("fill 10000\nprint end\n"))
    assert due.output.total_bytes == 10_004
    assert due.output.omitted_bytes == 10_004 - LIMITS.output_limit_bytes
    assert due.output.text().endswith("xxend\n")


async def test_the_journal_knows_everything_before_it_happens(parts: Parts) -> None:
    """While it runs: container, slot, nonce, image, limits, and when it was released by the boot clock."""
    before_s = clock.boot_s()
    run_id = await parts.post("print begun\nforever\n")
    await parts.printed(run_id, b"begun")
    attempt = await parts.attempt(run_id)
    container = parts.container()
    assert attempt.state is State.RUNNING
    assert (attempt.container_id, attempt.slot) == (container.container_id, container.name)
    assert (attempt.image, attempt.image_digest) == (IMAGE, "sha256:1")
    assert (attempt.timeout_s, attempt.memory_bytes) == (60, 512 * 2**20)
    assert attempt.boot_id == clock.boot_id()
    assert attempt.released_boot_s is not None
    assert before_s <= attempt.released_boot_s <= clock.boot_s()
    assert attempt.nonce is not None
    assert len(attempt.nonce) == 32


async def test_beside_the_slot_stands_who_is_in_it(parts: Parts) -> None:
    """Enough to report the task if the journal were lost; never its content."""
    run_id = await parts.post("print begun\nforever\n", task_id="../t")
    await parts.printed(run_id, b"begun")
    (slot,) = (parts.folder / "slots").iterdir()
    note = json.loads((slot / "note.json").read_text())
    assert (note["task_id"], note["attempt"], note["run_id"], note["runner"]) == ("../t", 1, run_id, "shell")
    assert "forever" not in json.dumps(note)
    assert "t" not in slot.name.removeprefix("agp-")


async def test_nothing_of_a_task_is_on_the_container(parts: Parts) -> None:
    """Which task a container serves stands in the journal only."""
    run_id = await parts.post("print begun\nforever\n", task_id="very-special-id")
    await parts.printed(run_id, b"begun")
    container = parts.container()
    assert "very-special-id" not in f"{container.name} {container.labels} {container.command} {container.mounts}"


async def test_the_steps_are_audited_in_order(parts: Parts) -> None:
    """An image once, however many tasks use it; never the playbook."""
    for task_id in "ab":
        await parts.result(await parts.post("print secret-content\n", task_id))
        await parts.clean()
    assert await parts.events() == ["image resolved", "task started", "task finished", "task started", "task finished"]
    (started, _) = await parts.audited("task started")
    assert (started["task_id"], started["attempt"], started["runner"]) == ("a", 1, "shell")
    assert (started["image"], started["image_digest"]) == (IMAGE, "sha256:1")
    (ended, _) = await parts.audited("task finished")
    assert (ended["outcome"], ended["reason"], ended["exit_code"]) == ("succeeded", "exit_code", 0)
    assert ended["output_bytes"] == 15
    assert (ended["image_digest"], ended["container_id"]) == ("sha256:1", started["container_id"])
    assert 0 < ended["duration_s"] < clock.boot_s()
    assert "secret-content" not in (parts.folder / "audit.jsonl").read_text()


async def test_a_runner_that_the_catalog_has_no_more_ends_the_task(parts: Parts) -> None:
    """An earlier agent chose it."""
    verdict = await parts.verdict(await parts.post("print hi\n", runner="gone"))
    assert verdict == Verdict(Outcome.REJECTED, Reason.NO_RUNNER, "no runner for 'a.sh'; known runners: shell")


async def test_a_runners_own_timeout_goes_before_the_settings(tmp_path: Path, host: FakeHost) -> None:
    """And its number is in the sentence."""
    async with agent(tmp_path, host, catalog=catalog_of(short={"timeout_s": 0.05})) as parts:
        parts.go(parts.dispatcher.run())
        verdict = await parts.verdict(await parts.post("forever\n", runner="short"))
    assert verdict == Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, "timed out after 0.05 s", 143)


async def test_a_deaf_playbook_is_killed_after_the_grace(tmp_path: Path, host: FakeHost) -> None:
    """The output until then is delivered."""
    limits = Limits(task_timeout_s=0.2, stop_grace_s=0.05, output_limit_bytes=4096)
    async with agent(tmp_path, host, limits=limits) as parts:
        parts.go(parts.dispatcher.run())
        verdict, due = await parts.result(await parts.post("ignore TERM\nprint deaf\nforever\n"))
    assert verdict == Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, "timed out after 0.2 s", 137)
    assert due.output.text() == "deaf\n"


async def test_out_of_memory_is_said_with_the_limit(parts: Parts) -> None:
    """As the contract words it."""
    verdict = await parts.verdict(await parts.post("oom\n"))
    assert verdict == Verdict(Outcome.FAILED, Reason.OOM_KILLED, "killed: out of memory (limit 512 MiB)", 137)


async def test_a_kill_from_outside_is_said(parts: Parts) -> None:
    """Docker kill by an operator."""
    run_id = await parts.post("print begun\nforever\n")
    await parts.printed(run_id, b"begun")
    parts.host.signal(parts.container(), Signal.KILL)
    verdict, due = await parts.result(run_id)
    assert verdict == Verdict(Outcome.FAILED, Reason.KILLED_EXTERNALLY, "killed from outside", 137)
    assert due.output.text() == "begun\n"


# --- cancelling, in every state ----------------------------------------------------------------------------------

CANCELLED = Verdict(Outcome.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled")


async def test_a_queued_task_can_be_cancelled(parts: Parts) -> None:
    """No container is ever made for it."""
    parts.readiness.report("engine", "away")
    run_id = await parts.post("print hi\n")
    assert await parts.journal.request_cancel("t")
    assert await parts.verdict(run_id) == CANCELLED
    assert list(parts.host.events) == []


class GatedJournal(Journal):
    """A journal with a gate behind one of its writes: what a test does there falls between two steps of the walk."""

    gate_after: str
    reached: asyncio.Event
    go_on: asyncio.Event

    async def preparing(self, run_id: str, *, slot: str, image: str, timeout_s: float, memory_bytes: int) -> bool:
        """Write, then wait at the gate."""
        done = await super().preparing(run_id, slot=slot, image=image, timeout_s=timeout_s, memory_bytes=memory_bytes)
        await self._gate("preparing")
        return done

    async def running(self, run_id: str, release: Release) -> bool:
        """Write, then wait at the gate."""
        done = await super().running(run_id, release)
        await self._gate("running")
        return done

    async def _gate(self, name: str) -> None:
        if name == self.gate_after:
            self.reached.set()
            await self.go_on.wait()

    @classmethod
    def at(cls, name: str, path: Path, set_clock: SetClock) -> "GatedJournal":
        """Open a journal with a gate behind this write."""
        journal = cls(path, set_clock)
        journal.gate_after, journal.reached, journal.go_on = name, asyncio.Event(), asyncio.Event()
        return journal


@pytest.mark.parametrize("step", ["preparing", "running"])
async def test_a_cancel_between_two_steps_is_not_lost(tmp_path: Path, host: FakeHost, step: str) -> None:
    """Neither while the container is prepared nor between its release being noted and being done."""
    async with agent(tmp_path, host, journal=lambda path, set_clock: GatedJournal.at(step, path, set_clock)) as parts:
        journal = parts.journal
        assert isinstance(journal, GatedJournal)
        parts.go(parts.dispatcher.run())
        run_id = await parts.post("forever\n")
        await journal.reached.wait()
        assert await journal.request_cancel("t")
        journal.go_on.set()
        verdict = await parts.verdict(run_id)
        assert (verdict.outcome, verdict.error) == (Outcome.CANCELLED, "cancelled")
        await parts.clean()
        assert (await parts.events())[-1] == "task cancelled"


async def test_a_task_whose_image_is_being_pulled_can_be_cancelled(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pull may take minutes more; nothing is left of what was prepared, and its place is free."""
    pulling = asyncio.Event()

    async def forever(_name: str, _pull: PullPolicy) -> Image:
        pulling.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody rings")

    monkeypatch.setattr(parts.engine, "image", forever)
    run_id = await parts.post("print never\n")
    await pulling.wait()
    assert await parts.journal.request_cancel("t")
    assert await parts.verdict(run_id) == CANCELLED
    await parts.clean()


async def test_a_cancel_while_the_playbook_is_handed_over_is_not_lost(parts: Parts) -> None:
    """It is stopped as soon as it runs."""
    parts.slots.may_fill.clear()
    run_id = await parts.post("forever\n")
    await parts.slots.filling.wait()
    assert await parts.journal.request_cancel("t")
    parts.slots.may_fill.set()
    assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED


async def test_a_running_task_can_be_cancelled(parts: Parts) -> None:
    """By TERM; its output is delivered, and the cancel is audited."""
    run_id = await parts.post("print begun\nforever\n")
    await parts.printed(run_id, b"begun")
    assert await parts.journal.request_cancel("t")
    verdict, due = await parts.result(run_id)
    assert verdict == Verdict(Outcome.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled", 143)
    assert due.output.text() == "begun\n"
    await parts.clean()
    assert (await parts.events())[-2:] == ["task finished", "task cancelled"]


async def test_a_task_that_ended_by_itself_is_not_cancelled(parts: Parts) -> None:
    """Too late is told at once."""
    await parts.verdict(await parts.post("print hi\n"))
    assert not await parts.journal.request_cancel("t")


# --- what an engine refuses --------------------------------------------------------------------------------------


async def test_an_image_that_cannot_be_had_ends_the_task(parts: Parts) -> None:
    """With its name and the reason; the slot is gone."""
    parts.host.images.clear()
    verdict = await parts.verdict(await parts.post("print hi\n"))
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, Reason.IMAGE_UNAVAILABLE)
    assert verdict.error is not None
    assert verdict.error.startswith(f"image {IMAGE} is not available: ")
    await parts.clean()


async def test_a_weaker_container_is_refused_and_audited(parts: Parts) -> None:
    """The playbook is never shown to it."""
    parts.host.weaken = ("CapDrop", "ReadonlyRootfs")
    verdict = await parts.verdict(await parts.post("print hi\n"))
    assert verdict.outcome is Outcome.ERROR
    assert verdict.error is not None
    assert "CapDrop" in verdict.error
    (refused,) = await parts.audited("container refused")
    assert refused["runner"] == "shell"
    assert "ReadonlyRootfs" in refused["why"]
    assert parts.runs == {}
    await parts.clean()


async def test_a_network_that_cannot_be_fenced_in_ends_the_task(tmp_path: Path, host: FakeHost) -> None:
    """Its fence held when it was tried, and now it does not: with the sentence, audited, and never started."""
    async with agent(tmp_path, host, catalog=catalog_of(net={"network": "outbound"})) as parts:
        parts.go(parts.dispatcher.run())
        parts.go(parts.canary.run())
        await until(lambda: parts.reach.proofs, "its fence was tried")
        host.helper_answer = Helped(1, "no nftables")
        verdict, due = await parts.result(await parts.post("print hi\n", runner="net"))
        why = "the runner's network was not fenced in: its helper ended with 1 (no nftables)"
        assert verdict == Verdict(Outcome.ERROR, Reason.ENGINE_LOST, f"not started: {why}")
        assert due.output.text() == ""
        (refused,) = await parts.audited("container refused")
        assert (refused["runner"], refused["why"]) == ("net", why)
        assert await parts.audited("task started") == []
        await until(lambda: not host.containers, "nothing left")


async def test_an_engine_that_goes_away_while_a_fence_is_put_up_puts_the_task_back(
    tmp_path: Path, host: FakeHost
) -> None:
    """That says nothing about the fence: it is prepared anew in another container, and runs."""
    async with agent(tmp_path, host, catalog=catalog_of(net={"network": "outbound"})) as parts:
        parts.go(parts.dispatcher.run())
        parts.go(parts.canary.run())
        await until(lambda: parts.reach.proofs, "its fence was tried")
        parts.engine.errors["run_beside"] = EngineUnavailable("the engine does not answer")
        run_id = await parts.post("print hi\n", runner="net")
        await parts.heard("task requeued")
        assert await parts.audited("task started") == []
        del parts.engine.errors["run_beside"]
        parts.readiness.report("engine", None)  # the engine watch has looked
        verdict, due = await parts.result(run_id)
        assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")


async def test_a_container_that_cannot_start_ends_the_task(parts: Parts) -> None:
    """In the engine's words."""
    parts.host.start_error = "exec: no such file"
    verdict = await parts.verdict(await parts.post("print hi\n"))
    assert verdict.outcome is Outcome.ERROR
    assert "exec: no such file" in str(verdict.error)


async def test_when_no_user_is_free_the_task_waits_for_one(tmp_path: Path, host: FakeHost) -> None:
    """What has ended keeps its own until it is removed: no task fails of that, and one that is cancelled ends."""
    async with agent(tmp_path, host, uids=range(20000, 20001)) as parts:
        parts.go(parts.dispatcher.run())
        first = await parts.post("print begun\nforever\n", "first")
        await parts.printed(first, b"begun")
        second, third = [await parts.post("print hi\n", task_id) for task_id in ("second", "third")]
        await parts.in_state(second, State.PREPARING)
        await parts.journal.request_cancel("third")
        assert (await parts.verdict(third)).reason is Reason.CANCEL_REQUESTED
        await parts.journal.request_cancel("first")
        assert (await parts.verdict(second)).outcome is Outcome.SUCCEEDED


# --- an engine that goes away ------------------------------------------------------------------------------------


async def test_an_engine_that_is_away_puts_the_task_back(parts: Parts) -> None:
    """No try is lost; the engine is reported, and it runs when the engine is back."""
    parts.engine.go_away()
    run_id = await parts.post("print hi\n")
    await until(lambda: parts.readiness.problems, "the report")
    assert parts.readiness.doubted.is_set()
    attempt = await parts.in_state(run_id, State.QUEUED)
    assert (attempt.tries, attempt.slot) == (0, None)
    await parts.heard("task requeued")
    await parts.engine.come_back(restarted=True)
    parts.readiness.report("engine", None)
    assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED


async def test_an_engine_that_goes_away_at_the_hand_over_puts_the_task_back(parts: Parts) -> None:
    """It has not started: the line was never sent; that costs no try."""
    parts.slots.fill_errors = [EngineUnavailable("gone")]
    run_id = await parts.post("print hi\n")
    await until(lambda: parts.readiness.problems, "the report")
    attempt = await parts.in_state(run_id, State.QUEUED)
    assert attempt.tries == 0
    parts.readiness.report("engine", None)
    verdict, due = await parts.result(run_id)
    assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")


async def test_an_engine_that_is_replaced_while_a_task_runs(parts: Parts) -> None:
    """With live-restore the task ends as if nothing had been."""
    run_id = await parts.post("print one\nsleep 0.1\nprint two\nexit 3\n")
    await parts.printed(run_id, b"one")
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True)
    verdict, due = await parts.result(run_id)
    assert (verdict.error, due.output.text()) == ("exit code 3", "one\ntwo\n")


async def test_an_engine_that_refuses_to_tell_the_end_makes_the_task_lost(parts: Parts) -> None:
    """With its sentence: asking again would end the same way."""
    parts.engine.errors["wait"] = EngineError("the engine refused (500): no state of it")
    verdict = await parts.verdict(await parts.post("print hi\n"))
    assert (verdict.outcome, verdict.reason) == (Outcome.LOST, Reason.ENGINE_LOST)
    assert "refused to tell how it ended: the engine refused (500): no state of it" in str(verdict.error)
    await parts.clean()


async def test_a_container_that_vanishes_is_lost(parts: Parts) -> None:
    """Removed while the engine was away, so that nobody saw its end."""
    run_id = await parts.post("print begun\nforever\n")
    await parts.printed(run_id, b"begun")
    parts.engine.go_away()
    await parts.host.remove(parts.container())
    await parts.engine.come_back(restarted=False)
    verdict, due = await parts.result(run_id)
    assert verdict.outcome is Outcome.LOST
    assert verdict.error == "lost: the container was removed from outside"
    assert due.output.text() == "begun\n"
    await parts.heard("task lost")


# --- playbooks that never started --------------------------------------------------------------------------------


async def test_a_hand_over_that_fails_is_tried_again(parts: Parts) -> None:
    """In a new container; the old one is gone."""
    parts.slots.fill_errors = [EngineError("refused"), EngineError("refused again")]
    verdict, due = await parts.result(await parts.post("print hi\n"))
    assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
    assert (await parts.events()).count("task requeued") == 2
    await parts.clean()


async def test_a_disk_that_is_full_costs_no_try(parts: Parts) -> None:
    """It is reported, nothing more starts until it is well, and the runner is not blamed."""
    parts.slots.fill_errors = [OSError(28, "No space left on device")] * 5
    run_id = await parts.post("print hi\n")
    for _ in range(5):
        await until(lambda: "No space left" in parts.readiness.problems.get("disk", ""), "the report")
        assert (await parts.in_state(run_id, State.QUEUED)).tries == 0
        parts.readiness.report("disk", None)
    verdict, due = await parts.result(run_id)
    assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
    await parts.clean()


async def test_a_slot_that_cannot_be_made_costs_no_try(parts: Parts) -> None:
    """The disk is reported, and the task waits until it is well."""
    (parts.folder / "slots").rmdir()
    run_id = await parts.post("print hi\n")
    await until(lambda: "No such file" in parts.readiness.problems.get("disk", ""), "the report")
    attempt = await parts.in_state(run_id, State.QUEUED)
    assert (attempt.tries, attempt.slot) == (0, None)
    (parts.folder / "slots").mkdir()
    parts.readiness.report("disk", None)
    verdict, due = await parts.result(run_id)
    assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
    await parts.clean()


async def test_after_three_containers_that_never_started_it_the_task_ends(parts: Parts) -> None:
    """The runner is at fault."""
    parts.slots.fill_errors = [EngineError(f"refused {number}") for number in range(3)]
    verdict = await parts.verdict(await parts.post("print hi\n"))
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, Reason.IMAGE_UNAVAILABLE)
    assert "did not start the playbook in 3 containers (refused 2)" in str(verdict.error)
    assert parts.slots.fill_errors == []
    await parts.clean()


async def kill_before_release(parts: Parts) -> None:
    """Kill the prepared container while the playbook is handed over: its entry never prints a marker."""
    parts.slots.may_fill.clear()
    await parts.slots.filling.wait()
    parts.slots.filling.clear()
    (container,) = [one for one in parts.host.containers.values() if one.running]
    parts.host.signal(container, Signal.KILL)
    await until(lambda: container.ended is not None, "its end")
    parts.slots.may_fill.set()


async def test_a_container_that_ends_before_its_marker_is_replaced(parts: Parts) -> None:
    """Twice; the third time the task is given up."""
    parts.slots.may_fill.clear()
    run_id = await parts.post("print hi\n")
    await kill_before_release(parts)
    await kill_before_release(parts)
    verdict, due = await parts.result(run_id)
    assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
    assert (await parts.attempt(run_id)).tries == 2
    await parts.clean()


async def test_the_third_container_that_ends_before_its_marker_is_the_last(parts: Parts) -> None:
    """No endless loop."""
    parts.slots.may_fill.clear()
    run_id = await parts.post("print hi\n")
    for _ in range(3):
        await kill_before_release(parts)
    verdict = await parts.verdict(run_id)
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, Reason.IMAGE_UNAVAILABLE)
    assert "before the playbook" in str(verdict.error)
    await parts.clean()


async def test_where_nobody_can_tell_whether_it_started_it_is_lost(parts: Parts) -> None:
    """The engine was replaced between hand-over and marker: it is never run again by guess."""
    parts.slots.may_fill.clear()
    run_id = await parts.post("print hi\n")
    await parts.slots.filling.wait()
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True, kill_running=True)
    parts.slots.may_fill.set()
    verdict = await parts.verdict(run_id)
    assert (verdict.outcome, verdict.reason) == (Outcome.LOST, Reason.ENGINE_LOST)
    await parts.heard("task lost")
    assert "task requeued" not in await parts.events()


async def test_a_task_that_was_cancelled_and_never_started_is_cancelled(parts: Parts) -> None:
    """Not put back."""
    parts.slots.may_fill.clear()
    run_id = await parts.post("print hi\n")
    await parts.slots.filling.wait()
    (container,) = parts.host.containers.values()
    parts.host.signal(container, Signal.KILL)
    await until(lambda: container.ended is not None, "its end")
    await parts.journal.request_cancel("t")
    parts.slots.may_fill.set()
    assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED


# --- an earlier agent's --------------------------------------------------------------------------------------------


async def test_an_attempt_nobody_knows_is_no_error(parts: Parts) -> None:
    """It was purged meanwhile."""
    await parts.walk.run("nobody", "shell")
    assert parts.walk.places.active == {}


# --- a disk that is full -----------------------------------------------------------------------------------------


async def test_a_full_disk_does_not_keep_a_container_alive(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent asks for cannot be written down first: it is reported, and done all the same."""

    async def refuse(run_id: str, reason: Reason) -> None:
        raise JournalUnavailable(f"no room for {reason} of {run_id}")

    run_id = await parts.post("print begun\nforever\n")
    await parts.printed(run_id, b"begun")
    monkeypatch.setattr(parts.journal, "asked", refuse)
    await parts.journal.request_cancel("t")
    assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED
    await parts.clean()


async def test_an_end_that_cannot_be_written_is_written_when_there_is_room(tmp_path: Path, host: FakeHost) -> None:
    """Until then container and output are kept, and the journal is reported."""
    limits = Limits(task_timeout_s=60, stop_grace_s=1, output_limit_bytes=2**18)
    async with agent(tmp_path, host, limits=limits) as parts:
        parts.go(parts.dispatcher.run())
        run_id = await parts.post("print begun\nsleep 0.05\nfill 200000\n")
        await parts.printed(run_id, b"begun")
        await parts.limit_journal(pages=1)
        await until(lambda: "journal" in parts.readiness.problems, "the report")
        assert await parts.journal.verdict(run_id) is None
        assert len(parts.host.containers) == 1
        assert (parts.folder / "spool" / parts.container().name).exists()
        await parts.limit_journal(pages=10**6)
        _, due = await parts.result(run_id)
        assert due.output.total_bytes == 200_006
        await until(lambda: not parts.readiness.problems, "all well")
        await parts.clean()


async def test_a_start_that_cannot_be_written_begins_again_as_soon_as_it_can(tmp_path: Path, host: FakeHost) -> None:
    """Nobody has to come by: the walk itself puts the attempt back, and removes what was prepared."""
    to_refuse = ["running", "requeue"]

    class Locked(Journal):
        """Cannot write some steps down at first, as if another process held the file."""

        async def running(self, run_id: str, release: Release) -> bool:
            """Refuse once."""
            self._refuse_once("running")
            return await super().running(run_id, release)

        async def requeue(self, run_id: str, *, slot: str, seen: State, failed_try: bool) -> bool:
            """Refuse once."""
            self._refuse_once("requeue")
            return await super().requeue(run_id, slot=slot, seen=seen, failed_try=failed_try)

        def _refuse_once(self, step: str) -> None:
            if step in to_refuse:
                to_refuse.remove(step)
                raise JournalUnavailable("the journal cannot be written: database is locked")

    async with agent(tmp_path, host, journal=Locked) as parts:
        parts.go(parts.dispatcher.run())
        run_id = await parts.post("print hi\n")
        await parts.heard("task requeued")
        assert parts.readiness.problems == {"journal": "the journal cannot be written: database is locked"}
        parts.readiness.report("journal", None)
        assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED
        await parts.clean()
        assert (await parts.events()).count("task started") == 1


async def test_a_container_that_cannot_be_removed_now_is_left_to_the_reconciler(parts: Parts) -> None:
    """The result is written; an engine that is away costs nothing but a second look."""
    run_id = await parts.post("print begun\nforever\n")
    run = await parts.printed(run_id, b"begun")
    ending = Ending(parts.journal, parts.executor, parts.audit, parts.readiness, parts.catalogs)
    parts.engine.go_away()
    await ending.discard(run.slot)
    assert (parts.folder / "slots" / run.slot).exists()


async def test_what_was_put_back_is_in_the_trail_before_it_can_be_prepared_again(parts: Parts) -> None:
    """On disk: else an agent that dies now leaves a start that the next one takes for forgotten."""
    await parts.freeze()
    run_id = await parts.post("print hi\n")
    await to_preparing(parts.journal, run_id, "agp-1")
    ending = Ending(parts.journal, parts.executor, parts.audit, parts.readiness, parts.catalogs)
    await ending.requeue(await parts.attempt(run_id), "agp-1", State.PREPARING, "why")
    on_disk = [json.loads(line)["event"] for line in (parts.folder / "audit.jsonl").read_bytes().splitlines()]
    assert on_disk[-1] == "task requeued"


async def test_an_attempt_ends_once(parts: Parts) -> None:
    """Whoever comes second changes nothing, and audits nothing."""
    run_id = await parts.post("print hi\n")
    verdict = await parts.verdict(run_id)
    await parts.clean()
    before = await parts.events()
    ending = Ending(parts.journal, parts.executor, parts.audit, parts.readiness, parts.catalogs)
    await ending.finish(await parts.attempt(run_id), CANCELLED)
    await ending.requeue(await parts.attempt(run_id), "agp-1", State.RUNNING, "why")
    assert await parts.journal.verdict(run_id) == verdict
    assert await parts.events() == before
