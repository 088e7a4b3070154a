"""Whether the agent can start tasks."""

from agp_agent.readiness import Readiness


def test_an_agent_with_places_and_without_problems_is_ready() -> None:
    """It has as many places as were decided."""
    readiness = Readiness(max_running=4)
    assert (readiness.slots, readiness.ready) == (4, True)


def test_any_problem_takes_all_places_away_until_it_is_solved() -> None:
    """One sentence a part; the last solved problem brings the places back."""
    readiness = Readiness(max_running=4)
    readiness.report("engine", "it does not answer")
    readiness.report("journal", "the disk is full")
    assert (readiness.slots, readiness.ready) == (0, False)
    readiness.report("engine", None)
    assert readiness.slots == 0
    readiness.report("journal", None)
    assert readiness.slots == 4


def test_only_news_wakes_those_who_wait() -> None:
    """The same report again is none."""
    readiness = Readiness(max_running=1)
    assert readiness.report("engine", None) is False
    assert not readiness.changed.is_set()
    assert readiness.report("engine", "away") is True
    assert readiness.changed.is_set()
    readiness.changed.clear()
    assert readiness.report("engine", "away") is False
    assert not readiness.changed.is_set()
    assert readiness.report("engine", "still away") is True
    assert readiness.problems == {"engine": "still away"}


def test_a_doubt_is_a_problem_that_somebody_looks_into() -> None:
    """It is reported, and whoever watches the part is woken."""
    readiness = Readiness(max_running=1)
    readiness.doubt("engine", "it hung up")
    assert readiness.problems == {"engine": "it hung up"}
    assert readiness.doubted.is_set()
    assert readiness.changed.is_set()


def test_every_news_is_told_once() -> None:
    """With the part and its problem, or none."""
    told: list[tuple[str, str | None]] = []
    readiness = Readiness(on_news=lambda part, problem: told.append((part, problem)))
    for problem in ("away", "away", "still away", None, None):
        readiness.report("engine", problem)
    assert told == [("engine", "away"), ("engine", "still away"), ("engine", None)]


def test_draining_takes_all_places_away_for_good() -> None:
    """Nothing is started any more, however well the parts are."""
    readiness = Readiness(max_running=4)
    readiness.drain()
    assert (readiness.slots, readiness.ready) == (0, False)
    assert readiness.changed.is_set()
