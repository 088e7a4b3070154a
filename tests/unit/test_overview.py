"""How the agent is, in one look."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent import __version__
from agp_agent.catalog import Catalog
from agp_agent.docker_engine.translate import creation
from agp_agent.engine import ContainerSpec, EngineInfo
from agp_agent.overview import LOCKDOWN, Overview
from fakes.fake_engine import FakeEngine
from support.agent_parts import IMAGE, LIMITS, Parts, agent, catalog_of, machine


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An agent's parts; nothing that is accepted starts."""
    async with machine() as host, agent(tmp_path, host, max_running=4) as made:
        yield made


def overview(parts: Parts, engine: FakeEngine | None = None, runners: Catalog | None = None) -> Overview:
    """Return what is tested."""
    return Overview(
        parts.journal,
        parts.audit,
        parts.readiness,
        engine or parts.engine,
        lambda: runners or parts.catalogs.current,
        LIMITS,
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
    assert (status.slots.max_running, status.slots.free) == (4, 4)
    assert (status.queue.queued, status.queue.running, status.queue.max_queued) == (1, 0, 7)
    assert (status.outbox.pending, status.outbox.dead_letters) == (0, 0)
    assert status.audit_head == str(parts.audit.head_on_disk)


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


def test_the_lockdown_that_is_told_is_the_one_that_is_asked_for() -> None:
    """Each claim has its fields in what goes to the engine."""
    spec = ContainerSpec("n", "i", ("c",), 20000, {}, {}, (), {}, 2**29, 1.0, 256, 2**20)
    body = creation(spec)
    host: dict[str, Any] = body["HostConfig"]
    proofs = {
        "user": body["User"] == "20000:20000",
        "capabilities": host["CapDrop"] == ["ALL"],
        "new_privileges": "no-new-privileges:true" in host["SecurityOpt"],
        "root_filesystem": host["ReadonlyRootfs"] is True,
        "playbook": "Mounts" in host,
        "namespaces": (host["IpcMode"], host["CgroupnsMode"], host["PidMode"], host["UTSMode"])
        == ("private", "private", "", ""),
        "devices": "Devices" not in host and host["Privileged"] is False,
        "ports": host["PublishAllPorts"] is False,
        "swap": host["Memory"] == host["MemorySwap"],
        "core_files": {"Name": "core", "Soft": 0, "Hard": 0} in host["Ulimits"],
        "restart": host["RestartPolicy"]["Name"] == "no",
    }
    assert all(proofs.values()), proofs
    assert set(proofs) == set(LOCKDOWN)
