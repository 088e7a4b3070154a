"""How the agent is, in one look."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent import __version__
from agp_agent.catalog import Catalog
from agp_agent.engine import EngineInfo
from agp_agent.lacks import Lack
from agp_agent.overview import FenceStatus, Overview
from agp_agent.planner import plan
from agp_agent.reach import Proof, Reach
from fakes.fake_engine import FakeEngine
from support.agent_parts import IMAGE, LIMITS, Parts, agent, catalog_of, machine


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An agent's parts; nothing that is accepted starts."""
    async with machine() as host, agent(tmp_path, host, max_running=4) as made:
        yield made


def overview(
    parts: Parts,
    engine: FakeEngine | None = None,
    runners: Catalog | None = None,
    reach: Reach | None = None,
    accepted: frozenset[Lack] = frozenset(),
) -> Overview:
    """Return what is tested."""
    return Overview(
        parts.journal,
        parts.audit,
        parts.readiness,
        engine or parts.engine,
        lambda: runners or parts.catalogs.current,
        LIMITS,
        reach or Reach(),
        accepted=accepted,
        agent_id="unit",
        max_queued=7,
    )


async def test_everything_is_told(parts: Parts) -> None:
    """Version, engine, runners with their digests and limits, places, queue, outbox, head of the trail."""
    await parts.post("print hi\n")
    status = await overview(parts, runners=catalog_of(other={"image": "agp/missing:1", "max_running": 2})).status()
    assert (status.version, status.agent_id, status.ready, status.draining) == (__version__, "unit", True, False)
    assert status.engine is not None
    assert (status.engine.name, status.engine.version) == ("fake", "1.0")
    shell, other = status.runners["shell"], status.runners["other"]
    assert (shell.image, shell.image_digest, shell.max_running) == (IMAGE, "sha256:1", None)
    assert (other.image_digest, other.max_running) == (None, 2)
    assert (shell.memory_bytes, shell.cpus, shell.pids, shell.timeout_s) == (512 * 2**20, 1.0, 256, 60)
    assert (shell.lockdown["capabilities"], shell.lockdown["root file system"]) == ("none", "read-only")
    assert (status.slots.max_running, status.slots.free) == (4, 4)
    assert (status.queue.queued, status.queue.running, status.queue.max_queued) == (1, 0, 7)
    assert (status.outbox.pending, status.outbox.dead_letters) == (0, 0)
    assert status.audit_head == str(parts.audit.head_on_disk)


async def test_the_network_of_a_runner_is_told_with_the_last_proof_of_its_fence(parts: Parts) -> None:
    """What it may reach, and what was found out about it; one that was not tried yet has no proof."""
    runners, reach = catalog_of(net={"network": "outbound", "allow": ["10.20.0.0/16:22"]}), Reach()
    seen = overview(parts, runners=runners, reach=reach)
    net, shell = (await seen.status()).runners["net"], (await seen.status()).runners["shell"]
    assert (shell.network, shell.allow, shell.fence, shell.lockdown["network"]) == ("none", [], None, "none")
    assert (net.network, net.allow, net.fence) == ("outbound", ["10.20.0.0/16:22"], None)
    assert net.lockdown["network"] == "fenced: the internet, and of what is not public 10.20.0.0/16:22 alone"
    await reach.set(plan(runners.runners["net"], LIMITS, {}), Proof("net", "it leaks", 7, {"gateway": "answered"}))
    assert (await seen.status()).runners["net"].fence == FenceStatus("it leaks", 7, {"gateway": "answered"})


async def test_what_the_engine_lacks_is_told_in_the_lockdown(parts: Parts) -> None:
    """All that is accepted while no engine was seen; then what it really lacks, which here is nothing."""
    accepted = frozenset({Lack.PIDS})
    assert (await overview(parts, accepted=accepted).status()).runners["shell"].lockdown["processes"] == "256"
    parts.engine.go_away()
    told = (await overview(parts, accepted=accepted).status()).runners["shell"].lockdown["processes"]
    assert told.startswith("not enforced")


async def test_what_is_wrong_is_told_by_its_part(parts: Parts) -> None:
    """Problems keep tasks from starting; warnings do not; neither is forgotten to be told."""
    parts.readiness.report("disk", "the disk is full")
    parts.readiness.warn("AGP_TOKEN_FILE", "it is broken")
    parts.readiness.drain()
    status = await overview(parts).status()
    assert (status.ready, status.draining, status.slots.free) == (False, True, 0)
    assert status.problems == {"disk": "the disk is full"}
    assert status.warnings == {"AGP_TOKEN_FILE": "it is broken"}


async def test_an_engine_that_is_away_is_told_as_none(parts: Parts) -> None:
    """And nothing else is missing."""
    parts.engine.go_away()
    status = await overview(parts).status()
    assert status.engine is None
    assert status.runners["shell"].image_digest is None


async def test_the_engine_is_not_asked_for_each_who_asks(parts: Parts) -> None:
    """Whoever asks how often: the last look is told for a while."""
    seen = overview(parts)
    await seen.status()
    asked = parts.engine.calls
    for _ in range(20):
        await seen.status()
    assert parts.engine.calls == asked


class HangingEngine(FakeEngine):
    """It never answers."""

    async def describe(self) -> EngineInfo:
        """Hang."""
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_engine_that_hangs_does_not_hang_who_asks(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known without it is told; it is asked once, not by each."""
    monkeypatch.setattr("agp_agent.overview._PATIENCE_S", 0.01)
    seen = overview(parts, HangingEngine(parts.host))
    for _ in range(3):
        assert (await seen.status()).engine is None
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "look at the engine"]) == 1
    await seen.aclose()
    await seen.aclose()
