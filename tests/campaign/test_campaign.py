"""The campaign in short: tasks of all kinds flow while the agent is killed at random and at each named step."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from campaign.book import FAULTS
from support.own_engine import RUNNER_IMAGES, OwnEngine

ROUNDS: Final = 25
STEPS_TRIED: Final = 13
"""Each second round strikes at a step of the walk."""
STEPS_REACHED: Final = 9
"""At least so many. To a step that needs a rare task nobody may come in the short time that a round has here."""
_TESTS: Final = Path(__file__).parents[1]


@pytest.fixture
def engine() -> Iterator[OwnEngine]:
    """An engine with all runners, which nobody else fills with events."""
    with OwnEngine() as engine:
        engine.start()
        engine.load_runner_images(*RUNNER_IMAGES)
        yield engine


@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_leaked(engine: OwnEngine, tmp_path: Path) -> None:
    """After 25 deaths nothing is lost, doubled or left; the dashboard is moody meanwhile."""
    counts = tmp_path / "counts.json"
    command = (sys.executable, "-m", "campaign", "--engine", "machine", "--rounds", str(ROUNDS), "--pace", "0.2")
    ended = subprocess.run(
        (*command, "--dir", str(tmp_path), "--json", str(counts)),
        env=os.environ | {"PYTHONPATH": str(_TESTS), "DOCKER_HOST": engine.docker_host},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-4000:]
    told = json.loads(counts.read_text())
    assert {fault: told[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert (told["rounds"], told["pending"]) == (ROUNDS, 0)
    assert told["counts"]["reported"] == told["counts"]["accepted"] > ROUNDS
    assert told["counts"]["reported lost"] == 0
    # The strikes did happen, and nearly every start was seen from outside.
    assert sum(told["strikes"].values()) == ROUNDS
    assert STEPS_REACHED <= len(told["steps reached"]) <= STEPS_TRIED, told["strikes"]
    assert told["kinds"]["silent"] > 0
    # One agent lived through many tasks before what is left was counted.
    assert told["long life"] > ROUNDS
    # Who wants to see it again knows how: the seed is said at first, and again in the end.
    assert ended.stdout.count(f"seed {told['seed']}") == 2
    assert told["counts"]["starts seen"] > told["counts"]["accepted"] / 2
