"""How a released container is seen to its end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.engine import Signal, Stream
from agp_agent.errors import ContainerMissing, EngineUnavailable
from agp_agent.executor import release_lines
from agp_agent.lifecycle import ContainerExit, Reason
from agp_agent.planner import plan
from agp_agent.watch import LiveRun, NeverStarted, StartUnknown, Stop, see_to_end
from fakes.fake_engine import FakeEngine
from fakes.fake_host import FakeHost
from support.agent_parts import IMAGE, LABELS, LIMITS, Parts, agent, catalog_of, machine
from support.async_waiting import PATIENCE_S, until

NONCE = "0123456789abcdef" * 2
SLOT = "agp-1"


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost) -> AsyncIterator[Parts]:
    """An agent's parts."""
    async with agent(tmp_path, host) as made:
        yield made


class Watched:
    """A run and somebody who watches it."""

    def __init__(self, parts: Parts, run: LiveRun, **stop: object) -> None:
        """Begin to watch."""
        self.asked: list[Reason] = []
        self.cancel = asyncio.Event()
        self.run = run
        fields: dict[str, object] = {"after_s": PATIENCE_S, "cancelled": self.cancel, "grace_s": PATIENCE_S}
        self._stop = Stop(**(fields | {"note": self._note} | stop))  # type: ignore[arg-type]
        self._task = parts.go(self._watch(parts))
        self._ended: asyncio.Future[ContainerExit] = asyncio.get_running_loop().create_future()

    async def end(self) -> ContainerExit:
        """Wait for the end."""
        return await asyncio.wait_for(self._ended, PATIENCE_S)

    async def _watch(self, parts: Parts) -> None:
        try:
            self._ended.set_result(await parts.executor.watch(self.run, self._stop))
        except Exception as error:  # noqa: BLE001  handed on
            self._ended.set_exception(error)

    async def _note(self, reason: Reason) -> None:
        self.asked.append(reason)


async def released(parts: Parts, playbook: str) -> LiveRun:
    """Release a playbook."""
    prepared = await parts.executor.prepare(plan(catalog_of().runners["shell"], LIMITS, LABELS), SLOT)
    run = await parts.executor.release(prepared, playbook.encode(), {"task_id": "t"}, NONCE)
    await until(lambda: run.started, "the start marker")
    return run


async def says(run: LiveRun, text: bytes) -> None:
    """Wait until a run has printed this."""
    await until(lambda: text in run.spool.newest(10_000), repr(text))


async def adopted(parts: Parts, run: LiveRun) -> LiveRun:
    """Take over a run as the next agent would."""
    run.spool.discard()
    return await parts.executor.adopt(run.container_id, run.slot, NONCE, 20000, 4096)


async def test_an_exit_code_is_told_with_all_output(parts: Parts) -> None:
    """Nobody asked for the end."""
    run = await released(parts, "fill 3000\nexit 7\n")
    watched = Watched(parts, run)
    assert await watched.end() == ContainerExit(7)
    assert run.spool.output().head == b"x" * 3000
    assert watched.asked == []


async def test_death_for_want_of_memory_is_told(parts: Parts) -> None:
    """It is the engine's word."""
    assert await Watched(parts, await released(parts, "oom\n")).end() == ContainerExit(137, oom_killed=True)


async def test_a_deadline_is_noted_then_term_ends_the_playbook(parts: Parts) -> None:
    """Written down before it is done; the output until then is kept."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    watched = Watched(parts, run, after_s=0)
    assert await watched.end() == ContainerExit(143, asked=Reason.DEADLINE)
    assert watched.asked == [Reason.DEADLINE]
    assert run.spool.output().head == b"begun\n"


async def test_after_the_grace_a_playbook_that_ignores_term_is_killed(parts: Parts) -> None:
    """Both signals were the agent's."""
    run = await released(parts, "ignore TERM\nprint deaf\nforever\n")
    await says(run, b"deaf")
    assert await Watched(parts, run, after_s=0, grace_s=0).end() == ContainerExit(137, asked=Reason.DEADLINE)
    assert [action for _, action in parts.host.events if action == "kill"] == ["kill", "kill"]


class LateKill(FakeEngine):
    """An engine whose containers end by TERM just before a KILL reaches them."""

    async def signal(self, container_id: str, signal: Signal) -> bool:
        """Deliver TERM; find nobody to kill."""
        if signal is Signal.TERM:
            return True
        await super().signal(container_id, signal)
        return False


async def test_a_playbook_that_ends_by_term_at_the_last_moment_was_stopped(parts: Parts) -> None:
    """The KILL found nothing to kill any more; the TERM had reached it."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    engine = LateKill(parts.host)
    await engine.open()
    run.epoch = engine.epoch
    stop = Stop(0, asyncio.Event(), 0, lambda _reason: asyncio.sleep(0))
    assert (await see_to_end(engine, run, stop)).asked is Reason.DEADLINE


async def test_a_cancel_stops_it_in_the_same_way(parts: Parts) -> None:
    """With its own reason."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    watched = Watched(parts, run)
    watched.cancel.set()
    assert await watched.end() == ContainerExit(143, asked=Reason.CANCEL_REQUESTED)
    assert watched.asked == [Reason.CANCEL_REQUESTED]


async def test_a_playbook_that_had_ended_by_itself_was_not_stopped(parts: Parts) -> None:
    """The deadline came too late: its exit code counts."""
    run = await released(parts, "exit 4\n")
    await parts.engine.wait(run.container_id)
    assert await Watched(parts, run, after_s=0).end() == ContainerExit(4)


async def test_a_kill_from_outside_is_told_apart(parts: Parts) -> None:
    """The engine remembers a kill that the agent did not ask for."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    watched = Watched(parts, run)
    parts.host.signal(parts.container(), Signal.KILL)
    assert await watched.end() == ContainerExit(137, killed_externally=True)


async def test_a_playbook_that_dies_by_its_own_signal_is_not_said_to_be_killed(parts: Parts) -> None:
    """An exit code above 128 alone is no kill."""
    assert await Watched(parts, await released(parts, "exit 139\n")).end() == ContainerExit(139)


async def test_a_removed_container_is_missing(parts: Parts) -> None:
    """Somebody took it away, and nobody saw how it ended."""
    run = await released(parts, "print begun\nforever\n")
    await parts.host.remove(parts.container())
    with pytest.raises(ContainerMissing):
        await Watched(parts, run).end()


async def test_a_container_that_is_removed_by_force_was_killed_from_outside(parts: Parts) -> None:
    """Where its end was seen before it was gone."""
    run = await released(parts, "print begun\nforever\n")
    watched = Watched(parts, run)
    await asyncio.sleep(0)
    await parts.host.remove(parts.container())
    assert await watched.end() == ContainerExit(137, killed_externally=True)


async def test_who_stops_watching_leaves_the_container_alone(parts: Parts) -> None:
    """The next agent adopts it."""
    run = await released(parts, "forever\n")
    task = asyncio.create_task(
        parts.executor.watch(run, Stop(PATIENCE_S, asyncio.Event(), 1, lambda _reason: asyncio.sleep(0)))
    )
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert parts.container().running


# --- an engine that goes away ------------------------------------------------------------------------------------


async def ended_without_its_engine(parts: Parts, run: LiveRun) -> Watched:
    """The engine went away while the playbook ran, and that ended meanwhile; live-restore kept it alive."""
    await says(run, b"one")
    watched = Watched(parts, run)
    parts.engine.go_away()
    await until(lambda: parts.container().ended is not None, "its end")
    return watched


async def test_an_interrupted_stream_is_completed_from_the_log(parts: Parts) -> None:
    """The engine was away while the playbook printed; live-restore kept it alive."""
    run = await released(parts, "print one\nsleep 0.05\nprint two\nexit 5\n")
    watched = await ended_without_its_engine(parts, run)
    await parts.engine.come_back(restarted=True)
    assert await watched.end() == ContainerExit(5)
    assert run.spool.output().head == b"one\ntwo\n"
    assert run.interrupted


async def test_what_was_printed_while_no_engine_was_there_may_be_missing(parts: Parts) -> None:
    """It ended by itself before the engine was back: the exit code is known, and a gap at the end is stated."""
    run = await released(parts, "print one\nsleep 0.05\nprint two\nexit 5\n")
    watched = await ended_without_its_engine(parts, run)
    parts.container().log[Stream.OUTPUT][:] = b"one\n"  # as dockerd leaves it
    await parts.engine.come_back(restarted=True)
    assert await watched.end() == ContainerExit(5)
    output = run.spool.output()
    assert (output.head + output.tail, output.at_least) == (b"one\n", True)


async def test_an_end_that_the_engine_saw_leaves_no_doubt(parts: Parts) -> None:
    """A restarted engine took the container over alive (live-restore), and its output with it."""
    run = await released(parts, "print one\nforever\n")
    await says(run, b"one")
    watched = Watched(parts, run)
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True)
    parts.host.signal(parts.container(), Signal.KILL)
    await watched.end()
    assert (run.interrupted, run.spool.output().text()) == (True, "one\n")


async def test_a_container_that_died_with_its_engine_is_told_so(parts: Parts) -> None:
    """A bare 137, a new engine process, and nobody who killed it."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    watched = Watched(parts, run)
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True, kill_running=True)
    ended = await watched.end()
    assert ended == ContainerExit(137, lost_with_engine=True)


async def test_an_engine_that_was_stopped_took_along_what_it_told_to_end(parts: Parts) -> None:
    """A playbook may end with 0 when it is told to: it was not finished all the same."""
    run = await released(parts, "print begun\nignore TERM\nsleep 0.1\nexit 0\n")
    await says(run, b"begun")
    watched = Watched(parts, run)
    parts.engine.go_away()
    parts.host.signal(parts.container(), Signal.TERM)
    await until(lambda: parts.container().ended is not None, "its end")
    await parts.engine.come_back(restarted=True)
    assert await watched.end() == ContainerExit(0, lost_with_engine=True)


async def test_a_clean_exit_after_a_signal_waits_for_what_becomes_of_the_engine(parts: Parts) -> None:
    """While it stops, an engine still serves the connections it has; only its successor shows what it did."""
    run = await released(parts, "print begun\nignore TERM\nsleep 0.1\nexit 0\n")
    await says(run, b"begun")
    watched = Watched(parts, run)
    parts.engine.errors["history"] = EngineUnavailable("it is stopping")
    parts.host.signal(parts.container(), Signal.TERM)
    await until(lambda: parts.container().ended is not None, "its end")
    asked = parts.engine.calls
    await until(lambda: parts.engine.calls > asked, "the question")
    parts.engine.go_away()
    del parts.engine.errors["history"]
    await parts.engine.come_back(restarted=True)
    assert await watched.end() == ContainerExit(0, lost_with_engine=True)


@pytest.mark.parametrize(("ran_s", "asked"), [(0.1, None), (1.5, Reason.DEADLINE)])
async def test_who_ended_before_the_deadline_is_not_said_to_be_stopped_by_it(
    parts: Parts, ran_s: float, asked: Reason | None
) -> None:
    """An engine that hung takes the signal, when it goes on, before it has noticed the end."""
    run = await released(parts, "print begun\nsleep 0.05\nexit 0\n")
    parts.container().ran_s = ran_s
    parts.engine.freeze()
    watched = Watched(parts, run, after_s=1.5)
    await until(lambda: run.told_to_stop_s, "the deadline")
    parts.engine.thaw()
    assert await watched.end() == ContainerExit(0, asked=asked)


async def test_a_flood_that_an_engine_took_along_has_a_gap(parts: Parts) -> None:
    """What it had read and not passed on is nowhere; a trickle is passed on at once."""
    run = await released(parts, "fill 200000\nprint one\nsleep 0.1\nprint two\nexit 5\n")
    watched = await ended_without_its_engine(parts, run)
    await parts.engine.come_back(restarted=True)
    assert await watched.end() == ContainerExit(5)
    output = run.spool.output()
    assert output.at_least
    assert output.tail.endswith(b"two\n")


@pytest.mark.parametrize(("told_after_s", "at_least"), [(0.03, False), (0.4, True)])
async def test_an_end_that_a_new_engine_tells_of_late_has_a_gap(
    parts: Parts, told_after_s: float, *, at_least: bool
) -> None:
    """It was only coming back when the container ended, and was not there to take in what that printed last."""
    run = await released(parts, "print one\nsleep 0.05\nprint two\nexit 5\n")
    parts.container().ended_s, parts.container().died_s = 100.0, 100.0 + told_after_s
    watched = await ended_without_its_engine(parts, run)
    await parts.engine.come_back(restarted=True)
    assert await watched.end() == ContainerExit(5)
    assert run.spool.output().at_least is at_least


async def test_an_end_that_the_engine_only_assumed_is_its_own_loss(parts: Parts) -> None:
    """What held the container died: the engine told of another exit code than the one it wrote down."""
    run = await released(parts, "print begun\nexit 137\n")
    parts.container().told_code = 255
    assert await Watched(parts, run).end() == ContainerExit(137, lost_with_engine=True)


@pytest.mark.parametrize(
    ("code", "lost_with_engine"), [(137, True), (143, True), (129, False), (139, False), (255, True)]
)
async def test_only_what_an_engine_does_itself_is_blamed_on_its_restart(
    parts: Parts, code: int, *, lost_with_engine: bool
) -> None:
    """KILL and TERM, and what dockerd says where nobody told it; any other exit code is the playbook's own."""
    run = await released(parts, f"print begun\nexit {code}\n")
    await parts.engine.wait(run.container_id)
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True)
    assert await Watched(parts, run).end() == ContainerExit(code, lost_with_engine=lost_with_engine)


async def test_a_kill_counts_as_one_from_outside_only_where_the_engine_remembers_the_creation(parts: Parts) -> None:
    """An engine that comes back without live-restore sends TERM by itself to what it finds."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    watched = Watched(parts, run)
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True)
    parts.host.signal(parts.container(), Signal.TERM)
    assert await watched.end() == ContainerExit(143, lost_with_engine=True)


async def test_a_silent_playbook_whose_container_is_removed_after_its_end_is_not_run_again(parts: Parts) -> None:
    """Its marker stood in the log that is gone: whether it started nobody can tell any more."""
    run = await released(parts, "exit 5\n")
    await parts.engine.wait(run.container_id)
    taken = await adopted(parts, run)
    parts.engine.errors["log"] = ContainerMissing("the container is gone")
    with pytest.raises(StartUnknown, match="removed before anybody could see"):
        await Watched(parts, taken).end()


async def test_a_container_that_is_removed_after_its_end_keeps_its_exit_code(parts: Parts) -> None:
    """How it ended was seen; that its last output may be missing is stated."""
    run = await released(parts, "print one\nexit 5\n")
    await says(run, b"one")
    taken = await adopted(parts, run)
    parts.engine.errors["log"] = ContainerMissing("the container is gone")
    assert await Watched(parts, taken).end() == ContainerExit(5)
    assert taken.spool.output().head == b"one\n"
    assert taken.spool.output().at_least


async def test_a_stream_that_missed_nothing_states_no_gap(parts: Parts) -> None:
    """The engine's log ends as the spool does."""
    run = await released(parts, "print one\nexit 0\n")
    assert await Watched(parts, run).end() == ContainerExit(0)
    assert not run.interrupted
    assert (run.spool.output().head, run.spool.output().at_least) == (b"one\n", False)


async def test_a_stream_that_was_cut_alone_is_completed_from_the_log(parts: Parts) -> None:
    """Nobody was told of an interruption, but the log has more."""
    run = await released(parts, "print one\nsleep 0.05\nprint two\nexit 0\n")
    await says(run, b"one")
    parts.engine._break_attachments()
    assert await Watched(parts, run).end() == ContainerExit(0)
    assert (run.spool.output().head, run.spool.output().at_least) == (b"one\ntwo\n", False)


async def test_a_stream_that_does_not_end_is_completed_from_the_log(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container has ended, and its last output does not arrive."""
    monkeypatch.setattr("agp_agent.watch._STREAM_END_S", 0.01)
    run = await released(parts, "print one\nsleep 0.05\nprint two\nexit 0\n")
    await says(run, b"one")
    assert run.pump is not None
    run.pump.cancel()
    run.pump = asyncio.create_task(asyncio.sleep(PATIENCE_S))
    assert await Watched(parts, run).end() == ContainerExit(0)
    assert run.spool.output().head == b"one\ntwo\n"


async def test_a_signal_is_sent_again_until_the_engine_answers(parts: Parts) -> None:
    """A deadline holds over an engine that is away."""
    run = await released(parts, "print begun\nforever\n")
    await says(run, b"begun")
    parts.engine.go_away()
    watched = Watched(parts, run, after_s=0)
    await until(lambda: watched.asked, "the deadline")
    await parts.engine.come_back(restarted=False)
    assert await watched.end() == ContainerExit(143, asked=Reason.DEADLINE)


# --- whether it started ------------------------------------------------------------------------------------------


async def unmarked(parts: Parts) -> LiveRun:
    """Release a container whose entry ends without having started anything: its stdin closed before the line came."""
    prepared = await parts.executor.prepare(plan(catalog_of().runners["shell"], LIMITS, LABELS), SLOT)
    await prepared.attachment.aclose()
    await parts.engine.wait(prepared.container_id)
    return await parts.executor.release(prepared, b"print hi\n", {}, NONCE)


async def test_without_a_marker_and_with_the_same_engine_it_never_started(parts: Parts) -> None:
    """Only then may it be started again."""
    with pytest.raises(NeverStarted, match="exit code 125 before the playbook"):
        await Watched(parts, await unmarked(parts)).end()


async def test_without_a_marker_the_engines_memory_may_prove_it_too(parts: Parts) -> None:
    """Contact was lost, but the process that answers is the one that created the container."""
    run = await unmarked(parts)
    parts.engine.go_away()
    await parts.engine.come_back(restarted=False)
    with pytest.raises(NeverStarted):
        await Watched(parts, run).end()


async def test_without_a_marker_and_with_another_engine_nobody_knows(parts: Parts) -> None:
    """The marker may have died with the old one."""
    run = await unmarked(parts)
    parts.engine.go_away()
    await parts.engine.come_back(restarted=True)
    with pytest.raises(StartUnknown, match="contact to the container engine was lost"):
        await Watched(parts, run).end()


async def test_a_marker_of_another_nonce_does_not_count(parts: Parts) -> None:
    """It is not of this release."""
    run = await unmarked(parts)
    run.control[:] = parts.container().log[Stream.CONTROL][:] = b"agp1 started " + b"f" * 32 + b"\n"
    with pytest.raises(NeverStarted):
        await Watched(parts, run).end()


async def test_output_without_a_marker_tells_of_a_start(parts: Parts) -> None:
    """Only a playbook prints: it is never run a second time."""
    run = await released(parts, "print hi\nexit 6\n")
    await says(run, b"hi")
    run.control.clear()
    assert run.started
    assert await Watched(parts, run).end() == ContainerExit(6)


@pytest.mark.parametrize(("playbook", "rotated"), [("exit 6\n", True), ("print hi\nexit 6\n", False)])
async def test_a_log_without_a_marker_may_tell_of_a_start_too(parts: Parts, playbook: str, *, rotated: bool) -> None:
    """By output, or because it was rotated: the marker is the first that is dropped."""
    run = await released(parts, playbook)
    await parts.engine.wait(run.container_id)
    (parts.folder / "spool" / SLOT).unlink()
    container = parts.container()
    container.log[Stream.CONTROL].clear()
    container.log_rotated = rotated
    taken = await adopted(parts, run)
    assert not taken.started
    assert await Watched(parts, taken).end() == ContainerExit(6)
    assert taken.started


async def test_a_container_whose_release_was_lost_is_ended(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream broke before its playbook started: it would wait for ever, and is judged as never started."""
    monkeypatch.setattr("agp_agent.watch._STUCK_S", 0.0)
    prepared = await parts.executor.prepare(plan(catalog_of().runners["shell"], LIMITS, LABELS), SLOT)
    waiting = await parts.executor.adopt(prepared.container_id, SLOT, NONCE, None, 4096)
    with pytest.raises(NeverStarted):
        await Watched(parts, waiting).end()


class LateStart(FakeEngine):
    """An engine whose containers start just before a KILL reaches them."""

    async def signal(self, container_id: str, signal: Signal) -> bool:
        """Let the release line come through at the last moment."""
        container = self.host.containers[container_id]
        container.stdin.feed(release_lines(NONCE, {}))
        await until(lambda: container.log[Stream.OUTPUT], "the start")
        return await super().signal(container_id, signal)


async def test_a_container_that_starts_as_it_is_ended_is_lost(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last look and the kill: it is not run again, and nobody else is said to have killed it."""
    monkeypatch.setattr("agp_agent.watch._STUCK_S", 0.0)
    prepared = await parts.executor.prepare(plan(catalog_of().runners["shell"], LIMITS, LABELS), SLOT)
    await parts.slots.fill(SLOT, IMAGE, prepared.spec.playbook_file, b"print begun\nforever\n", {"task_id": "t"})
    waiting = await parts.executor.adopt(prepared.container_id, SLOT, NONCE, None, 4096)
    engine = LateStart(parts.host)
    await engine.open()
    stop = Stop(PATIENCE_S, asyncio.Event(), 0, lambda _reason: asyncio.sleep(0))
    with pytest.raises(StartUnknown, match="ended just when it began"):
        await see_to_end(engine, waiting, stop)
    assert waiting.spool.output().head == b"begun\n"


async def test_what_the_agent_stopped_itself_is_judged_by_that(parts: Parts) -> None:
    """A deadline before the marker ends the attempt: it is not started again."""
    prepared = await parts.executor.prepare(plan(catalog_of().runners["shell"], LIMITS, LABELS), SLOT)
    line_never_sent = LiveRun(
        prepared.container_id,
        SLOT,
        b"agp1 started x\n",
        (await parts.executor.adopt(prepared.container_id, SLOT, NONCE, None, 4096)).spool,
        prepared.epoch,
    )
    ended = await Watched(parts, line_never_sent, after_s=0).end()
    assert ended.asked is Reason.DEADLINE


# --- adopted runs ------------------------------------------------------------------------------------------------


async def test_an_adopted_run_is_completed_from_the_log(parts: Parts) -> None:
    """What the earlier agent had is not doubled."""
    run = await released(parts, "print one\nsleep 0.05\nprint two\nexit 3\n")
    await says(run, b"one")
    assert run.pump is not None
    run.pump.cancel()
    taken = await adopted(parts, run)
    assert await Watched(parts, taken).end() == ContainerExit(3)
    assert taken.spool.output().head == b"one\ntwo\n"
    assert taken.started


@pytest.mark.parametrize("rotated", [False, True])
async def test_what_an_adopted_run_told_is_completed_from_the_log(parts: Parts, *, rotated: bool) -> None:
    """Also where the log has lost its first lines."""
    run = await released(parts, "print one\nsleep 0.05\nexit 3\n")
    await says(run, b"one")
    assert run.pump is not None
    run.pump.cancel()
    log = parts.container().log
    log[Stream.CONTROL] += b"agp1 event {}\n"
    if rotated:
        del log[Stream.CONTROL][: len(run.marker)]
    taken = await adopted(parts, run)
    await Watched(parts, taken).end()
    assert taken.control.endswith(b"agp1 event {}\n")
    assert taken.started


async def test_an_adopted_run_without_marker_never_started_where_the_engine_is_the_same(parts: Parts) -> None:
    """The earlier agent died before its release line."""
    taken = await adopted(parts, await unmarked(parts))
    with pytest.raises(NeverStarted):
        await Watched(parts, taken).end()


async def test_an_adopted_run_without_marker_is_unknown_after_a_restart_of_the_engine(parts: Parts) -> None:
    """Never run again by guess."""
    run = await unmarked(parts)
    await parts.host.forget(kill_running=False)
    with pytest.raises(StartUnknown):
        await Watched(parts, await adopted(parts, run)).end()


@pytest.mark.parametrize(
    ("playbook", "ended"),
    [
        ("exit 0\n", ContainerExit(0)),
        ("exit 2\n", ContainerExit(2)),
        ("exit 143\n", ContainerExit(143, asked=Reason.DEADLINE)),
    ],
)
async def test_what_an_earlier_agent_was_about_to_do_counts_where_it_was_done(
    parts: Parts, playbook: str, ended: ContainerExit
) -> None:
    """It noted the deadline and died: perhaps before the signal, which only a death by signal can tell."""
    run = await released(parts, playbook)
    await parts.engine.wait(run.container_id)
    taken = await adopted(parts, run)
    assert await Watched(parts, taken, asked_before=Reason.DEADLINE).end() == ended


async def test_what_an_earlier_agent_did_counts_also_for_a_clean_exit(parts: Parts) -> None:
    """A playbook that handles TERM and exits with 0 was stopped all the same: the engine remembers the kill."""
    run = await released(parts, "ignore TERM\nprint deaf\nsleep 0.05\nexit 0\n")
    await says(run, b"deaf")
    await parts.engine.signal(run.container_id, Signal.TERM)
    await parts.engine.wait(run.container_id)
    taken = await adopted(parts, run)
    assert await Watched(parts, taken, asked_before=Reason.DEADLINE).end() == ContainerExit(0, asked=Reason.DEADLINE)
