"""The executor: prepare, release, watch, discard."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.engine import Helped, NameTaken
from agp_agent.errors import EngineError, EngineUnavailable, ImageUnavailable, LockdownRefused, NotFenced
from agp_agent.executor import Executor, Prepared, release_lines, start_marker
from agp_agent.fencing import Fencing
from agp_agent.planner import RunSpec, plan
from agp_agent.watch import LiveRun, Stop
from fakes.fake_engine import FakeEngine
from fakes.fake_host import FakeHost
from support.agent_parts import IMAGE, LABELS, LIMITS, Parts, agent, catalog_of, machine
from support.async_waiting import PATIENCE_S, until, until_async

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


@pytest.fixture
def executor(parts: Parts) -> Executor:
    """What is tested."""
    return parts.executor


@pytest.fixture
def spec() -> RunSpec:
    """The plan of the shell runner."""
    return plan(catalog_of().runners["shell"], LIMITS, LABELS)


async def released(executor: Executor, spec: RunSpec, playbook: str, slot: str = SLOT) -> LiveRun:
    """Prepare and release a playbook."""
    prepared = await executor.prepare(spec, slot)
    return await executor.release(prepared, playbook.encode(), {"task_id": "t"}, NONCE)


async def to_end(executor: Executor, run: LiveRun) -> int:
    """Watch a run without limits; return its exit code."""

    async def note(_reason: object) -> None:
        pytest.fail("the agent stopped it")

    return (await executor.watch(run, Stop(PATIENCE_S, asyncio.Event(), 1, note))).exit_code


def test_the_words_of_the_runner_contract_stay() -> None:
    """Every runner image relies on them."""
    assert release_lines(NONCE, {}) == f"agp1 release {NONCE}\n".encode()
    assert start_marker(NONCE) == f"agp1 started {NONCE}\n".encode()


async def test_a_prepared_container_waits_for_its_release(executor: Executor, spec: RunSpec, host: FakeHost) -> None:
    """It runs, has printed nothing, and its slot is mounted and empty."""
    prepared = await executor.prepare(spec, SLOT)
    container = host.containers[prepared.container_id]
    assert container.running
    assert container.name == SLOT
    uid = prepared.container.uid
    assert 20000 <= uid <= 20255
    assert container.labels == {**LABELS, "agp.runner": "shell", "agp.slot": SLOT, "agp.uid": str(uid)}
    (mount,) = container.mounts
    assert mount.target == "/playbook"
    assert list(Path(mount.source).iterdir()) == []
    assert prepared.image.digest == "sha256:1"


async def test_a_released_playbook_runs_with_what_it_was_given(
    executor: Executor, spec: RunSpec, tmp_path: Path
) -> None:
    """The file stands in the slot, its output in the spool, its exit code is told."""
    run = await released(executor, spec, "print hi\nerr there\nexit 3\n")
    assert (tmp_path / "slots" / SLOT / "playbook" / "playbook.sh").read_text() == "print hi\nerr there\nexit 3\n"
    assert await to_end(executor, run) == 3
    assert run.spool.output().head == b"hi\nthere\n"
    assert run.started


async def test_the_marker_is_not_part_of_the_output(executor: Executor, spec: RunSpec) -> None:
    """The control channel and the output are two streams, whatever a playbook prints."""
    run = await released(executor, spec, f"print agp1 started {NONCE}\ncontrol forged\n")
    assert await to_end(executor, run) == 0
    assert run.spool.output().head == f"agp1 started {NONCE}\n".encode()


async def test_a_talkative_control_channel_is_bounded(executor: Executor, spec: RunSpec) -> None:
    """A hostile playbook reaches it and may write for ever."""
    run = await released(executor, spec, "control " + "x" * 200_000 + "\ncontrol " + "y" * 200_000 + "\n")
    assert await to_end(executor, run) == 0
    assert run.started
    assert len(run.control) == 256 * 1024


async def test_every_prepared_container_has_a_user_of_its_own(tmp_path: Path, host: FakeHost, spec: RunSpec) -> None:
    """A number is free again once its container is gone."""
    async with agent(tmp_path, host, uids=range(20000, 20003)) as parts:
        uids = [(await parts.executor.prepare(spec, f"agp-{number}")).container.uid for number in range(3)]
        assert sorted(uids) == [20000, 20001, 20002]
        await parts.executor.discard("agp-1")
        assert (await parts.executor.prepare(spec, "agp-9")).container.uid == uids[1]


async def test_users_are_drawn_by_chance(tmp_path: Path, host: FakeHost, spec: RunSpec) -> None:
    """Two agents on one engine seldom meet."""
    async with agent(tmp_path, host, uids=range(1000, 61000)) as parts:
        uids = [(await parts.executor.prepare(spec, f"agp-{number}")).container.uid for number in range(5)]
        assert uids != sorted(range(1000, 1005))


async def test_when_all_users_are_taken_the_next_one_waits(tmp_path: Path, host: FakeHost, spec: RunSpec) -> None:
    """Until what has ended is removed: no container gets another's, and no task fails of it."""
    async with agent(tmp_path, host, uids=range(20000, 20001)) as parts:
        await parts.executor.prepare(spec, "agp-1")
        waiting = [asyncio.create_task(parts.executor.prepare(spec, f"agp-{number}")) for number in (2, 3)]
        await asyncio.wait(waiting, timeout=0.05)
        assert not any(task.done() for task in waiting)
        await parts.executor.discard("agp-1")
        done, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().container.uid for task in done] == [20000]
        await parts.executor.discard(done.pop().result().container.name)
        assert (await late.pop()).container.uid == 20000


async def test_an_adopted_container_keeps_its_user(tmp_path: Path, host: FakeHost, spec: RunSpec) -> None:
    """The next one gets another."""
    async with agent(tmp_path, host, uids=range(20000, 20002)) as parts:
        await parts.executor.adopt("c1", "agp-old", NONCE, 20000, 4096)
        assert (await parts.executor.prepare(spec, SLOT)).container.uid == 20001


def nothing_left(parts: Parts) -> bool:
    """Whether neither container nor slot nor spool is there."""
    folders = [*(parts.folder / "slots").iterdir(), *(parts.folder / "spool").iterdir()]
    return not folders and not parts.host.containers


async def test_an_image_that_is_not_there_leaves_nothing_behind(parts: Parts, spec: RunSpec) -> None:
    """The reason is the engine's."""
    parts.host.images.clear()
    with pytest.raises(ImageUnavailable, match="the registry does not have it"):
        await parts.executor.prepare(spec, SLOT)
    assert nothing_left(parts)


async def test_an_image_is_pulled_where_the_runner_allows_it(parts: Parts, spec: RunSpec) -> None:
    """And its new digest is told."""
    parts.host.images.clear()
    parts.host.registry[IMAGE] = "sha256:2"
    assert (await parts.executor.prepare(spec, SLOT)).image.digest == "sha256:2"
    assert parts.host.pulls == [IMAGE]


async def test_a_container_weaker_than_asked_for_leaves_nothing_behind(parts: Parts, spec: RunSpec) -> None:
    """It is never started."""
    parts.host.weaken = ("ReadonlyRootfs",)
    with pytest.raises(LockdownRefused, match="ReadonlyRootfs"):
        await parts.executor.prepare(spec, SLOT)
    assert nothing_left(parts)


async def test_a_container_that_cannot_be_started_leaves_nothing_behind(parts: Parts, spec: RunSpec) -> None:
    """A bad command, for example."""
    parts.host.start_error = "exec: no such file"
    with pytest.raises(EngineError, match="exec: no such file"):
        await parts.executor.prepare(spec, SLOT)
    assert nothing_left(parts)


async def test_a_name_is_a_mutex(parts: Parts, spec: RunSpec) -> None:
    """Somebody else's container of the same name is an error."""
    parts.host.plant(SLOT, {})
    with pytest.raises(NameTaken):
        await parts.executor.prepare(spec, SLOT)


async def test_an_absent_engine_is_told_as_such(parts: Parts, spec: RunSpec) -> None:
    """Nothing can be removed now; the slot stays until the reconciler comes."""
    parts.engine.go_away()
    with pytest.raises(EngineUnavailable):
        await parts.executor.prepare(spec, SLOT)


async def test_before_the_first_contact_nothing_can_be_handed_over(
    tmp_path: Path, host: FakeHost, spec: RunSpec
) -> None:
    """How, is found out by the engine watch."""
    engine = FakeEngine(host)
    await engine.open()
    with pytest.raises(EngineUnavailable, match="has not been reached yet"):
        await Executor(engine, tmp_path, range(20000, 20001), Fencing(engine, LABELS, image="")).prepare(spec, SLOT)


@pytest.fixture
def outbound() -> RunSpec:
    """The plan of a runner with a network."""
    return plan(catalog_of(net={"network": "outbound", "allow": ["10.1.1.1:22"]}).runners["net"], LIMITS, LABELS)


async def test_a_container_with_a_network_is_fenced_in_before_its_release(
    executor: Executor, outbound: RunSpec, host: FakeHost
) -> None:
    """It is on the agent's own bridge; when it is prepared its fence stands, made for its own user."""
    prepared = await executor.prepare(outbound, SLOT)
    container = host.containers[prepared.container_id]
    assert prepared.container.network == "agp-0123456789ab"
    rules = "\n".join(container.rules)
    assert f"meta skuid != {prepared.container.uid} " in rules
    assert "ip daddr 10.1.1.1/32 meta l4proto { tcp, udp } th dport 22" in rules
    assert "policy drop" in rules


async def test_a_container_without_a_network_has_neither_bridge_nor_fence(
    executor: Executor, spec: RunSpec, host: FakeHost
) -> None:
    """Nothing is made that nobody needs."""
    prepared = await executor.prepare(spec, SLOT)
    assert prepared.container.network is None
    assert (host.containers[prepared.container_id].rules, host.bridges) == ([], {})


@pytest.mark.parametrize("answer", [Helped(1, "no nftables"), Helped(0, "table inet agp_fence {}")])
async def test_a_container_that_cannot_be_fenced_in_leaves_nothing_behind(
    parts: Parts, outbound: RunSpec, answer: Helped
) -> None:
    """It is never released, whatever the helper's exit code says."""
    parts.host.helper_answer = answer
    with pytest.raises(NotFenced):
        await parts.executor.prepare(outbound, SLOT)
    assert nothing_left(parts)


async def test_a_container_is_not_made_on_somebody_else_s_network(parts: Parts, outbound: RunSpec) -> None:
    """Not even created."""
    await parts.engine.ensure_bridge("agp-0123456789ab", {"whose": "another's"})
    with pytest.raises(NotFenced, match="the runner has no network"):
        await parts.executor.prepare(outbound, SLOT)
    assert ("create" in {action for _, action in parts.host.events}, nothing_left(parts)) == (False, True)


async def test_a_hand_over_that_fails_ends_the_container(parts: Parts, spec: RunSpec) -> None:
    """Its stdin closes without a release: the entry ends by itself, without a marker."""
    parts.slots.fill_errors = [OSError(28, "No space left on device")]
    prepared = await parts.executor.prepare(spec, SLOT)
    with pytest.raises(OSError, match="No space left"):
        await parts.executor.release(prepared, b"print hi\n", {}, NONCE)
    state = await asyncio.wait_for(parts.engine.wait(prepared.container_id), PATIENCE_S)
    assert state.exit_code == 125


async def test_a_release_whose_line_may_be_lost_is_judged_by_the_end(parts: Parts, spec: RunSpec) -> None:
    """No error: the container tells later whether it started."""
    prepared = await parts.executor.prepare(spec, SLOT)
    await prepared.attachment.aclose()
    run = await parts.executor.release(prepared, b"print hi\n", {}, NONCE)
    assert run.interrupted


async def test_discarding_removes_container_slot_and_spool_whatever_is_missing(parts: Parts, spec: RunSpec) -> None:
    """A second time is as the first."""
    await released(parts.executor, spec, "forever\n")
    await parts.executor.discard(SLOT)
    await parts.executor.discard(SLOT)
    assert nothing_left(parts)


async def test_an_absent_engine_keeps_slot_and_spool(parts: Parts, spec: RunSpec) -> None:
    """The container may still use them: nothing else is touched."""
    await released(parts.executor, spec, "forever\n")
    parts.engine.go_away()
    with pytest.raises(EngineUnavailable):
        await parts.executor.discard(SLOT)
    assert (parts.folder / "slots" / SLOT).exists()
    assert (parts.folder / "spool" / SLOT).exists()


async def test_leftovers_are_slots_and_spools_but_no_probes(parts: Parts) -> None:
    """Whichever of both is there."""
    for name in ("slots/agp-a", "slots/agp-probe-1", "spool/agp-b", "spool/agp-a"):
        (parts.folder / name).mkdir(parents=True)
    assert await parts.executor.leftover_slots() == ["agp-a", "agp-b"]


@pytest.mark.parametrize("calls", range(1, 6))
async def test_giving_up_on_a_preparation_leaves_nothing_behind(parts: Parts, spec: RunSpec, calls: int) -> None:
    """At whichever call to the engine it is cancelled; what a thread still made is found by the reconciler."""
    before = parts.engine.calls
    task: asyncio.Task[Prepared] = asyncio.create_task(parts.executor.prepare(spec, SLOT))
    await until(lambda: task.done() or parts.engine.calls >= before + calls, "the call")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():  # it was prepared already
        await parts.executor.discard(SLOT)

    async def look() -> bool:
        await parts.reconciler.reconcile(grace_s=-1)
        return nothing_left(parts)

    await until_async(look, "nothing left")
