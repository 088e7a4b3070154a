"""What strikes the agent in a round: its own death at some instant or at a step of the walk, or the engine's."""

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from campaign.book import WRONG, Book
from campaign.mix import Maker, deaf, slow
from support.agent_process import AgentProcess
from support.deaths import Gates
from support.own_engine import OwnEngine
from support.strikes import STEPS, Needs, Step

_UPTIME_S: Final = 2.5
"""Longest life of an agent before a random strike."""
_RECOVERY_S: Final = 1.2
_DRAIN_S: Final = 1.5
_STEP_PATIENCE_S: Final = 8.0
"""A step that no task came to by then is struck somewhere else."""
_DEAF_PATIENCE_S: Final = 12.0
"""A task that is stopped runs until its deadline and the grace are over."""
_LOOK_S: Final = 0.001
_REAP_S: Final = 10.0
STEP: Final = "at: "
"""Begins the names of the strikes at a step."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a strike may strike at. ``draw`` is this round's own chance, ``pace`` shortens what time there is."""

    agent: AgentProcess
    gates: Gates
    engine: OwnEngine | None
    book: Book
    bring: Callable[[Maker], None]
    """Send a task of this kind beside what flows."""
    draw: random.Random
    pace: float

    def live(self, longest_s: float = _UPTIME_S) -> None:
        """Let time go by, up to so much."""
        time.sleep(self.draw.uniform(0, longest_s) * self.pace)


@dataclass(frozen=True, slots=True)
class Strike:
    """``act`` returns once it has struck: True where it went as its name says. The agent may be dead then, or not."""

    name: str
    act: Callable[[Scene], bool]


# --- the agent ---------------------------------------------------------------------------------------------------


def _at_random(scene: Scene) -> bool:
    scene.live()
    scene.agent.kill()
    return True


def _at_step(step: Step) -> Strike:
    """SIGKILL where the walk of some task comes to this step."""

    def act(scene: Scene) -> bool:
        try:
            with contextlib.suppress(OSError):  # it was struck before all of it was watched
                _ARM[step.needs](scene, step)
            return scene.agent.process.wait(_patience_s(step)) == -signal.SIGKILL
        except (AssertionError, subprocess.TimeoutExpired):
            return False
        finally:
            scene.gates.forget()
            scene.agent.kill()
            for trace in scene.agent.folder.glob("strace*.log"):
                trace.unlink(missing_ok=True)

    return Strike(STEP + step.name, act)


def _patience_s(step: Step) -> float:
    return _DEAF_PATIENCE_S if step.needs is Needs.A_DEAF_TASK else _STEP_PATIENCE_S


def _arm(scene: Scene, step: Step) -> None:
    # Whoever is waited for is no zombie when dead: then whoever still attaches to it sees that it is gone.
    threading.Thread(target=scene.agent.process.wait, name="reaper", daemon=True).start()
    step.arm(scene.agent, scene.gates)


def _arm_for_a_deaf_task(scene: Scene, step: Step) -> None:
    _arm(scene, step)
    scene.bring(deaf)


def _arm_for_an_adopted_task(scene: Scene, step: Step) -> None:
    """Kill the agent once a task has started: the next one finds that, running or ended, and dies of it."""
    scene.bring(slow)
    assert _wait_line(scene.agent, b'"event": "task started"'), "nothing was started"
    scene.agent.kill()
    step.arm(scene.agent, scene.gates, of_next=True)
    with contextlib.suppress(AssertionError):  # it was dead before it listened
        scene.agent.start(ready=False)


_ARM: Final = {
    Needs.A_TASK: _arm,
    Needs.A_DEAF_TASK: _arm_for_a_deaf_task,
    Needs.AN_ADOPTED_TASK: _arm_for_an_adopted_task,
}


def _at_event(event: str) -> Strike:
    """SIGKILL as soon as the agent says so in its log."""

    def act(scene: Scene) -> bool:
        scene.live()
        found = _wait_line(scene.agent, f'"event": "{event}"'.encode())
        scene.agent.kill()
        return found

    return Strike(f"SIGKILL at '{event}'", act)


def _wait_line(agent: AgentProcess, text: bytes) -> bool:
    give_up_s = time.monotonic() + _STEP_PATIENCE_S
    with agent.log_path.open("rb") as log:
        log.seek(0, 2)
        seen = b""
        while text not in seen and time.monotonic() < give_up_s:
            seen = seen[-len(text) :] + log.read()
            time.sleep(_LOOK_S)
    return text in seen


def _recovering(scene: Scene) -> bool:
    """SIGKILL, and again and again while it takes up what it finds."""
    scene.live()
    scene.agent.kill()
    for _ in range(scene.draw.randint(1, 3)):
        timer = threading.Timer(scene.draw.uniform(0.1, _RECOVERY_S), _kill_newest, [scene.agent])
        timer.start()
        with contextlib.suppress(AssertionError):  # it was dead before it listened
            scene.agent.start(ready=False)
        timer.join()
        scene.agent.kill()
    return True


def _kill_newest(agent: AgentProcess) -> None:
    agent.process.kill()


def _draining(scene: Scene) -> bool:
    """SIGTERM, and SIGKILL before it is done."""
    scene.live()
    scene.agent.signal(signal.SIGTERM)
    scene.live(_DRAIN_S)
    scene.agent.kill()
    return True


def _drained(scene: Scene) -> bool:
    """SIGTERM; it ends by itself."""
    scene.live()
    return _terminated(scene)


def _hurried(scene: Scene) -> bool:
    """SIGTERM, and a second one: it ends at once."""
    scene.live()
    scene.agent.signal(signal.SIGTERM)
    scene.live(_DRAIN_S)
    return _terminated(scene)


def _terminated(scene: Scene) -> bool:
    scene.agent.signal(signal.SIGTERM)
    if (code := scene.agent.wait()) != 0:
        scene.book.violate(WRONG, "the agent", f"ended with exit code {code} after SIGTERM")
    return True


# --- the engine ----------------------------------------------------------------------------------------------------


def _engine_dies(scene: Scene) -> bool:
    """SIGKILL or SIGTERM of dockerd; one time out of three the agent dies meanwhile."""
    assert scene.engine is not None
    scene.live()
    scene.book.engine_dies()
    (scene.engine.kill if scene.draw.random() < 1 / 2 else scene.engine.stop)()
    scene.live(1)
    if scene.draw.random() < 1 / 3:
        scene.agent.kill()
        scene.agent.start(ready=False)
    scene.engine.start()
    scene.agent.wait_ready()
    scene.book.engine_dies()  # what was accepted while it was away
    return True


# --- the choice ----------------------------------------------------------------------------------------------------

EVENTS: Final = ("task accepted", "task started", "task finished", "task delivered")
ENGINE: Final = Strike("dockerd dies", _engine_dies)
_OTHERS: Final = (
    (Strike("SIGKILL at random", _at_random), 20),
    (Strike("SIGKILL while recovering", _recovering), 10),
    *((_at_event(event), 1) for event in EVENTS),
    (Strike("SIGTERM, SIGKILL", _draining), 6),
    (Strike("SIGTERM", _drained), 4),
    (Strike("SIGTERM twice", _hurried), 4),
)


class Quiver:
    """All strikes, each second one at a step of the walk. Each step has its turn before one comes again.

    The seed decides the order.
    """

    def __init__(self, seed: str) -> None:
        """``seed`` as the campaign has it."""
        self._steps = self._shuffled(random.Random(seed))  # noqa: S311  a seed repeats it
        self._at_step = False

    def choose(self, draw: random.Random) -> Strike:
        """The next one."""
        self._at_step = not self._at_step
        if self._at_step:
            return _at_step(next(self._steps))
        return draw.choices([strike for strike, _ in _OTHERS], [weight for _, weight in _OTHERS])[0]

    @staticmethod
    def _shuffled(draw: random.Random) -> Iterator[Step]:
        while True:
            yield from draw.sample(STEPS, len(STEPS))
