"""Makes the attempts under the lockdown of tasks, one after another, each in a container of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from agp_agent.catalog import Runner
from agp_agent.doctor.boxes import Boxes
from agp_agent.doctor.escape.attempt import Attempt, Host, Outcome, outcome
from agp_agent.engine import ContainerEngine

_END_S = 30.0
"""Longer than any stop takes; a container that is still there then cannot be ended."""


async def attempt_all(
    boxes: Boxes, engine: ContainerEngine, runner: Runner, attempts: Iterable[Attempt]
) -> AsyncIterator[tuple[Attempt, Outcome]]:
    """Make each attempt and judge it.

    Raises:
        EngineError: an attempt could not be made, as a task could not.
    """
    for attempt in attempts:
        async with attempt.judge(Host(engine, boxes.folder)) as scene:
            playbook = attempt.playbook({"image": runner.image, **scene.facts})
            async with boxes.running(runner, playbook, attempt.timeout_s) as box:
                try:
                    async with asyncio.timeout(attempt.timeout_s + _END_S):
                        await box.ended()
                    harm = await scene.harm(box)
                except TimeoutError:
                    harm = "its container could not be ended"
                result = outcome(box.output, harm)
        yield attempt, result
