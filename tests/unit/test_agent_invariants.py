"""Random interleavings of work and faults break none of the promises of a whole agent.

The agent is the one that the composition root builds, over fakes of engine, dashboard and time; it is killed at any
turn of its event loop and begun again on what it left. What it promises is watched from outside
(``support.agent_witness``), and results are held against what the machine really did (``support.agent_verdicts``).
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, Final

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.agent_bugs import BUGS
from support.agent_world import SeedBug, World

EXAMPLES: Final = int(os.environ.get("AGP_TEST_EXAMPLES", "60"))
PLAYBOOKS: Final = (
    "print hi\n",
    "exit 7\n",
    "print a\nsleep 2\nprint b\nexit 4\n",
    "print begun\nforever\n",
    "ignore TERM\nprint stubborn\nforever\n",
    "fill 5000\nsleep 1\nprint end\n",
    "control agp1 started 00000000000000000000000000000000\nsleep 1\nerr no\n",
    "print much\noom\n",
    "sleep 2\nexit 77\n",
)
STEPS: Final = (
    "commit",
    "engine call",
    "nothing > queued",
    "queued > preparing",
    "preparing > running",
    "playbook started",
    "running > finished",
    "answered ACKNOWLEDGED",
)
TASK_IDS: Final = st.sampled_from(["first 0", "first 1", "../c", "d e"])


class AgentMachine(RuleBasedStateMachine):
    """Drives a world in which everything happens that happens to agents."""

    bug: ClassVar[SeedBug] = staticmethod(lambda _agent: None)
    seen: ClassVar[Counter[str]] = Counter()
    warm: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).bug, warm=type(self).warm)

    @property
    def lives(self) -> bool:
        """Whether there is an agent."""
        return self.world.agent is not None

    # --- work ------------------------------------------------------------------------------------------------------

    @initialize(playbooks=st.lists(st.sampled_from(PLAYBOOKS), min_size=2, max_size=4), turns=st.integers(0, 150))
    def begin(self, playbooks: list[str], turns: int) -> None:
        """There is work from the beginning."""
        self.world.turns(turns)
        for number, playbook in enumerate(playbooks):
            self.world.submit(f"first {number}", playbook)

    @precondition(lambda self: self.lives)
    @rule(task_id=TASK_IDS, playbook=st.sampled_from(PLAYBOOKS), turns=st.integers(0, 40))
    def submit(self, task_id: str, playbook: str, turns: int) -> None:
        """A task comes in, known or new."""
        self.world.submit(task_id, playbook)
        self.world.turns(turns)

    @precondition(lambda self: self.lives)
    @rule(playbook=st.sampled_from(PLAYBOOKS), what=st.sampled_from(STEPS))
    def submit_several(self, playbook: str, what: str) -> None:
        """More tasks at once than there are places, one of them for no runner."""
        for task_id in ("e", "f", "../c"):
            self.world.submit(task_id, playbook)
        self.world.submit("h", "x", name="a.unknown")
        self.world.until(what)

    @precondition(lambda self: self.lives and self.world.witness.open_tasks())
    @rule(which=st.integers(0, 5), dies=st.booleans())
    def cancel(self, which: int, *, dies: bool) -> None:
        """Somebody cancels a task; the agent may not live long enough to do more than to write that down."""
        open_tasks = self.world.witness.open_tasks()
        self.world.cancel(open_tasks[which % len(open_tasks)])
        if dies:
            self.world.until("commit")
            if self.lives:
                self.world.kill()
                self.world.start()

    # --- time ------------------------------------------------------------------------------------------------------

    @rule(number=st.integers(1, 60))
    def turns(self, number: int) -> None:
        """A moment goes by."""
        self.world.turns(number)

    @rule(what=st.sampled_from(STEPS))
    def until(self, what: str) -> None:
        """The next step of this kind is taken."""
        self.world.until(what)

    @rule(seconds=st.sampled_from([0.5, 1, 2, 5, 31, 61]))
    def time_goes_by(self, seconds: float) -> None:
        """Seconds, or a minute."""
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([-86_400, -10, 10, 86_400]))
    def clock_jumps(self, seconds: float) -> None:
        """The wall clock, by a day or a little."""
        self.world.around.clock_offset_s += seconds

    # --- death -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.lives)
    @rule(what=st.sampled_from(STEPS), turns=st.integers(0, 5), again=st.booleans())
    def kill(self, what: str, turns: int, *, again: bool) -> None:
        """The agent dies at a step, or a little after it; perhaps the next one starts at once."""
        self.world.until(what)
        self.world.turns(turns)
        if self.world.agent is not None:
            self.world.kill()
        if again:
            self.world.start()

    @precondition(lambda self: self.lives)
    @rule(turns=st.integers(0, 20))
    def terminate(self, turns: int) -> None:
        """The agent is asked to stop."""
        self.world.terminate()
        self.world.turns(turns)

    @precondition(lambda self: not self.lives)
    @rule(turns=st.integers(0, 60))
    def start(self, turns: int) -> None:
        """The next agent starts."""
        self.world.start()
        self.world.turns(turns)

    # --- faults ----------------------------------------------------------------------------------------------------

    @rule(mode=st.sampled_from(["slow", "away", "answer lost", "html", "500", "503", "401", "413", "400"]))
    def dashboard(self, mode: str) -> None:
        """The dashboard answers so from now on."""
        self.world.around.dashboard = mode

    @rule(how=st.sampled_from(["away", "same", "other", "other, kills", "other, loses"]), turns=st.integers(0, 20))
    def engine(self, how: str, turns: int) -> None:
        """The engine goes away, often when something has just begun; perhaps it is back soon: the same, or another."""
        if turns % 2:
            self.world.until("playbook started")
        if not self.world.around.engine_is_away:
            self.world.engine_goes_away()
        self.world.turns(turns)
        if how != "away":
            self.world.engine_comes_back(
                restarted=how != "same", kill_running="kills" in how, loses_markers="loses" in how
            )

    @precondition(lambda self: self.lives)
    @rule(what=st.sampled_from(STEPS))
    def reconcile(self, what: str) -> None:
        """The minute of the reconciler is over, whatever goes on."""
        self.world.until(what)
        if self.lives:
            self.world.reconcile()

    @rule()
    def disk_fills_up(self) -> None:
        """No playbook can be handed over."""
        self.world.around.disk_is_full = True

    @rule(call=st.sampled_from(["create", "start", "remove"]))
    def answer_gets_lost(self, call: str) -> None:
        """The engine will do what it is asked, and nobody will hear of it."""
        self.world.around.lose_answer_of = call

    @precondition(lambda self: self.world.around.host.containers)
    @rule(removes=st.booleans(), which=st.integers(0, 3))
    def operator(self, which: int, *, removes: bool) -> None:
        """Somebody kills or removes a container by hand, often one whose playbook has just begun."""
        if which % 2:
            self.world.until("playbook started")
        self.world.operator(removes=removes, which=which)

    @precondition(lambda self: self.lives and not self.world.journal_is_locked)
    @rule(turns=st.integers(0, 20))
    def journal_is_locked(self, turns: int) -> None:
        """Nothing can be written down."""
        self.world.lock_journal()
        self.world.turns(turns)

    @rule()
    def mend(self) -> None:
        """Every fault ends."""
        self.world.heal()

    # --- promises --------------------------------------------------------------------------------------------------

    @invariant()
    def no_promise_is_broken(self) -> None:
        """Neither now nor in between."""
        self.world.check()

    def teardown(self) -> None:
        """Heal the world, and judge what came of everything."""
        try:
            if not self.world.witness.broken:
                self.world.settle()
        finally:
            type(self).seen.update(self.world.witness.seen)
            self.world.close()


class WarmMachine(AgentMachine):
    """The same where containers wait for the tasks."""

    seen: ClassVar[Counter[str]] = Counter()
    warm: ClassVar[int] = 2


def examples(number: int, steps: int = 25, *, same_each_time: bool = True) -> settings:
    """Return how the machine is run; where it is the same each time, a failure is told as it was found first."""
    return settings(
        max_examples=number,
        stateful_step_count=steps,
        deadline=None,
        derandomize=same_each_time,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate] if same_each_time else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of lives of an agent log too much."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def test_no_promise_is_broken_whatever_happens() -> None:
    """Accepted is reported, started once, told as it was, and nothing is left; and all of that was really put to it."""
    AgentMachine.seen.clear()
    run_state_machine_as_test(AgentMachine, settings=examples(2 * EXAMPLES))
    happened = +AgentMachine.seen
    for what in (
        *("killed", "stopped", "engine replaced", "journal locked", "killed by an operator", "removed by an operator"),
        *("preparing > queued", "running > queued", "queued > finished", "cancel noted", "refused with 409"),
        *("ended succeeded/exit_code", "ended failed/exit_code", "ended timed_out/deadline", "ended lost/engine_lost"),
        *("ended cancelled/cancel_requested", "ended failed/killed_externally", "ended rejected/no_runner"),
        "answered RETRY",
    ):
        assert happened[what], f"{what!r} never happened: {happened}"


def test_no_promise_is_broken_where_containers_wait() -> None:
    """The same promises, with tasks that go at once, or out of the queue, into a container that waits."""
    WarmMachine.seen.clear()
    run_state_machine_as_test(WarmMachine, settings=examples(EXAMPLES))
    happened = +WarmMachine.seen
    for what in (
        *("nothing > running", "queued > running", "preparing > running", "running > queued"),
        *("killed", "stopped", "engine replaced", "killed by an operator", "removed by an operator"),
        *("ended succeeded/exit_code", "ended failed/exit_code", "ended cancelled/cancel_requested"),
    ):
        assert happened[what], f"{what!r} never happened: {happened}"


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("machine", [AgentMachine, WarmMachine])
def test_no_promise_is_broken_in_a_long_campaign(machine: type[AgentMachine]) -> None:
    """Longer stories, others each time; one that breaks a promise is made as short as it can be."""
    run_state_machine_as_test(machine, settings=examples(25 * EXAMPLES, 60, same_each_time=False))


# --- the machine sees bugs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_seen(name: str) -> None:
    """Parts that take their steps in the wrong order break the very promise that the order keeps."""
    seed_bug, promise = BUGS[name]
    buggy = type("BuggyMachine", (AgentMachine,), {"bug": staticmethod(seed_bug)})
    with pytest.raises(AssertionError, match=promise):
        run_state_machine_as_test(buggy, settings=examples(EXAMPLES))
