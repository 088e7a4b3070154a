"""Proofs: who waits for one, and who is told what."""

import asyncio
from dataclasses import replace

import pytest

from agp_agent.planner import RunSpec, plan
from agp_agent.reach import Proof, Reach, subject_of
from support.agent_parts import LABELS, LIMITS, catalog_of
from support.async_waiting import settle

HELD = Proof("net", None, 1)
REFUSED = Proof("net", "the gateway answered", 2)


def spec(**fields: object) -> RunSpec:
    """The plan of a network runner."""
    return plan(catalog_of(net={"network": "outbound"} | fields).runners["net"], LIMITS, LABELS)


async def test_a_runner_without_a_network_needs_no_proof() -> None:
    """It is told at once, and nobody is asked for one."""
    reach = Reach()
    shell = plan(catalog_of().runners["shell"], LIMITS, LABELS)
    assert await reach.problem(shell) is None
    assert list(reach.wanted) == []


async def test_whoever_comes_before_the_first_proof_waits_for_it() -> None:
    """The canary hears of it, and all who wait are told the same."""
    reach, wanted = Reach(), spec()
    waiting = [asyncio.create_task(reach.problem(wanted)) for _ in range(3)]
    await asyncio.wait_for(reach.asked.wait(), 10)
    await settle()
    assert list(reach.wanted) == [wanted]
    assert not any(task.done() for task in waiting)
    await reach.set(wanted, REFUSED)
    assert await asyncio.gather(*waiting) == ["the gateway answered"] * 3
    assert list(reach.wanted) == []


async def test_the_latest_proof_counts() -> None:
    """A runner that was refused is used again once its fence holds."""
    reach = Reach()
    await reach.set(spec(), REFUSED)
    assert await reach.problem(spec()) == "the gateway answered"
    await reach.set(spec(), HELD)
    assert await reach.problem(spec()) is None
    assert reach.proofs == (HELD,)


@pytest.mark.parametrize("fields", [{"allow": ["10.1.1.1"]}, {"runtime": "runsc"}])
async def test_a_runner_that_reaches_other_things_needs_a_proof_of_its_own(fields: dict[str, object]) -> None:
    """The same name is not the same reach."""
    reach = Reach()
    await reach.set(spec(), HELD)
    assert reach.of(spec(**fields)) is None


async def test_a_runner_that_only_got_more_memory_keeps_its_proof() -> None:
    """Its reach is the same."""
    reach = Reach()
    await reach.set(spec(), HELD)
    assert await reach.problem(replace(spec(memory="64MiB"), timeout_s=1)) is None


async def test_what_is_in_the_catalog_no_more_is_forgotten() -> None:
    """And told, so that its warning can be taken back."""
    reach, other = Reach(), spec(allow=["10.1.1.1"])
    await reach.set(spec(), REFUSED)
    await reach.set(other, HELD)
    assert reach.keep({subject_of(other)}) == (REFUSED,)
    assert reach.proofs == (HELD,)
