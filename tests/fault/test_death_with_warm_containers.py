"""Rows 1 to 5 where a container waits for the task: one commit takes it on and lets it start."""

import pytest

from support.agent_process import AgentProcess
from support.doomed import Doomed
from support.strikes import WARM_STEPS, Step
from support.waiting import eventually

pytest_plugins = ("fault.gated",)

SHORT = "echo one\nsleep 0.1\necho two\nexit 3\n"


def _waits(agent: AgentProcess) -> bool:
    return bool(agent.request("GET", "/status").json()["runners"]["shell"]["warm"]["ready"])


def _some(*numbers: int) -> tuple[Step, ...]:
    return tuple(WARM_STEPS[number] for number in numbers)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(_some(1, 2, 4), id="claim"),
        pytest.param(_some(6, 7, 10), id="release"),
        pytest.param(_some(0, 3, 5), id="more", marks=pytest.mark.campaign),
        pytest.param(_some(8, 9), id="and more", marks=pytest.mark.campaign),
    ],
)
def test_death_around_a_claim(doomed_warm: Doomed, steps: tuple[Step, ...]) -> None:
    """Rows 1, 2, 3, 4, 5: killed between POST and release, or at the refill, it runs once and is told as it was."""
    tasks = []
    for step in steps:
        task_id = doomed_warm.strike(step, SHORT)
        if step.row == 1:
            doomed_warm.watched.send(SHORT, task_id)
        doomed_warm.settle(task_id)
        eventually(lambda: _waits(doomed_warm.watched.agent), "a container waits again")
        tasks.append(task_id)
    doomed_warm.let_bystanders_go()
    results = doomed_warm.watched.check()
    ends = {(results[task_id]["output"].split("\n", 1)[1], results[task_id]["error"]) for task_id in tasks}
    assert ends == {("one\ntwo\n", "exit code 3")}
