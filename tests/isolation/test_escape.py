"""Each attempt twice: as a task, where it must come to nothing, and with one hole in the lockdown, where it succeeds.

The host's state is the judge. An attempt whose control arm does not succeed proves nothing, and fails here.
"""

from pathlib import Path

import docker
import pytest

from agp_agent.catalog import Runner
from agp_agent.doctor.boxes import Boxes
from agp_agent.doctor.escape import Host, Verdict, outcome
from agp_agent.engine import ContainerEngine
from isolation.arms import ARMS, Arms
from isolation.control import control
from isolation.table import Row, Table, worked
from support.async_waiting import until

FINISHED = b'"finished"'
HOLD_S = 120
"""A program waits so long with what it took, and is removed as soon as the judge has looked."""


@pytest.mark.parametrize("arms", ARMS, ids=[f"{arms.number:02} {arms.attempt.title}" for arms in ARMS])
async def test_an_attempt_fails_under_the_lockdown_and_succeeds_without(
    arms: Arms,
    engine: ContainerEngine,
    boxes: Boxes,
    runner: Runner,
    client: docker.DockerClient,
    tmp_path: Path,
    table: Table,
) -> None:
    """The host is unharmed after the task, and harmed by the same program in the control container."""
    attempt = arms.attempt
    locked_folder, control_folder = tmp_path / "locked", tmp_path / "control"
    locked_folder.mkdir()
    control_folder.mkdir()
    shared = {"image": runner.image, "hold_s": HOLD_S}
    async with arms.judge(client)(Host(engine, locked_folder)) as scene:
        playbook = attempt.playbook({**shared, **scene.facts})
        with_image = runner.model_copy(update={"image": scene.facts.get("image", runner.image)})
        async with boxes.running(with_image, playbook, HOLD_S) as box:
            await until(lambda: FINISHED in box.output, "the program comes to its end")
            harm = await scene.harm(box)
            locked = outcome(box.output, harm)
    assert (locked.verdict, harm) == (Verdict.HELD, None), locked.why

    async with arms.judge(client)(Host(engine, control_folder)) as scene:
        hole = arms.hole(scene.facts)
        playbook = attempt.playbook({**shared, **scene.facts, **hole.facts})
        async with control(client, control_folder, playbook, hole) as open_box:
            await open_box.printed(FINISHED)
            harm = await scene.harm(open_box)
            without = outcome(open_box.output, harm)
    assert harm is not None, f"the control arm does not show that the attempt is real: {without.why}"
    assert without.verdict is Verdict.ESCAPED
    shown = worked(open_box.output)
    table.add(Row(attempt.number, attempt.title, attempt.held_by, locked.tried, locked.verdict, hole.name, harm, shown))
