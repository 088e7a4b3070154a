"""When results may knock at the dashboard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agp_agent.backoff import LONGEST_S, Gate, backoff_s, wait_s


class Monotonic:
    """A clock that never jumps, but when the test says so."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time it is set to."""
        return self.now_s


@pytest.fixture
def clock() -> Monotonic:
    """The gate's clock."""
    return Monotonic()


@pytest.fixture
def gate(clock: Monotonic) -> Gate:
    """A gate without luck: every wait is as long as it can be."""
    return Gate(clock, lambda: 1.0)


def away(gate: Gate, seq: int = 1, retry_after_s: float = 0.0) -> float:
    """The dashboard as a whole did not take it."""
    return gate.not_taken(seq, 0, away=True, retry_after_s=retry_after_s)


def error(gate: Gate, seq: int, deliveries: int = 0) -> float:
    """The dashboard did not take this one."""
    return gate.not_taken(seq, deliveries, away=False)


# --- how long ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_backoff_has_full_jitter_between_nothing_and_its_bound(failures: int, drawn: float) -> None:
    """The bound doubles from a second to five minutes."""
    bound = min(300.0, 2.0 ** min(failures, 9))
    assert backoff_s(failures, lambda: drawn) == pytest.approx(bound * drawn)
    assert 0 <= backoff_s(failures, lambda: drawn) <= 300


def test_the_backoff_really_draws() -> None:
    """Many agents do not come back in the same second."""
    assert len({backoff_s(9) for _ in range(50)}) > 40


@given(st.integers(0, 10_000), st.floats(0, 1e12), st.floats(0, 1))
def test_what_the_dashboard_asks_for_is_waited_for_within_its_cap(failures: int, asked_s: float, drawn: float) -> None:
    """Never less than that, up to an hour; and never longer than what the outbox takes for a clock set back."""
    waited_s = wait_s(failures, asked_s, lambda: drawn)
    assert min(asked_s, 3600) <= waited_s <= LONGEST_S


@pytest.mark.parametrize(
    ("failures", "asked_s", "shortest_s", "longest_s"),
    [(0, 0, 0, 1), (9, 0, 0, 300), (0, 60, 60, 120), (9, 60, 60, 360), (0, 3600, 3600, 7200), (9, 1e9, 3600, 7200)],
)
def test_after_retry_after_comes_jitter_as_wide_as_itself(
    failures: int, asked_s: float, shortest_s: float, longest_s: float
) -> None:
    """Or all agents that were sent away together would come back together."""
    assert wait_s(failures, asked_s, lambda: 0.0) == shortest_s
    assert wait_s(failures, asked_s, lambda: 1.0) == longest_s


# --- how many ----------------------------------------------------------------------------------------------------


def test_four_may_go_at_once_at_first(gate: Gate) -> None:
    """A slow delivery does not hold up the others."""
    assert [gate.places(under_way) for under_way in range(6)] == [4, 3, 2, 1, 0, 0]
    assert gate.closed_for_s == 0


def test_while_the_dashboard_is_away_one_at_a_time_tries(gate: Gate, clock: Monotonic) -> None:
    """After a wait that doubles; nothing goes meanwhile."""
    for number, wait in enumerate([1.0, 2.0, 4.0, 8.0], 1):
        assert away(gate) == wait
        assert (gate.places(0), gate.closed_for_s, gate.failures) == (0, wait, number)
        clock.now_s += wait
        assert (gate.places(0), gate.places(1)) == (1, 0)


def test_what_was_sent_together_and_sent_away_together_counts_once(gate: Gate) -> None:
    """Four answers of one outage do not make it sixteen times as long; the longest Retry-After holds."""
    assert [away(gate, seq) for seq in range(4)] == [1.0] * 4
    assert gate.failures == 1
    assert away(gate, 5, retry_after_s=50) == 100
    assert away(gate, 6, retry_after_s=20) == 100
    assert (gate.closed_for_s, gate.failures) == (100, 1)


def test_after_an_outage_the_deliveries_at_once_grow_step_by_step(gate: Gate, clock: Monotonic) -> None:
    """With every fourth result that is taken one more, up to four: a fleet does not come back with all it has."""
    away(gate)
    clock.now_s += 1
    widths = []
    for _ in range(16):
        widths.append(gate.places(0))
        gate.settled()
    assert widths == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    away(gate)
    clock.now_s += 1
    assert gate.places(0) == 1


def test_an_outage_that_comes_again_begins_from_the_start(gate: Gate, clock: Monotonic) -> None:
    """One result that was taken is enough to forget the failures."""
    for _ in range(8):
        clock.now_s += away(gate)
    gate.settled()
    assert gate.failures == 0
    assert away(gate) == 1.0


def test_a_word_from_before_the_outage_says_nothing_of_now(gate: Gate) -> None:
    """It was under way when another was sent away: the gate stays as it is."""
    away(gate, retry_after_s=10)
    gate.settled()
    assert (gate.closed_for_s, gate.failures, gate.places(0)) == (20, 1, 0)


# --- whose fault it is -------------------------------------------------------------------------------------------


def test_a_result_that_is_not_taken_waits_alone(gate: Gate) -> None:
    """By its own number of tries, and however often it comes: the others go on."""
    assert [error(gate, 1, deliveries) for deliveries in (0, 1, 2, 12)] == [1.0, 2.0, 4.0, 300.0]
    assert [error(gate, 2), error(gate, 3)] == [1.0, 1.0]
    assert (gate.places(0), gate.closed_for_s) == (4, 0)


def test_four_different_results_in_a_row_that_are_not_taken_are_the_dashboards_fault(
    gate: Gate, clock: Monotonic
) -> None:
    """A dashboard that answers 500 to everything is not run against with the whole backlog."""
    for seq in (1, 2, 3):
        error(gate, seq)
    assert gate.places(0) == 4
    assert error(gate, 4) == 1.0
    assert (gate.places(0), gate.failures) == (0, 1)
    clock.now_s += 1
    assert gate.places(0) == 1
    assert error(gate, 5) == 2.0


def test_one_that_is_taken_between_them_clears_the_dashboard(gate: Gate) -> None:
    """Then it is the results' fault after all."""
    for round_ in range(5):
        for seq in (1, 2, 3):
            error(gate, 10 * round_ + seq)
        gate.settled()
    assert (gate.places(0), gate.failures) == (4, 0)


def test_once_away_any_error_keeps_the_gate_closed(gate: Gate, clock: Monotonic) -> None:
    """A dashboard that answers 500 while it starts is not back."""
    clock.now_s += away(gate)
    assert error(gate, 2) == 2.0
    assert (gate.places(0), gate.failures) == (0, 2)


def test_a_token_that_is_not_accepted_is_looked_at_again_within_a_minute(gate: Gate, clock: Monotonic) -> None:
    """However often it was not."""
    waits = []
    for _ in range(10):
        waits.append(gate.held())
        assert gate.places(0) == 0
        clock.now_s += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("settled"), st.just(0)),
            st.tuples(st.sampled_from(["away", "error", "held"]), st.integers(0, 9)),
            st.tuples(st.just("time"), st.integers(0, 400)),
        )
    ),
    st.floats(0, 1),
)
def test_whatever_is_answered_the_gate_opens_again(acts: list[tuple[str, int]], drawn: float) -> None:
    """Never more than four at once, never closed for longer than the longest wait, and open after it."""
    clock = Monotonic()
    gate = Gate(clock, lambda: drawn)
    for what, number in acts:
        if what == "settled":
            gate.settled()
        elif what == "away":
            away(gate, number, retry_after_s=1000.0 * number)
        elif what == "error":
            error(gate, number)
        elif what == "held":
            gate.held()
        else:
            clock.now_s += number
        assert 0 <= gate.places(0) <= 4
        assert gate.closed_for_s <= LONGEST_S
    clock.now_s += LONGEST_S
    assert 1 <= gate.places(0) <= 4
