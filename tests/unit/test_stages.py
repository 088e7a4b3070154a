"""The stages of a run: what is told of cold and warm ones, and what is forgotten."""

from dataclasses import dataclass, field

import pytest

from agp_agent.stages import BEFORE, Run, Stage, Stages, Start

COLD = (Stage.CREATED, Stage.ATTACHED, Stage.STARTED, Stage.RELEASED, Stage.MARKER, Stage.OUTPUT, Stage.EXITED)
WARM = COLD[3:]


@dataclass
class Seen:
    """Stages by a clock that a test moves, and what they told."""

    at_s: float = 0.0
    told: dict[Stage, tuple[Start, float, float]] = field(default_factory=dict)

    def stages(self, bound: int = 100) -> Stages:
        """Make them."""

        def took(stage: Stage, start: Start, took_s: float, after_s: float) -> None:
            assert stage not in self.told, "told twice"
            self.told[stage] = (start, took_s, after_s)

        return Stages(took, lambda: self.at_s, bound)

    def mark(self, stages: Stages, name: str, *marks: Stage) -> None:
        """One stage a second."""
        for stage in marks:
            self.at_s += 1
            stages.mark(name, stage)

    def accept(self, stages: Stages, run_id: str) -> None:
        """An order that took a second to get on disk."""
        received_s, self.at_s = self.at_s, self.at_s + 1
        stages.accepted(run_id, received_s)

    def finish(self, stages: Stages, run_id: str) -> None:
        """A second later its result is on disk, and after one more it is acknowledged."""
        self.at_s += 1
        stages.finished(Run(run_id, "t", 1, 0, outcome="succeeded", reason="exit_code"))
        self.mark(stages, run_id, Stage.ACKNOWLEDGED)

    def claim(self, stages: Stages, run_id: str, slot: str) -> None:
        """A second later."""
        self.at_s += 1
        stages.claim(run_id, slot)


def test_a_cold_run_is_told_stage_by_stage() -> None:
    """Each stage took the second since the one before it; all are counted from the order on, and nothing stays."""
    seen = Seen()
    stages = seen.stages()
    seen.accept(stages, "run")
    seen.claim(stages, "run", "slot")
    seen.mark(stages, "slot", *COLD)
    seen.finish(stages, "run")
    seen.mark(stages, "slot", Stage.REMOVED)

    assert {stage: start for stage, (start, _, _) in seen.told.items()} == dict.fromkeys(BEFORE[Start.COLD], Start.COLD)
    assert seen.told[Stage.STARTED][1] == 1
    assert seen.told[Stage.EXITED][1] == 2, "counted from the marker on, whether there was output or not"
    assert seen.told[Stage.REMOVED][1] == 2, "counted from the result on, beside its delivery"
    assert seen.told[Stage.OUTPUT][2] == 8
    assert (dict(stages.starts), dict(stages.endings)) == ({Start.COLD: 1}, {("succeeded", "exit_code"): 1})
    assert not stages._traces


def test_a_container_that_waited_makes_a_warm_run() -> None:
    """Its preparing is nothing that the run waited for, so it is not told; the release is counted from the claim on."""
    seen = Seen()
    stages = seen.stages()
    seen.mark(stages, "slot", *COLD[:3])
    seen.accept(stages, "run")
    seen.claim(stages, "run", "slot")
    seen.mark(stages, "slot", *WARM, Stage.REMOVED)
    seen.finish(stages, "run")

    assert not seen.told.keys() & {Stage.CREATED, Stage.ATTACHED, Stage.STARTED}
    assert seen.told[Stage.RELEASED] == (Start.WARM, 1, 3)
    assert dict(stages.starts) == {Start.WARM: 1}
    assert stages.last_over is not None
    document = stages.last_over.document()
    assert document["start"] == "warm"
    assert isinstance(document["stages_ms"], dict)
    assert document["stages_ms"] | {"created": -2000.0, "received": 0.0, "accepted": 1000.0} == document["stages_ms"]


def test_a_claim_may_come_before_the_acceptance_is_told() -> None:
    """One transaction does both: nothing took less than no time, and the run is told all the same."""
    seen = Seen()
    stages = seen.stages()
    seen.claim(stages, "run", "slot")
    seen.mark(stages, "slot", *COLD[:2])
    seen.accept(stages, "run")
    seen.mark(stages, "slot", *COLD[2:])
    seen.finish(stages, "run")

    assert seen.told[Stage.CLAIMED][1] == 0
    assert seen.told[Stage.STARTED][0] is Start.COLD


def test_a_second_try_forgets_the_first() -> None:
    """A run that was put back is counted by the container that served it; the first one's late removal is let pass."""
    seen = Seen()
    stages = seen.stages()
    seen.accept(stages, "run")
    seen.claim(stages, "run", "first")
    seen.mark(stages, "first", *COLD[:4])
    seen.claim(stages, "run", "second")
    seen.mark(stages, "second", *COLD)
    seen.mark(stages, "first", Stage.REMOVED)
    seen.finish(stages, "run")
    assert Stage.REMOVED not in seen.told
    assert seen.told[Stage.CREATED][1] == 1

    seen.mark(stages, "second", Stage.REMOVED)
    assert Stage.REMOVED in seen.told
    assert not stages._traces


def test_what_never_had_a_container_is_counted_and_not_told() -> None:
    """A task that is rejected or cancelled in the queue has an outcome, and no stages to compare."""
    seen = Seen()
    stages = seen.stages()
    seen.accept(stages, "run")
    stages.finished(Run("run", "t", 1, 0, outcome="cancelled", reason="cancel_requested"))
    seen.mark(stages, "run", Stage.ACKNOWLEDGED)
    assert not seen.told
    assert dict(stages.endings) == {("cancelled", "cancel_requested"): 1}
    assert not stages._traces


def test_a_waiting_container_that_is_removed_leaves_nothing() -> None:
    """One that grew old in the pool, or was made by a helper, served no run."""
    seen = Seen()
    stages = seen.stages()
    seen.mark(stages, "slot", *COLD[:3], Stage.REMOVED)
    assert not seen.told
    assert not stages._traces


def test_a_run_of_an_earlier_agent_is_let_pass() -> None:
    """It was accepted and started elsewhere: its end is counted, and no time of it is told."""
    seen = Seen()
    stages = seen.stages()
    seen.mark(stages, "slot", *WARM)
    seen.finish(stages, "run")
    assert not seen.told
    assert dict(stages.endings) == {("succeeded", "exit_code"): 1}


@pytest.mark.parametrize("bound", [1, 7])
def test_memory_is_bounded(bound: int) -> None:
    """However many orders wait, no more traces than the bound are kept, and the newest are among them."""
    seen = Seen()
    stages = seen.stages(bound)
    for number in range(50):
        seen.accept(stages, f"run-{number}")
    assert list(stages._traces) == [f"run-{number}" for number in range(50 - bound, 50)]
