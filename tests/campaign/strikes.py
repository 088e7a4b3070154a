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
from support.agent_process import AgentProcess
from support.own_engine import OwnEngine
from support.strikes import STEPS, Gates, Step

_UPTIME_S: Final = 2.5
"""Longest life of an agent before a random strike."""
_RECOVERY_S: Final = 1.2
_DRAIN_S: Final = 1.5
_STEP_PATIENCE_S: Final = 8.0
"""A step that no task came to by then is struck somewhere else."""
_LEAST_PACE: Final = 0.5
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
        process = scene.agent.process
        # Whoever is waited for is no zombie when dead: then whoever still attaches to it sees that it is gone.
        threading.Thread(target=process.wait, name="reaper", daemon=True).start()
        try:
            with contextlib.suppress(OSError):  # it was struck before all of it was watched
                step.arm(scene.agent, scene.gates)
            return process.wait(_STEP_PATIENCE_S * max(scene.pace, _LEAST_PACE)) == -signal.SIGKILL
        except (AssertionError, subprocess.TimeoutExpired):
            return False
        finally:
            scene.gates.forget()
            scene.agent.kill()
            for trace in scene.agent.folder.glob("strace*.log"):
                trace.unlink(missing_ok=True)

    return Strike(STEP + step.name, act)


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
_AT_STEP: Final = 50
_OTHERS: Final = (
    (Strike("SIGKILL at random", _at_random), 20),
    (Strike("SIGKILL while recovering", _recovering), 10),
    *((_at_event(event), 1) for event in EVENTS),
    (Strike("SIGTERM, SIGKILL", _draining), 6),
    (Strike("SIGTERM", _drained), 4),
    (Strike("SIGTERM twice", _hurried), 4),
)


class Quiver:
    """All strikes. Each step of the walk has its turn before one comes again, in an order that the seed decides."""

    def __init__(self, seed: str) -> None:
        """``seed`` as the campaign has it."""
        self._steps = self._shuffled(random.Random(seed))  # noqa: S311  a seed repeats it

    def choose(self, draw: random.Random) -> Strike:
        """The next one."""
        others, weights = zip(*_OTHERS, strict=True)
        (other,) = draw.choices([None, *others], [_AT_STEP, *weights])
        return other or _at_step(next(self._steps))

    @staticmethod
    def _shuffled(draw: random.Random) -> Iterator[Step]:
        while True:
            yield from draw.sample(STEPS, len(STEPS))
