"""Fencing: the bridge and the helper, and what each failure means."""

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agp_agent.engine import Helped
from agp_agent.errors import EngineUnavailable, NotFenced
from agp_agent.fencing import Fencing
from agp_agent.planner import RunSpec, plan
from fakes.fake_engine import FakeEngine
from fakes.fake_host import FakeHost
from support.agent_parts import FENCE_IMAGE, LABELS, LIMITS, catalog_of, machine

NAME = f"agp-{LABELS['agp.instance']}"


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@pytest.fixture
def engine(host: FakeHost) -> FakeEngine:
    """The agent's connection to it."""
    return FakeEngine(host)


@pytest.fixture
def fencing(engine: FakeEngine, tmp_path: Path) -> Fencing:
    """What is tested, on a machine with two addresses."""
    fib_trie = tmp_path / "fib_trie"
    fib_trie.write_text("|-- 10.9.8.7\n/32 host LOCAL\n|-- 203.0.113.7\n/32 host LOCAL\n")
    return Fencing(engine, LABELS, image=FENCE_IMAGE, deny=(IPv4Network("198.51.100.0/24"),), fib_trie=fib_trie)


@pytest.fixture
def spec() -> RunSpec:
    """The plan of a network runner."""
    return plan(catalog_of(net={"network": "outbound", "allow": ["10.1.1.1:22"]}).runners["net"], LIMITS, LABELS)


async def started(engine: FakeEngine, host: FakeHost) -> str:
    """A container that waits for its release."""
    container = host.plant("agp-1", LABELS)
    await engine.start(container.container_id)
    return container.container_id


async def test_a_fence_is_put_up_beside_the_container(
    fencing: Fencing, engine: FakeEngine, host: FakeHost, spec: RunSpec
) -> None:
    """Its rules are the runner's, and refuse what the settings and the machine itself say."""
    container_id = await started(engine, host)
    fence = await fencing.fence_in(container_id, spec, 20007)
    rules = "\n".join(host.containers[container_id].rules)
    assert rules == "\n".join(fence.rules)
    assert "ip daddr 10.1.1.1/32 meta l4proto { tcp, udp } th dport 22" in rules
    assert "203.0.113.7/32" in rules
    assert "198.51.100.0/24" in rules


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Helped(1, "Error: Could not\nprocess rule"), r"ended with 1 \(Error: Could not process rule\)"),
        (Helped(127, ""), r"ended with 127 \(it said nothing\)"),
        (Helped(0, ""), "the kernel does not show the rules"),
    ],
)
async def test_a_fence_that_does_not_stand_is_told(
    fencing: Fencing, engine: FakeEngine, host: FakeHost, spec: RunSpec, answer: Helped, why: str
) -> None:
    """With what the helper said."""
    host.helper_answer = answer
    with pytest.raises(NotFenced, match=why):
        await fencing.fence_in(await started(engine, host), spec, 20007)


async def test_without_its_image_there_is_no_fence(
    fencing: Fencing, engine: FakeEngine, host: FakeHost, spec: RunSpec
) -> None:
    """The sentence names image and setting."""
    del host.images[FENCE_IMAGE]
    with pytest.raises(NotFenced, match=f"image {FENCE_IMAGE} is not available: .*; AGP_FENCE_IMAGE names it"):
        await fencing.fence_in(await started(engine, host), spec, 20007)


async def test_an_image_that_can_be_pulled_is_pulled(engine: FakeEngine, host: FakeHost, spec: RunSpec) -> None:
    """Where the operator named one of his own."""
    host.registry["registry.example/fence:1"] = host.images[FENCE_IMAGE]
    named = Fencing(engine, LABELS, image="registry.example/fence:1")
    await named.fence_in(await started(engine, host), spec, 20007)
    assert host.pulls == ["registry.example/fence:1"]


async def test_an_image_of_the_agent_s_own_name_is_never_pulled(
    fencing: Fencing, engine: FakeEngine, host: FakeHost, spec: RunSpec
) -> None:
    """Whoever has that name on a public registry would be root in a task's network."""
    host.registry[FENCE_IMAGE] = host.images.pop(FENCE_IMAGE)
    with pytest.raises(NotFenced, match="AGP_FENCE_IMAGE names it"):
        await fencing.fence_in(await started(engine, host), spec, 20007)
    assert host.pulls == []


async def test_a_helper_with_other_rights_is_no_fence(
    fencing: Fencing, engine: FakeEngine, host: FakeHost, spec: RunSpec
) -> None:
    """An engine that makes it privileged is not trusted with it."""
    host.weaken = ("Privileged",)
    with pytest.raises(NotFenced, match="helper that differs in Privileged"):
        await fencing.fence_in(await started(engine, host), spec, 20007)


async def test_an_engine_that_is_away_says_nothing_about_the_fence(
    fencing: Fencing, engine: FakeEngine, host: FakeHost, spec: RunSpec
) -> None:
    """The task goes back into the queue."""
    container_id = await started(engine, host)
    engine.go_away()
    with pytest.raises(EngineUnavailable):
        await fencing.fence_in(container_id, spec, 20007)
    with pytest.raises(EngineUnavailable):
        await fencing.bridge()


async def test_a_bridge_of_somebody_else_is_neither_used_nor_removed(fencing: Fencing, engine: FakeEngine) -> None:
    """It is an error, and it stays."""
    theirs = await engine.ensure_bridge(NAME, {"whose": "another's"})
    with pytest.raises(NotFenced, match=r"the runner has no network: .* differs in Labels"):
        await fencing.bridge()
    await fencing.aclose()
    assert await engine.ensure_bridge(NAME, {"whose": "another's"}) == theirs


async def test_the_bridge_is_removed_in_the_end(fencing: Fencing, host: FakeHost) -> None:
    """Where it was made at all, and nobody uses it."""
    await fencing.aclose()
    await fencing.bridge()
    assert list(host.bridges) == [NAME]
    await fencing.aclose()
    assert host.bridges == {}


async def test_a_bridge_in_use_is_left_to_the_next_agent(fencing: Fencing, host: FakeHost, spec: RunSpec) -> None:
    """Its containers run on."""
    await fencing.bridge()
    container = host.plant("agp-1", LABELS)
    container.spec = replace(spec.container, network=NAME)
    await fencing.aclose()
    assert list(host.bridges) == [NAME]
