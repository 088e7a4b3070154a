"""One campaign from its begin to its end: sets all up, strikes round after round, and looks what became of it."""

import random
import shutil
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from campaign import leaks, strikes
from campaign.book import WRONG, Book
from campaign.flow import Flow
from campaign.mix import CATALOG, OUTPUT_LIMIT_BYTES, Maker, Mix, quick
from campaign.strikes import Scene, Strike
from campaign.weather import CALM, WEATHERS, MoodyDashboard, Weather
from support.agent_process import AgentProcess
from support.deaths import Gates
from support.http_gate import HttpGate
from support.own_engine import RUNNER_IMAGES, OwnEngine
from support.starts_seen import StartsSeen

QUIET_EVERY: Final = 25
ENGINE_EVERY: Final = 20
"""Rounds between two deaths of the engine. The last is one, too: an agent that lives on over it could leak."""
_WARM_TASKS: Final = 8
_LONG_LIFE: Final = (75, 1000)
"""Least and most tasks that one agent lives through in the end; in between it is three for each round."""
_WEATHER_EVERY: Final = 25
"""Tasks of the long life between two changes of the dashboard's mood."""
_MOOD_S: Final = 20.0
"""Or so long: while it is away, nothing more is sent soon."""
_TASK_S: Final = 4.0
"""More than a task of the long life takes on a busy machine."""
_PAUSE_S: Final = 0.4
_SETTLE_S: Final = 600.0
"""The back-off of a result that was refused often may be 5 minutes."""
_LOOK_S: Final = 0.05
_LOG_MAX_BYTES: Final = 16 * 2**20
_SETTINGS: Final = {
    "AGP_STOP_GRACE_S": "1",
    "AGP_MAX_RUNNING": "6",
    "AGP_DRAIN_TIMEOUT_S": "2",
    "AGP_TASK_TIMEOUT_S": "120",
    "AGP_OUTPUT_LIMIT_BYTES": str(OUTPUT_LIMIT_BYTES),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. The seed decides tasks, strikes and the dashboard's moods; time decides the rest."""

    rounds: int
    seed: str
    own_engine: bool
    folder: Path = Path("/var/tmp")
    pace: float = 1.0
    """Below 1: less time before a strike, and more tasks in it."""
    warm: int = 0
    """How many containers of each runner wait for a task."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round, as it is told."""

    number: int
    strike: str
    weather: str
    accepted: int
    reported: int
    pending: int
    ready_s: float | None
    """From the start of the new agent until it was ready; None where it lived on."""


class Teller(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """Something that is to be known."""

    def round(self, told: Round) -> None:
        """A round is over."""


@dataclass
class Outcome:
    """What is to be said in the end."""

    book: Book
    rounds: int = 0
    ready_s: list[float] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    long_life: int = 0
    """Tasks that the last agent reported in one life, before what is left was counted."""
    left: dict[str, int] = field(default_factory=dict)
    fresh: dict[str, int] = field(default_factory=dict)
    kept: Path | None = None
    """State and log, where something is wrong."""


class Course:
    """The campaign. ``run`` it once; what stands in ``outcome`` then holds also where it was interrupted."""

    def __init__(self, plan: Plan, teller: Teller) -> None:
        """Nothing is started yet."""
        self._plan, self._teller = plan, teller
        self.book = Book(teller.say)
        self.outcome = Outcome(self.book)

    def run(self) -> None:
        """Do all rounds."""
        folder = Path(tempfile.mkdtemp(prefix="agp-campaign-", dir=self._plan.folder)).resolve()
        try:
            with ExitStack() as stack:
                self._set_up(stack, folder)
                self._warm_up()
                self._rounds()
                self._live_long()
        except Exception as error:  # noqa: BLE001  whatever ended it: what was counted until then is told
            self.book.violate(WRONG, "the campaign", f"{type(error).__name__}: {str(error)[-2000:]}")
        finally:
            if self.book.violations:
                self.outcome.kept = folder
            else:
                shutil.rmtree(folder, ignore_errors=True)

    # --- before ------------------------------------------------------------------------------------------------------

    def _set_up(self, stack: ExitStack, folder: Path) -> None:
        """Start everything; ``stack`` ends it."""
        seed = self._plan.seed
        self._engine = self._own_engine(stack) if self._plan.own_engine else None
        self._docker_host = self._engine.docker_host if self._engine else None
        self._dashboard = MoodyDashboard(self.book, f"{seed}/dashboard")
        stack.callback(self._dashboard.close)
        engine_gate = stack.enter_context(HttpGate.to_engine(folder, self._docker_host))
        self._gates = Gates(engine_gate, stack.enter_context(HttpGate.to_dashboard(self._dashboard.url)))
        self._agent = self._new_agent(folder)
        stack.callback(self._agent.close)
        self._agent.start()
        self._starts = StartsSeen(self._agent.instance, self._docker_host)
        stack.callback(self._stop_watching)
        self._mix, self._quiver = Mix(f"{seed}/mix"), strikes.Quiver(f"{seed}/strikes")
        self._brought = Mix(f"{seed}/brought")
        self._flow = Flow(self._agent, self.book, self._mix, _PAUSE_S * self._plan.pace)
        stack.callback(self._flow.close)

    def _own_engine(self, stack: ExitStack) -> OwnEngine:
        self._teller.say("starting an engine of the campaign's own, with the runners' images (about 30 s)")
        engine = stack.enter_context(OwnEngine())
        engine.start().load_runner_images(*RUNNER_IMAGES)
        return engine

    def _new_agent(self, folder: Path) -> AgentProcess:
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG)
        warm = {"AGP_WARM": self._plan.warm, "AGP_WARM_BEFORE_READY": str(self._plan.warm > 0).lower()}
        settings = {**_SETTINGS, **self._gates.settings, **warm, "AGP_CATALOG": catalog}
        url, token = self._dashboard.url, self._dashboard.token
        return AgentProcess(folder, url, token, settings, docker_host=self._docker_host)

    def _stop_watching(self) -> None:
        self._starts.close()

    def _warm_up(self) -> None:
        """A few tasks in peace; then count what a fresh agent has."""
        for _ in range(_WARM_TASKS):
            self._flow.send(self._mix.order(quick))
        self._settle()
        fresh = leaks.count(self._agent)
        self.outcome.fresh = fresh | dict.fromkeys(("containers", "volumes", "slots", "spool files", "children"), 0)

    # --- the rounds --------------------------------------------------------------------------------------------------

    def _rounds(self) -> None:
        self._flow.resume()
        for number in range(1, self._plan.rounds + 1):
            draw = random.Random(f"{self._plan.seed}/round {number}")  # noqa: S311  a seed repeats it
            quiet = number % QUIET_EVERY == 0 or number == self._plan.rounds
            weather = draw.choice(WEATHERS)
            strike = strikes.ENGINE if self._engine and self._is_engines_turn(number) else self._quiver.choose(draw)
            self._tell(number, weather, *self._round(strike, weather, draw))
            if quiet:
                self._be_quiet()

    def _is_engines_turn(self, number: int) -> bool:
        return number % ENGINE_EVERY == ENGINE_EVERY // 2 or number == self._plan.rounds

    def _round(self, strike: Strike, weather: Weather, draw: random.Random) -> tuple[str, float | None]:
        """Return what struck, and how long the agent then needed."""
        self._dashboard.change(weather)
        scene = Scene(self._agent, self._gates, self._engine, self.book, self._bring, draw, self._plan.pace)
        name = strike.name if strike.act(scene) else f"{strike.name} (nobody came)"
        self.outcome.strikes[name] += 1
        self._gates.engine.calls.clear()
        self._gates.dashboard.calls.clear()
        if self._agent.process.poll() is None:
            return name, None
        self._turn_log()
        begin_s = time.monotonic()
        self._agent.start()
        self.outcome.ready_s.append(time.monotonic() - begin_s)
        return name, self.outcome.ready_s[-1]

    def _bring(self, make: Maker) -> None:
        self._flow.bring(self._brought.order(make))

    def _turn_log(self) -> None:
        """Bound the log: the older half of it is let go."""
        log = self._agent.log_path
        if log.stat().st_size > _LOG_MAX_BYTES:
            log.rename(log.with_suffix(".log.1"))
            log.touch()

    def _tell(self, number: int, weather: Weather, strike: str, ready_s: float | None) -> None:
        self.outcome.rounds = number
        counts = self.book.counts
        pending = len(self.book.unreported)
        self._teller.round(
            Round(number, strike, weather.name, counts["accepted"], counts["reported"], pending, ready_s)
        )

    def _live_long(self) -> None:
        """Let one agent live through many tasks: what piles up with them shows beside what a fresh one has."""
        least, most = _LONG_LIFE
        tasks = min(max(3 * self._plan.rounds, least), most)
        self._teller.say(f"no more strikes: one agent lives through {tasks} tasks")
        draw = random.Random(f"{self._plan.seed}/long life")  # noqa: S311  a seed repeats it
        begin = self.book.counts["reported"]
        goal, give_up_s = self.book.counts["accepted"] + tasks, time.monotonic() + tasks * _TASK_S
        while (accepted := self.book.counts["accepted"]) < goal and time.monotonic() < give_up_s:
            self._dashboard.change(draw.choice(WEATHERS))
            self._wait_accepted(min(accepted + _WEATHER_EVERY, goal), _MOOD_S)
        self._be_quiet()
        self.outcome.long_life = self.book.counts["reported"] - begin

    def _wait_accepted(self, number: int, patience_s: float) -> None:
        give_up_s = time.monotonic() + patience_s
        while self.book.counts["accepted"] < number and time.monotonic() < give_up_s:
            time.sleep(_LOOK_S)

    # --- in between and after ----------------------------------------------------------------------------------------

    def _be_quiet(self) -> None:
        """Let everything come to its end, and look what is left; then go on."""
        self._dashboard.change(CALM)
        begin_s = time.monotonic()
        self._flow.pause()
        self._settle()
        self.book.check_losses()
        self.outcome.left = leaks.check(self._agent, self.outcome.fresh, self.book)
        self.book.check_starts(self._starts.numbers)
        self._starts.close()
        self._starts = StartsSeen(self._agent.instance, self._docker_host)
        left = ", ".join(f"{number} {name}" for name, number in self.outcome.left.items())
        self._teller.say(f"all quiet after {time.monotonic() - begin_s:.1f} s: {left}")
        self._flow.resume()

    def _settle(self) -> None:
        """Return once everything is reported, or had its time."""
        give_up_s = time.monotonic() + _SETTLE_S
        while self.book.unreported and time.monotonic() < give_up_s:
            time.sleep(_LOOK_S)
