"""One audit event when a part begins to be a problem, one when it is well again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.degradation import Degradation
from agp_agent.readiness import Readiness
from support.agent_parts import Parts, agent, machine
from support.async_waiting import until_async

SETTLED_S = 0.05


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An agent's parts, with degradations audited."""
    async with machine() as host, agent(tmp_path, host) as made:
        yield made


@pytest.fixture
def degradation(parts: Parts) -> Degradation:
    """Hears what is reported, and soon believes that a part is well."""
    made = Degradation(parts.audit, SETTLED_S)
    parts.readiness.on_news = made.hear
    return made


async def test_a_degradation_is_one_event_and_its_end_another(parts: Parts, degradation: Degradation) -> None:
    """However often it is reported, and with whatever sentences."""
    del degradation
    for problem in ("it is full", "it is full", "it is still full"):
        parts.readiness.report("disk", problem)
    parts.readiness.report("disk", None)
    await until_async(lambda: parts.audited("agent recovered"), "the end")
    events = [(line["event"], line["part"], line.get("why")) for line in await parts.audited()]
    assert events == [("agent degraded", "disk", "it is full"), ("agent recovered", "disk", None)]


async def test_a_part_that_fails_again_at_once_was_not_well(parts: Parts, degradation: Degradation) -> None:
    """What is tried every second is well for a moment now and then."""
    for _ in range(3):
        parts.readiness.report("journal", "it cannot be written")
        parts.readiness.report("journal", None)
    parts.readiness.report("journal", "it cannot be written")
    await asyncio.sleep(3 * SETTLED_S)
    assert await parts.events() == ["agent degraded"]
    degradation.close()
    assert await parts.events() == ["agent degraded"]


async def test_parts_are_told_apart(parts: Parts, degradation: Degradation) -> None:
    """Each has its own two events; those that were well in the end are said to be so at the end."""
    parts.readiness.report("journal", "locked")
    parts.readiness.report("disk", "full")
    parts.readiness.report("journal", None)
    degradation.close()
    degradation.close()
    events = [(line["event"], line["part"]) for line in await parts.audited()]
    assert events == [("agent degraded", "journal"), ("agent degraded", "disk"), ("agent recovered", "journal")]


async def test_a_part_that_was_never_well_does_not_recover(parts: Parts) -> None:
    """The engine has not been reached yet when the agent starts."""
    degradation = Degradation(parts.audit, SETTLED_S)
    readiness = Readiness(problems={"engine": "not reached yet"}, on_news=degradation.hear)
    readiness.report("engine", None)
    degradation.close()
    assert await parts.events() == []
