"""The reconciler: what the next agent makes of what an earlier one left."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent import clock
from agp_agent.audit import AuditEvent
from agp_agent.engine import ContainerState, Signal
from agp_agent.errors import EngineUnavailable
from agp_agent.journal import Delivery
from agp_agent.lifecycle import Outcome, Reason, State, Verdict
from agp_agent.reconciler import Reconciler
from fakes.fake_engine import FakeEngine
from fakes.fake_host import FakeHost
from support.agent_parts import LABELS, Parts, agent, machine, wipe
from support.async_waiting import settle, until, until_async
from support.orders import PRINTED, SUCCESS, due_now, finished, put_back, release, to_preparing


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine, which outlives its agents."""
    async with machine() as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost) -> AsyncIterator[Parts]:
    """An agent's parts without anything running."""
    async with agent(tmp_path, host) as made:
        yield made


@contextlib.asynccontextmanager
async def restarted(folder: Path, host: FakeHost, **options: object) -> AsyncIterator[Parts]:
    """The next agent on the same state directory: it reconciles before it starts anything."""
    async with agent(folder, host, **options) as parts:
        await parts.reconciler.reconcile()
        parts.go(parts.dispatcher.run())
        yield parts


async def left_behind(folder: Path, host: FakeHost, playbook: str, printed: bytes = b"begun") -> str:
    """Run a playbook until it printed something, then stop the agent around it; return the run_id."""
    async with agent(folder, host) as parts:
        parts.go(parts.dispatcher.run())
        run_id = await parts.post(playbook)
        await parts.printed(run_id, printed)
    assert parts.container().running
    return run_id


# --- after a restart of the agent --------------------------------------------------------------------------------


async def test_a_running_container_is_adopted_and_seen_to_its_end(tmp_path: Path, host: FakeHost) -> None:
    """Its output is whole, its exit code exact, and nothing is left of it."""
    run_id = await left_behind(tmp_path, host, "print begun\nsleep 0.5\nprint end\nexit 3\n")
    async with restarted(tmp_path, host) as parts:
        verdict, due = await parts.result(run_id)
        assert (verdict.error, due.output.text()) == ("exit code 3", "begun\nend\n")
        await parts.clean()
        await parts.reconciler.idle()
        assert "task adopted" in await parts.events()
        assert (await parts.events()).count("task started") == 1


async def test_a_container_that_exited_meanwhile_is_finished(tmp_path: Path, host: FakeHost) -> None:
    """From what the engine kept."""
    run_id = await left_behind(tmp_path, host, "print begun\nsleep 0.5\nprint end\n")
    (container,) = host.containers.values()
    await until(lambda: container.ended is not None, "its end")
    async with restarted(tmp_path, host) as parts:
        verdict, due = await parts.result(run_id)
        assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "begun\nend\n")
        await parts.clean()


async def test_a_stop_for_a_cancel_that_could_not_be_noted_is_no_foreign_kill(tmp_path: Path, host: FakeHost) -> None:
    """The earlier agent's disk was full when it stopped the container; that the task was cancelled stands there."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    (container,) = host.containers.values()
    async with agent(tmp_path, host) as parts:
        assert await parts.journal.request_cancel((await parts.attempt(run_id)).task_id)
        await parts.engine.signal(container.container_id, Signal.TERM)
        await until(lambda: container.ended is not None, "its end")
    async with restarted(tmp_path, host) as parts:
        assert (await parts.verdict(run_id)).reason is Reason.CANCEL_REQUESTED


async def test_what_was_queued_is_started(tmp_path: Path, host: FakeHost) -> None:
    """In its order, by the next agent."""
    async with agent(tmp_path, host) as parts:
        run_ids = [await parts.post("print hi\n", name) for name in "ab"]
    async with restarted(tmp_path, host) as parts:
        for run_id in run_ids:
            assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED
        assert len(await parts.audited("task started")) == 2


async def test_a_container_that_is_gone_makes_its_task_lost(tmp_path: Path, host: FakeHost) -> None:
    """It is said, with the output that is left, and never run again by guess."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    (container,) = host.containers.values()
    await host.remove(container)
    async with restarted(tmp_path, host) as parts:
        verdict = await parts.verdict(run_id)
        assert verdict == Verdict(
            Outcome.LOST, Reason.CONTAINER_MISSING, "lost: its container is gone, and nobody saw how it ended"
        )
        _, due = await parts.result(run_id)
        assert (due.output.head, due.output.at_least) == (b"begun\n", True)
        await parts.heard("task lost")
        await parts.reconciler.reconcile()
        await parts.clean()


async def test_what_was_prepared_and_not_released_starts_over(tmp_path: Path, host: FakeHost) -> None:
    """The old container is gone; no try is counted; it runs once."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        parts.slots.may_fill.clear()
        run_id = await parts.post("print hi\n")
        await parts.slots.filling.wait()
        await parts.freeze()
        attempt = await parts.attempt(run_id)
        assert await put_back(parts.journal, run_id)  # as if it had died one step earlier
        assert await to_preparing(parts.journal, run_id, attempt.slot or "")
    assert len(host.containers) == 1
    async with restarted(tmp_path, host) as parts:
        verdict, due = await parts.result(run_id)
        assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
        assert (await parts.attempt(run_id)).tries == 0
        await parts.clean()


async def test_a_release_that_was_noted_and_not_done_runs_once(tmp_path: Path, host: FakeHost) -> None:
    """The agent died between the two: its container ended without a marker, so it is started again."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        parts.slots.may_fill.clear()
        run_id = await parts.post("print hi\n")
        await parts.slots.filling.wait()
    async with restarted(tmp_path, host) as parts:
        verdict, due = await parts.result(run_id)
        assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
        assert (await parts.attempt(run_id)).tries == 0  # it was the agent that ended, not its runner that failed
        await parts.clean()


async def test_what_was_never_handed_over_runs_once_though_the_engine_was_replaced(
    tmp_path: Path, host: FakeHost
) -> None:
    """Its slot is as it was made: the agent died before it could release anything. Also where its container is gone."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        parts.slots.may_fill.clear()
        run_ids = [await parts.post("print hi\n", task_id) for task_id in "ab"]
        for run_id in run_ids:
            await parts.in_state(run_id, State.RUNNING)
    await host.forget(kill_running=True)
    await host.remove(next(iter(host.containers.values())))
    async with restarted(tmp_path, host) as parts:
        for run_id in run_ids:
            verdict, due = await parts.result(run_id)
            assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
        await parts.clean()


async def test_a_slot_that_is_gone_proves_nothing(tmp_path: Path, host: FakeHost) -> None:
    """Somebody removed it: whether there was a playbook in it, nobody knows."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        parts.slots.may_fill.clear()
        run_id = await parts.post("print hi\n")
        await parts.slots.filling.wait()
    wipe(tmp_path / "slots")
    await host.forget(kill_running=True)
    async with restarted(tmp_path, host) as parts:
        assert (await parts.verdict(run_id)).reason is Reason.ENGINE_LOST


async def test_a_release_that_was_noted_is_lost_where_the_engine_was_replaced(tmp_path: Path, host: FakeHost) -> None:
    """Its playbook had been handed over, and nobody can tell whether it started."""
    async with agent(tmp_path, host) as parts:
        parts.go(parts.dispatcher.run())
        parts.slots.may_fill.clear()
        run_id = await parts.post("print hi\n")
        await parts.slots.filling.wait()
        slot = (await parts.attempt(run_id)).slot or ""
    (tmp_path / "slots" / slot / "note.json").touch()
    await host.forget(kill_running=True)
    async with restarted(tmp_path, host) as parts:
        assert (await parts.verdict(run_id)).reason is Reason.ENGINE_LOST
        await parts.clean()


async def test_a_container_that_was_created_and_never_started_starts_over(parts: Parts) -> None:
    """A row that says running, and a container that never did."""
    run_id = await parts.post("print hi\n")
    container = parts.host.plant("agp-1", LABELS | {"agp.slot": "agp-1"})
    await to_preparing(parts.journal, run_id, "agp-1")
    await parts.journal.running(run_id, release(container.container_id))
    await parts.reconciler.reconcile()
    attempt = await parts.attempt(run_id)
    assert (attempt.state, attempt.tries) == (State.QUEUED, 0)
    assert not parts.host.containers


async def test_a_cancel_is_remembered_over_a_restart(tmp_path: Path, host: FakeHost) -> None:
    """Noted by one agent, done by the next."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    async with agent(tmp_path, host) as parts:
        await parts.journal.request_cancel("t")
        await parts.reconciler.reconcile()
        assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED


async def test_an_adopted_task_can_be_cancelled(tmp_path: Path, host: FakeHost) -> None:
    """As one of the agent's own."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    async with restarted(tmp_path, host) as parts:
        assert await parts.journal.request_cancel("t")
        assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED


async def released_s_ago(parts: Parts, playbook: str, seconds: float, boot_id: str) -> str:
    """Leave a running container that was released so long ago in this boot."""
    parts.go(parts.dispatcher.run())
    run_id = await parts.post(playbook)
    await parts.printed(run_id, b"begun")
    attempt = await parts.attempt(run_id)
    assert attempt.slot is not None
    assert attempt.container_id is not None
    await parts.freeze()
    assert await put_back(parts.journal, run_id)
    assert await to_preparing(parts.journal, run_id, attempt.slot)
    noted = release(
        attempt.container_id, nonce=attempt.nonce, boot_id=boot_id, released_boot_s=clock.boot_s() - seconds
    )
    assert await parts.journal.running(run_id, noted)
    return run_id


async def test_the_deadline_counts_over_the_time_without_an_agent(tmp_path: Path, host: FakeHost) -> None:
    """By the boot clock: one that is over ends the task at once."""
    async with agent(tmp_path, host) as parts:
        run_id = await released_s_ago(parts, "print begun\nforever\n", 61, clock.boot_id())
    async with restarted(tmp_path, host) as parts:
        verdict = await parts.verdict(run_id)
        assert verdict == Verdict(Outcome.TIMED_OUT, Reason.DEADLINE, "timed out after 60 s", 143)


async def test_the_clock_of_another_boot_says_nothing(tmp_path: Path, host: FakeHost) -> None:
    """The deadline begins anew rather than kill a healthy task."""
    async with agent(tmp_path, host) as parts:
        run_id = await released_s_ago(parts, "print begun\nsleep 0.5\nexit 0\n", 10**6, "another boot")
    async with restarted(tmp_path, host) as parts:
        assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED


async def test_an_end_before_the_deadline_counts_however_late_it_is_seen(tmp_path: Path, host: FakeHost) -> None:
    """The container had ended while no agent was there: the deadline did not do it."""
    async with agent(tmp_path, host) as parts:
        run_id = await released_s_ago(parts, "print begun\nforever\n", 10**6, clock.boot_id())
        host.signal(parts.container(), Signal.KILL)
        await until(lambda: parts.container().ended is not None, "its end")
    async with restarted(tmp_path, host) as parts:
        assert (await parts.verdict(run_id)).reason is Reason.KILLED_EXTERNALLY


async def test_adopted_tasks_hold_places(tmp_path: Path, host: FakeHost) -> None:
    """Nothing new starts beyond the limit beside them."""
    await left_behind(tmp_path, host, "print begun\nforever\n")
    async with restarted(tmp_path, host, max_running=1) as parts:
        waiting = await parts.post("print hi\n", "second")
        await parts.journal.counts()
        await settle()
        assert (await parts.attempt(waiting)).state is State.QUEUED
        await parts.journal.request_cancel("t")
        assert (await parts.verdict(waiting)).outcome is Outcome.SUCCEEDED


async def test_an_adopted_container_keeps_its_user(tmp_path: Path, host: FakeHost) -> None:
    """The next container gets another."""
    await left_behind(tmp_path, host, "print begun\nforever\n")
    (old,) = host.containers.values()
    uid = int(old.labels["agp.uid"])
    async with restarted(tmp_path, host, uids=range(uid, uid + 2)) as parts:
        run_id = await parts.post("print begun\nforever\n", "second")
        await parts.printed(run_id, b"begun")
        assert len({container.labels["agp.uid"] for container in host.containers.values()}) == 2


async def test_reconciling_again_changes_nothing(tmp_path: Path, host: FakeHost) -> None:
    """What is taken over already is left alone; so is what the dispatcher started."""
    await left_behind(tmp_path, host, "print begun\nforever\n")
    async with restarted(tmp_path, host) as parts:
        second = await parts.post("print begun\nforever\n", "second")
        await parts.printed(second, b"begun")
        for _ in range(3):
            await parts.reconciler.reconcile(grace_s=0)
        assert (await parts.events()).count("task adopted") == 1
        assert len(host.containers) == len(parts.walk.places.active) == 2
        assert all(container.running for container in host.containers.values())


async def test_many_restarts_in_a_row_converge(tmp_path: Path, host: FakeHost) -> None:
    """One run, one result, nothing left."""
    run_id = await left_behind(tmp_path, host, "print begun\nsleep 1\nprint end\nexit 0\n")
    for _ in range(5):
        async with restarted(tmp_path, host):
            await settle()
    async with restarted(tmp_path, host) as parts:
        verdict, due = await parts.result(run_id)
        assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "begun\nend\n")
        await parts.reconciler.idle()
        for _ in range(2):  # an agent may have stopped between result and removal: containers first, then slots
            await parts.reconciler.reconcile(grace_s=-1)
        await parts.clean()
        assert (await parts.events()).count("task started") == 1


# --- left-overs --------------------------------------------------------------------------------------------------


async def test_left_over_containers_are_removed_after_a_grace(parts: Parts) -> None:
    """Only the agent's own; a young one may be a helper at work, and one of the future is not young."""
    await parts.reconciler.reconcile()
    mine = parts.host.plant("agp-old", LABELS | {"agp.slot": "agp-old"})
    helper = parts.host.plant("helper", LABELS)
    other = parts.host.plant("agp-other", {**LABELS, "agp.instance": "another"})
    stranger = parts.host.plant("database", {})
    await parts.reconciler.reconcile()
    assert set(parts.host.containers) == {one.container_id for one in (mine, helper, other, stranger)}
    for container, seconds in ((mine, -61), (helper, 86400), (other, -61), (stranger, -61)):
        container.created_at_s += seconds
    await parts.reconciler.reconcile()
    assert set(parts.host.containers) == {other.container_id, stranger.container_id}


async def test_what_is_there_at_the_first_look_was_left_by_an_earlier_agent(parts: Parts) -> None:
    """It goes at once, however young, with its slot: none of this agent's helpers is at work yet."""
    parts.host.plant("agp-young", LABELS | {"agp.slot": "agp-young"})
    (parts.folder / "slots/agp-young").mkdir()
    await parts.reconciler.reconcile()
    assert parts.host.containers == {}
    assert list((parts.folder / "slots").iterdir()) == []


async def test_left_over_slots_and_spools_are_removed(parts: Parts) -> None:
    """Those that no row and no container needs."""
    await parts.reconciler.reconcile()
    for name in ("slots/agp-a/playbook", "slots/agp-b"):
        (parts.folder / name).mkdir(parents=True)
    (parts.folder / "spool/agp-c").write_bytes(b"x")
    young = parts.host.plant("agp-b", LABELS | {"agp.slot": "agp-b"})
    await parts.reconciler.reconcile()
    assert [path.name for path in (parts.folder / "slots").iterdir()] == ["agp-b"]
    assert list((parts.folder / "spool").iterdir()) == []
    assert young.container_id in parts.host.containers


async def test_a_container_that_outlived_its_result_goes(tmp_path: Path, host: FakeHost) -> None:
    """The agent died between the two: no second result comes of it."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    async with agent(tmp_path, host) as parts:
        await parts.journal.finish(run_id, SUCCESS, PRINTED)
        await parts.reconciler.reconcile(grace_s=-1)
        await parts.reconciler.reconcile(grace_s=-1)
        await parts.clean()
        assert len(await parts.journal.due(limit=9, skip=[], horizon_ms=10**9)) == 1


async def test_the_slots_of_open_attempts_are_needed(parts: Parts) -> None:
    """Prepared or running ones, whoever works on them."""
    run_id = await parts.post("print hi\n")
    parts.walk.places.active[run_id] = "shell"
    await to_preparing(parts.journal, run_id, "agp-1")
    (parts.folder / "slots/agp-1").mkdir()
    container = parts.host.plant("agp-1", LABELS | {"agp.slot": "agp-1"})
    container.created_at_s -= 1000
    await parts.reconciler.reconcile()
    assert container.container_id in parts.host.containers
    assert (parts.folder / "slots/agp-1").exists()


# --- an engine that is away --------------------------------------------------------------------------------------


async def test_nothing_is_judged_without_the_engine(tmp_path: Path, host: FakeHost) -> None:
    """A container that cannot be seen is not gone."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    async with agent(tmp_path, host) as parts:
        parts.engine.go_away()
        with pytest.raises(EngineUnavailable):
            await parts.reconciler.reconcile()
        assert (await parts.attempt(run_id)).state is State.RUNNING
        await parts.engine.come_back(restarted=False)
        await parts.reconciler.reconcile()
        await parts.journal.request_cancel("t")
        assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED


class SlowToInspect(FakeEngine):
    """An engine that answers inspections when a test lets it."""

    def __init__(self, host: FakeHost) -> None:
        """Nothing is answered yet."""
        super().__init__(host)
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def inspect(self, container_id: str) -> ContainerState:
        """Wait, then answer."""
        self.asked.set()
        await self.may_answer.wait()
        return await super().inspect(container_id)


async def test_two_reconciliations_do_not_overlap(tmp_path: Path, host: FakeHost) -> None:
    """One at the contact and one of the minute: each container is adopted once."""
    await left_behind(tmp_path, host, "print begun\nforever\n")
    async with agent(tmp_path, host) as parts:
        engine = SlowToInspect(host)
        await engine.open()
        reconciler = Reconciler(
            parts.journal, engine, parts.executor, parts.walk, parts.pool, parts.audit, LABELS, retention_s=1000
        )
        first, second = [parts.go(reconciler.reconcile()) for _ in range(2)]
        await engine.asked.wait()
        for _ in range(5):  # the second gets as far as it can
            await parts.journal.counts()
            await settle()
        engine.may_answer.set()
        await asyncio.gather(first, second)
        await until(lambda: parts.runs, "the adoption")
        await parts.journal.counts()
        await settle()
        assert (await parts.events()).count("task adopted") == 1
        await reconciler.aclose()


async def test_letting_go_leaves_adopted_containers_running(tmp_path: Path, host: FakeHost) -> None:
    """For the agent after this one."""
    await left_behind(tmp_path, host, "print begun\nforever\n")
    async with restarted(tmp_path, host) as parts:
        await until(lambda: parts.runs, "the adoption")
        await parts.reconciler.aclose()
        assert parts.container().running


async def test_a_kill_while_no_agent_was_there_is_told_apart(tmp_path: Path, host: FakeHost) -> None:
    """The engine remembers it."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    (container,) = host.containers.values()
    host.signal(container, Signal.KILL)
    await until(lambda: container.ended is not None, "its end")
    async with restarted(tmp_path, host) as parts:
        assert (await parts.verdict(run_id)).reason is Reason.KILLED_EXTERNALLY


async def test_what_is_finished_is_none_of_its_business(parts: Parts) -> None:
    """Results wait in the outbox for the loop that delivers them."""
    run_id = await finished(parts.journal, "done")
    await parts.reconciler.reconcile()
    assert (await parts.attempt(run_id)).state is State.FINISHED


async def _told(parts: Parts, event: str) -> bool:
    return event in await parts.events()


async def test_the_loop_goes_on_over_an_engine_that_is_away(
    tmp_path: Path, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again a minute later, adopts what runs, and bounds what is kept."""
    monkeypatch.setattr("agp_agent.reconciler._EVERY_S", 0.001)
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    async with agent(tmp_path, host) as parts:
        await finished(parts.journal, "nobody took it")
        parts.clock.advance(1001)
        parts.engine.go_away()
        parts.go(parts.reconciler.run())
        calls = parts.engine.calls
        await until(lambda: parts.engine.calls > calls + 3, "some tries")
        await parts.engine.come_back(restarted=False)

        async def look() -> bool:
            return Delivery.DEAD_LETTER in await parts.journal.counts()

        await until_async(look, "the dead letter")
        await until_async(lambda: _told(parts, "task dead-lettered"), "its audit event")
        await parts.journal.request_cancel("t")
        assert (await parts.verdict(run_id)).outcome is Outcome.CANCELLED


async def test_what_was_delivered_is_not_forgotten_before_the_trail_has_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next agent would think that the journal has forgotten it. The disk is full for real, for a while."""
    monkeypatch.setattr("agp_agent.reconciler._EVERY_S", 0.001)
    run_id = await finished(parts.journal, "t")
    good, full = os.dup(parts.audit._fd), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, parts.audit._fd)
    (seq,) = await due_now(parts.journal)
    await parts.journal.acknowledge(seq)
    parts.audit.record(AuditEvent.TASK_DELIVERED, task_id="t", attempt=1, run_id=run_id)
    parts.clock.advance(1001)
    parts.go(parts.reconciler.run())
    calls = parts.engine.calls
    await until(lambda: parts.engine.calls > calls + 10, "some tries")
    assert await parts.journal.attempt(run_id) is not None
    os.dup2(good, parts.audit._fd)

    async def is_forgotten() -> bool:
        return await parts.journal.attempt(run_id) is None

    await until_async(is_forgotten, "it to be forgotten")
    os.close(good)
    os.close(full)


async def test_a_container_that_vanishes_while_it_is_looked_at_is_lost(tmp_path: Path, host: FakeHost) -> None:
    """It was on the list, and then it was not."""
    run_id = await left_behind(tmp_path, host, "print begun\nforever\n")
    async with agent(tmp_path, host) as parts:
        engine = SlowToInspect(host)
        await engine.open()
        reconciler = Reconciler(
            parts.journal, engine, parts.executor, parts.walk, parts.pool, parts.audit, LABELS, retention_s=1000
        )
        looking = parts.go(reconciler.reconcile())
        await engine.asked.wait()
        await host.remove(parts.container())
        engine.may_answer.set()
        await looking
        assert (await parts.verdict(run_id)).reason is Reason.CONTAINER_MISSING


async def test_idle_waits_for_what_was_taken_over(tmp_path: Path, host: FakeHost) -> None:
    """Draining must not leave it alone too early."""
    await left_behind(tmp_path, host, "print begun\nforever\n")
    async with restarted(tmp_path, host) as parts:
        idle = asyncio.create_task(parts.reconciler.idle())
        await settle()
        assert not idle.done()
        assert await parts.journal.request_cancel("t")
        await idle
        assert parts.walk.places.active == {}
