"""The pool: containers that wait, each for one task, and everything that can happen to one meanwhile."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agp_agent import planner, pool_sizes
from agp_agent.audit import AuditEvent
from agp_agent.caller import Caller
from agp_agent.engine import EngineInfo, Signal
from agp_agent.errors import AlreadyRunning, ConfigurationError, EngineError, EngineUnavailable
from agp_agent.intake import FastLane, Intake
from agp_agent.journal import Accepted
from agp_agent.lifecycle import Outcome, Reason, State
from agp_agent.pool import PoolRules
from agp_agent.pool_sizes import NONE_WARM, Wish
from agp_agent.tally import Tally
from fakes.fake_host import Container, FakeHost
from support.agent_parts import IMAGE, LABELS, LIMITS, Parts, agent, catalog_of, machine
from support.async_waiting import until

INFO = EngineInfo("fake", "1", cores=2, memory_bytes=2**34)
RULES = PoolRules(Wish(1), 256)


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@contextlib.asynccontextmanager
async def warm_agent(
    folder: Path, host: FakeHost, *, rules: PoolRules = RULES, max_running: int = 4, **options: Any
) -> AsyncIterator[Parts]:
    """An agent's parts with a pool that fills itself, and a dispatcher."""
    async with agent(folder, host, rules=rules, max_running=max_running, **options) as parts:
        parts.pool.fit(INFO)
        parts.go(parts.pool.run())
        parts.go(parts.dispatcher.run())
        yield parts


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost) -> AsyncIterator[Parts]:
    """One container waits for each task."""
    async with warm_agent(tmp_path, host) as made:
        yield made


def intake_of(parts: Parts) -> Intake:
    """The way in, with the fast lane."""
    return Intake(
        parts.journal,
        parts.audit,
        Tally(parts.audit, AuditEvent.TASK_REFUSED),
        parts.readiness,
        parts.catalogs,
        max_queued=100,
        rerun_after_s=0,
        playbook_limit_bytes=10_000,
        fast_lane=FastLane(parts.walk, parts.dispatcher.hold),
    )


async def send(parts: Parts, content: str = "print hi\n", task_id: str = "t") -> Accepted:
    """An order comes in."""
    body = json.dumps({"task_id": task_id, "playbook": {"name": "a.sh", "content": content}}).encode()
    return (await intake_of(parts).accept(body, None, Caller("p")))[1]


async def filled(parts: Parts, number: int = 1, runner: str = "shell") -> list[Container]:
    """Wait until so many wait, and return them."""
    await until(lambda: parts.pool.ready(runner) == number, f"{number} warm containers")
    return [one for one in parts.host.containers.values() if one.name in parts.pool.slots]


def look_again(parts: Parts) -> None:
    """Let the pool see how things stand now, and not when it is time to."""
    parts.pool._looked_s = float("-inf")
    parts.pool._news.set()


async def only_waiting(parts: Parts, number: int = 1) -> None:
    """Wait until nothing is left but what waits."""

    def look() -> bool:
        names = {path.name for kind in ("slots", "spool") for path in (parts.folder / kind).iterdir()}
        names |= {one.name for one in parts.host.containers.values()}
        return names == parts.pool.slots and len(names) == number == parts.pool.ready("shell")

    await until(look, "nothing left but what waits")


# --- the fast lane -------------------------------------------------------------------------------------------------


async def test_an_order_starts_in_the_container_that_waits(parts: Parts) -> None:
    """Its own id stands in the journal from the first commit on; another one takes the place of the one it had."""
    (waiting,) = await filled(parts)
    accepted = await send(parts)
    verdict, due = await parts.result(accepted.run_id)
    assert (verdict.outcome, due.output.text()) == (Outcome.SUCCEEDED, "hi\n")
    (started,) = await parts.audited("task started")
    assert started["container_id"] == waiting.container_id
    await only_waiting(parts)
    assert (parts.pool.hits, parts.pool.misses) == (Counter({"shell": 1}), Counter())


async def test_accept_and_start_are_one_commit(parts: Parts) -> None:
    """The row is there as running, with all that a release has, and was neither queued nor preparing before."""
    await filled(parts)
    parts.slots.may_fill.clear()
    accepted = await send(parts, "forever\n")
    attempt = await parts.attempt(accepted.run_id)
    assert accepted.begun == replace(attempt)
    assert (attempt.state, attempt.image, attempt.image_digest, attempt.timeout_s) == (
        State.RUNNING,
        IMAGE,
        "sha256:1",
        60,
    )
    assert (attempt.slot, bool(attempt.nonce)) == (parts.host.containers[attempt.container_id or ""].name, True)
    assert await parts.events() == ["task accepted", "image resolved", "task started"]


async def test_what_waits_in_the_queue_is_not_overtaken(tmp_path: Path, host: FakeHost) -> None:
    """An order that comes while others wait for the same place queues behind them, and its container goes back."""
    async with agent(tmp_path, host, rules=RULES) as parts:
        parts.pool.fit(INFO)
        parts.go(parts.pool.run())
        await filled(parts)
        first = await parts.post("print first\n", "first")
        second = await send(parts, "print second\n", "second")
        assert (second.begun, parts.pool.ready("shell"), parts.walk.places.active) == (None, 1, {})
        parts.go(parts.dispatcher.run())
        assert (await parts.result(first))[1].output.text() == "first\n"
        await parts.verdict(second.run_id)
        assert [line["task_id"] for line in await parts.audited("task started")] == ["first", "second"]


async def test_a_refused_order_gives_its_container_back(parts: Parts) -> None:
    """409: it changed nothing, and the next task has the container."""
    await filled(parts)
    running = await send(parts, "print begun\nforever\n")
    await parts.printed(running.run_id, b"begun")
    (waiting,) = await filled(parts)
    with pytest.raises(AlreadyRunning):
        await send(parts, "print other\n")
    assert parts.pool.ready("shell") == 1
    accepted = await send(parts, task_id="u")
    assert accepted.begun is not None
    assert accepted.begun.container_id == waiting.container_id


async def test_no_more_run_at_once_than_there_are_places(tmp_path: Path, host: FakeHost) -> None:
    """However many wait warm: orders that come at the same time share the places."""
    async with warm_agent(tmp_path, host, rules=PoolRules(Wish(4), 256), max_running=2) as parts:
        await filled(parts, 4)
        accepted = await asyncio.gather(*(send(parts, "sleep 0.05\n", f"t{number}") for number in range(6)))
        assert sum(one.begun is not None for one in accepted) == 2
        for one in accepted:
            assert (await parts.verdict(one.run_id)).outcome is Outcome.SUCCEEDED
        await only_waiting(parts, 4)


async def test_a_runner_that_is_full_lets_others_by(tmp_path: Path, host: FakeHost) -> None:
    """What waits for one of its places does not wait for the place that an order of another runner gets."""
    catalog = catalog_of(slow={"max_running": 1, "match": {"suffixes": [".slow"]}})
    async with warm_agent(tmp_path, host, catalog=catalog) as parts:
        await filled(parts)
        await filled(parts, runner="slow")
        runs = [await parts.post("print begun\nforever\n", f"s{number}", "slow") for number in range(2)]
        await parts.printed(runs[0], b"begun")
        assert (await send(parts)).begun is not None


async def test_a_cancel_between_commit_and_release_ends_it(parts: Parts) -> None:
    """It is noted, and the container is stopped as any other."""
    await filled(parts)
    parts.slots.may_fill.clear()
    accepted = await send(parts, "forever\n")
    assert await parts.journal.request_cancel("t")
    parts.slots.may_fill.set()
    assert (await parts.verdict(accepted.run_id)).reason is Reason.CANCEL_REQUESTED


async def test_a_caller_that_gives_up_does_not_lose_the_task(parts: Parts) -> None:
    """Once it is asked to be written down, it runs whoever still listens."""
    await filled(parts)
    sending = asyncio.create_task(send(parts))
    await until(lambda: bool(parts.walk.places.active), "claimed")
    sending.cancel()
    await parts.heard("task finished")
    await only_waiting(parts)


async def test_a_drain_waits_for_an_order_that_is_being_taken_on(parts: Parts) -> None:
    """It is not known yet whether that starts: it does, and it ends before the agent is idle."""
    await filled(parts)
    sending = asyncio.create_task(send(parts))
    await until(lambda: bool(parts.walk.places.active), "claimed")
    await parts.dispatcher.idle()
    assert sending.done()
    assert (await parts.verdict(sending.result().run_id)).outcome is Outcome.SUCCEEDED


# --- out of the queue ----------------------------------------------------------------------------------------------


async def test_a_queued_task_has_a_warm_container(parts: Parts) -> None:
    """Also where it went through the queue: it is never preparing."""
    (waiting,) = await filled(parts)
    run_id = await parts.post("print hi\n")
    await parts.verdict(run_id)
    assert (await parts.attempt(run_id)).container_id == waiting.container_id
    assert parts.pool.hits == Counter({"shell": 1})


async def test_a_thousand_tasks_have_a_thousand_containers(tmp_path: Path, host: FakeHost) -> None:
    """None serves two, whether it waited or not, in ten lives of an agent."""
    hits, used = 0, Counter[str]()
    for life in range(10):
        async with warm_agent(tmp_path, host, rules=PoolRules(Wish(20), 256), max_running=20) as parts:
            await parts.reconciler.reconcile()
            for batch in range(4):
                await until(lambda: parts.pool.ready("shell") > 0, "some wait")
                names = [f"{life}-{batch}-{number}" for number in range(25)]
                accepted = await asyncio.gather(*(send(parts, "exit 0\n", name) for name in names))
                for one in accepted:
                    await parts.verdict(one.run_id)
            hits += parts.pool.hits["shell"]
            used = Counter(line["container_id"] for line in await parts.audited("task started"))
    assert (len(used), set(used.values())) == (1000, {1})
    assert hits >= 40


# --- what happens to a container that waits ------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["killed", "removed", "paused"])
async def test_a_container_that_is_disturbed_is_not_used(parts: Parts, fate: str) -> None:
    """It is removed and replaced; the task that comes has another, or a cold one."""
    (waiting,) = await filled(parts)
    await _strike(parts, waiting, fate)
    await until(lambda: waiting.name not in parts.pool.slots, "dropped")
    verdict = await parts.verdict((await send(parts)).run_id)
    assert verdict.outcome is Outcome.SUCCEEDED
    (started,) = await parts.audited("task started")
    assert started["container_id"] != waiting.container_id
    await only_waiting(parts)


@pytest.mark.parametrize("fate", ["killed", "removed", "paused"])
async def test_one_that_is_disturbed_while_it_is_claimed_does_not_come_back(parts: Parts, fate: str) -> None:
    """It is given back, and nobody gets it."""
    (waiting,) = await filled(parts)
    lane = FastLane(parts.walk, parts.dispatcher.hold)
    runner = parts.catalogs.current.runners["shell"]
    claim = lane.walk.claim(runner)
    assert claim is not None
    await _strike(parts, waiting, fate)
    for _ in range(10):
        await asyncio.sleep(0)
    lane.walk.unclaim(claim, is_untouched=True)
    await filled(parts)
    run_id = await parts.post("print hi\n")
    assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED
    assert (await parts.attempt(run_id)).tries == 0
    await only_waiting(parts)


async def _strike(parts: Parts, container: Container, fate: str) -> None:
    if fate == "killed":
        parts.host.signal(container, Signal.KILL)
    elif fate == "removed":
        await parts.host.remove(container)
    else:
        parts.host.pause(container)


async def test_a_spoiled_claim_goes_back_into_the_queue(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Struck while the commit is under way: requeued without a failed try, and cold the next time."""
    (waiting,) = await filled(parts)
    accept = parts.journal.accept

    async def struck(*args: Any, **more: Any) -> Accepted:
        assert parts.walk.places.active, "claimed"
        parts.host.signal(waiting, Signal.KILL)
        return await accept(*args, **more)

    monkeypatch.setattr(parts.journal, "accept", struck)
    accepted = await send(parts)
    assert (await parts.verdict(accepted.run_id)).outcome is Outcome.SUCCEEDED
    attempt = await parts.attempt(accepted.run_id)
    assert (attempt.tries, attempt.container_id == waiting.container_id) == (0, False)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_lost_contact_to_the_engine_costs_all_that_wait(parts: Parts, *, restarted: bool) -> None:
    """Nobody knows what they went through: others take their place."""
    (waiting,) = await filled(parts)
    parts.engine.go_away()
    assert parts.pool.claim(spec_of(parts)) is None
    await parts.engine.come_back(restarted=restarted, kill_running=restarted)
    await until(lambda: waiting.container_id not in parts.host.containers, "removed as soon as the engine is back")
    (other,) = await filled(parts)
    assert other.container_id != waiting.container_id


async def test_an_image_that_moves_costs_all_that_wait(parts: Parts) -> None:
    """The tag leads to another image: what waits is of the old one."""
    (waiting,) = await filled(parts)
    parts.host.tag(IMAGE, "sha256:9")
    await until(lambda: waiting.name not in parts.pool.slots, "dropped")
    (other,) = await filled(parts)
    assert other.spec is not None
    assert other.spec.image == "sha256:9"


async def test_a_changed_catalog_costs_what_it_changes(parts: Parts) -> None:
    """The runner has other limits: a task that is accepted now gets them; one that is gone has none that wait."""
    (waiting,) = await filled(parts)
    parts.catalogs.replace(catalog_of(shell={"memory": "64MiB"}))  # noqa: S604  a runner
    run_id = (await send(parts)).run_id
    assert (await parts.verdict(run_id)).outcome is Outcome.SUCCEEDED
    attempt = await parts.attempt(run_id)
    assert (attempt.memory_bytes, attempt.container_id == waiting.container_id) == (64 * 2**20, False)
    await only_waiting(parts)


async def test_an_old_one_is_replaced(tmp_path: Path, host: FakeHost) -> None:
    """After its age nobody gets it any more."""
    async with warm_agent(tmp_path, host, rules=PoolRules(Wish(1), 256, max_age_s=0.05)) as parts:
        (waiting,) = await filled(parts)
        await asyncio.sleep(0.06)
        assert parts.pool.claim(spec_of(parts)) is None
        await until(lambda: waiting.container_id not in host.containers, "removed")


async def test_a_mount_that_leads_elsewhere_costs_what_waits(tmp_path: Path, host: FakeHost) -> None:
    """A runner with mounts has none that wait unless the catalog asks for them; then the file behind is looked at."""
    hosts = tmp_path / "hosts"
    hosts.write_text("one\n")
    mounts = {"mounts": [{"source": str(hosts), "target": "/hosts"}]}
    home = tmp_path / "state"
    home.mkdir()
    async with warm_agent(home, host, catalog=catalog_of(shell=mounts | {"warm": 1})) as parts:
        (waiting,) = await filled(parts)
        (tmp_path / "new").write_text("two\n")
        (tmp_path / "new").rename(hosts)
        look_again(parts)
        await until(lambda: waiting.name not in parts.pool.slots, "dropped")
    assert Wish(1).of(catalog_of(shell=mounts).runners["shell"]) == 0


def spec_of(parts: Parts) -> planner.RunSpec:
    """The plan of the shell runner as it is now."""
    return planner.plan(parts.catalogs.current.runners["shell"], LIMITS, LABELS)


# --- what happens to the pool --------------------------------------------------------------------------------------


async def test_a_failure_to_prepare_is_no_failure_of_a_task(parts: Parts) -> None:
    """It is tried again, later each time; once it works, containers wait again."""
    (waiting,) = await filled(parts)
    parts.engine.errors["create"] = EngineError("the engine refused: no")
    await parts.host.remove(waiting)
    await until(lambda: parts.pool._filling.has_failed("shell"), "failed")
    assert parts.readiness.problems == {}
    del parts.engine.errors["create"]
    await filled(parts)
    await only_waiting(parts)


async def test_what_is_half_made_when_the_engine_goes_away_is_removed_when_it_is_back(parts: Parts) -> None:
    """Not when the reconciler finds it, after a minute or two."""
    (waiting,) = await filled(parts)
    gone = EngineUnavailable("the engine is away")
    parts.engine.errors |= {"start": gone, "remove": gone}
    await parts.host.remove(waiting)
    await until(lambda: bool(parts.host.containers) and not parts.pool._filling.slots, "half made, and given up")
    parts.engine.errors.clear()
    look_again(parts)
    await filled(parts)
    await only_waiting(parts)


async def test_a_task_that_runs_cold_for_long_does_not_keep_others_cold(tmp_path: Path, host: FakeHost) -> None:
    """None is prepared ahead while one is prepared for a task; from its release on they are."""
    async with agent(tmp_path, host, rules=RULES) as parts:
        parts.go(parts.dispatcher.run())
        run_id = await parts.post("print begun\nforever\n")
        await parts.in_state(run_id, State.RUNNING)
        parts.pool.fit(INFO)
        parts.go(parts.pool.run())
        await until(lambda: parts.pool.ready("shell") == 1, "one waits")
        assert (await parts.attempt(run_id)).state is State.RUNNING


async def test_a_burst_is_not_slowed_by_refilling(tmp_path: Path, host: FakeHost) -> None:
    """While several tasks just start none is prepared; when all but one of them have ended, they are."""
    async with warm_agent(tmp_path, host, rules=PoolRules(Wish(2), 256, young_s=3600)) as parts:
        await filled(parts, 2)
        # At once: after the first alone, one may be prepared already.
        sent = await asyncio.gather(*(send(parts, "print begun\nforever\n", task_id) for task_id in "ab"))
        runs = [attempt.run_id for attempt in sent]
        for run_id in runs:
            await parts.printed(run_id, b"begun")
        look_again(parts)
        await until(lambda: parts.pool._looked_s > 0, "looked")
        await asyncio.sleep(0.2)
        assert parts.pool.ready("shell") == 0
        await parts.journal.request_cancel("a")
        await filled(parts, 2)
        assert (await parts.attempt(runs[1])).state is State.RUNNING


async def test_where_memory_is_short_nothing_waits(tmp_path: Path, host: FakeHost) -> None:
    """What nobody needs yet goes first, a warning says so, tasks run cold, and it comes back by itself."""
    share = [0.5]
    async with warm_agent(tmp_path, host, memory_left=lambda: share[0]) as parts:
        await filled(parts)
        for number, (now, waiting) in enumerate(((0.07, 0), (0.1, 0), (0.13, 1), (0.1, 1))):
            share[0] = now
            look_again(parts)
            await until(lambda: parts.pool.ready("shell") == waiting, f"{now}: {waiting} wait")  # noqa: B023
            assert ("memory" in parts.readiness.warnings) == (waiting == 0)
            assert parts.readiness.problems == {}
            assert (await parts.verdict((await send(parts, task_id=str(number))).run_id)).outcome is Outcome.SUCCEEDED


async def test_a_runner_that_pulls_for_long_holds_up_no_other(tmp_path: Path, host: FakeHost) -> None:
    """Its registry does not answer: the others are filled, looked at, and filled again."""
    slow = {"slow": {"image": "registry.example/slow:1", "pull": "always", "warm": 1, "match": {"suffixes": [".slow"]}}}
    host.silent.add("registry.example/slow:1")
    async with warm_agent(tmp_path, host, catalog=catalog_of(**slow)) as parts:
        (waiting,) = await filled(parts)
        await host.remove(waiting)
        await until(lambda: waiting.name not in parts.pool.slots, "dropped")
        (other,) = [one for one in await filled(parts) if one.labels["agp.runner"] == "shell"]
        assert other.container_id != waiting.container_id
        assert parts.pool.ready("slow") == 0


async def test_what_is_not_wanted_any_more_is_dropped(parts: Parts) -> None:
    """Also where nobody has said yet how many there are to be by the new catalog."""
    await filled(parts)
    parts.catalogs.replace(catalog_of())
    parts.pool.wanted.clear()
    parts.pool._news.set()
    await until(lambda: parts.pool.ready("shell") == 0, "dropped")
    parts.pool.fit(INFO)
    await filled(parts)


async def test_none_is_prepared_while_something_is_missing_or_the_agent_stops(tmp_path: Path, host: FakeHost) -> None:
    """A full disk, a drain: there is nothing that a container would wait for."""
    async with agent(tmp_path, host, rules=RULES) as parts:
        parts.pool.fit(INFO)
        parts.readiness.report("disk", "it is full")
        parts.go(parts.pool.run())
        await asyncio.sleep(0.05)
        assert host.containers == {}
        parts.readiness.report("disk", None)
        await filled(parts)


async def test_a_drain_removes_all_that_wait(parts: Parts) -> None:
    """Containers, slots, and no more come."""
    await filled(parts)
    parts.readiness.drain()
    await parts.pool.drain()
    assert (parts.host.containers, list((parts.folder / "slots").iterdir())) == ({}, [])
    await asyncio.sleep(0.05)
    assert parts.host.containers == {}


async def test_what_a_dead_agent_left_ends_and_is_removed(tmp_path: Path, host: FakeHost) -> None:
    """Its stdin closes with the agent; the next one removes it at its first contact."""
    async with warm_agent(tmp_path, host) as parts:
        (waiting,) = await filled(parts)
    await until(lambda: not waiting.running, "ended by itself")
    async with agent(tmp_path, host) as parts:
        await parts.reconciler.reconcile()
        await parts.clean()


async def test_an_agent_that_dies_before_the_release_starts_the_task_once(tmp_path: Path, host: FakeHost) -> None:
    """The row says running, and nothing was handed over: the next agent runs it, though the engine has forgotten."""
    async with warm_agent(tmp_path, host) as parts:
        await filled(parts)
        parts.slots.may_fill.clear()
        accepted = await send(parts)
        await until(parts.slots.filling.is_set, "about to be handed over")
        await parts.freeze()
    host.events.clear()
    async with agent(tmp_path, host) as parts:
        await parts.reconciler.reconcile()
        parts.go(parts.dispatcher.run())
        assert (await parts.verdict(accepted.run_id)).outcome is Outcome.SUCCEEDED
        await parts.clean()


async def test_the_reconciler_spares_what_waits(parts: Parts) -> None:
    """It has no row, and is of this agent's making."""
    (waiting,) = await filled(parts)
    await parts.reconciler.reconcile(grace_s=0)
    assert (waiting.running, parts.pool.ready("shell")) == (True, 1)


async def test_ready_can_wait_for_them(tmp_path: Path, host: FakeHost) -> None:
    """Where the operator asks for it the agent is ready once they wait, or were tried."""
    async with agent(tmp_path, host, rules=PoolRules(Wish(1), 256, before_ready=True)) as parts:
        assert not parts.readiness.ready
        parts.pool.fit(INFO)
        parts.go(parts.pool.run())
        await until(lambda: parts.readiness.ready, "ready")
        assert parts.pool.ready("shell") == 1
    host.images.clear()
    async with agent(tmp_path, host, rules=PoolRules(Wish(1), 256, before_ready=True)) as parts:
        parts.pool.fit(INFO)
        parts.go(parts.pool.run())
        await until(lambda: parts.readiness.ready, "ready without any")


# --- how many ------------------------------------------------------------------------------------------------------


def sized(wish: Wish, *, uids: int = 256, memory_bytes: int = 2**34) -> dict[str, int]:
    """Decide for a host of this size: one runner takes 512 MiB, the other 4 GiB."""
    catalog = catalog_of(big={"memory": "4GiB"})
    rooms = (pool_sizes.room_of_users(uids), pool_sizes.room_of_memory(memory_bytes, catalog.largest_memory_bytes))
    for room in rooms:
        room.check(catalog, wish)
    return pool_sizes.sizes(catalog, wish, *rooms)


@pytest.mark.parametrize(
    ("wish", "room", "expected"),
    [
        (Wish(1), {}, {"shell": 1, "big": 1}),
        (NONE_WARM, {}, {"shell": 0, "big": 0}),
        (Wish(1), {"uids": 1}, {"shell": 0, "big": 0}),
        (Wish(1), {"uids": 2}, {"shell": 1, "big": 0}),
        (Wish(1), {"memory_bytes": 2**33}, {"shell": 1, "big": 0}),
        (Wish(1), {"memory_bytes": 2**30}, {"shell": 0, "big": 0}),
        (Wish(2, is_asked=True), {"memory_bytes": 2**35}, {"shell": 2, "big": 2}),
    ],
)
def test_by_default_there_are_as_many_as_fit(wish: Wish, room: dict[str, int], expected: dict[str, int]) -> None:
    """Users and memory are left for at least one task; nobody is bothered."""
    assert sized(wish, **room) == expected


@pytest.mark.parametrize(
    ("wish", "room", "sentence"),
    [
        (Wish(2, is_asked=True), {"uids": 4}, r"holds 4 user ids; the warm containers \(shell 2 \+ big 2\) need 4 and"),
        (
            Wish(1, is_asked=True),
            {"memory_bytes": 2**33},
            r"\(shell 1 \+ big 1\) may take 4608 MiB and the largest task 4096 MiB, and 80% .* are 6553 MiB",
        ),
    ],
)
def test_what_an_operator_asks_for_and_cannot_have_is_refused(wish: Wish, room: dict[str, int], sentence: str) -> None:
    """With the arithmetic."""
    with pytest.raises(ConfigurationError, match=sentence):
        sized(wish, **room)


async def test_a_catalog_that_asks_for_too_many_later_is_a_warning(parts: Parts) -> None:
    """An agent at work is not ended by it: as many wait as fit."""
    await filled(parts)
    parts.catalogs.replace(catalog_of(shell={"warm": 300}))  # noqa: S604  a runner
    parts.pool.fit(INFO)
    assert "(shell 300) may take 153600 MiB" in parts.readiness.warnings["warm containers"]
    assert parts.pool.wanted["shell"] < 300
    parts.catalogs.replace(catalog_of())
    parts.pool.fit(INFO)
    assert parts.readiness.warnings == {}
