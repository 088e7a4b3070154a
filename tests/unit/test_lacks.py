"""What of the lockdown an operator may accept to miss."""

import pytest

from agp_agent.lacks import Lack, listed, parse


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("", set()),
        ("swap", {Lack.SWAP}),
        (" swap , log-driver,", {Lack.SWAP, Lack.LOG_DRIVER}),
        ("swap,memory,pids,cpus,log-driver", set(Lack)),
    ],
)
def test_names_stand_with_commas_between_them(text: str, accepted: set[Lack]) -> None:
    """Blanks do not matter."""
    assert parse(text) == accepted


def test_an_unknown_name_says_which_are_known() -> None:
    """A typo would else accept nothing, and nobody would know why containers are refused."""
    expected = "some of swap, memory, pids, cpus, log-driver with commas between them, and sawp is none of them"
    with pytest.raises(ValueError, match=expected):
        parse("swap,sawp")


def test_names_are_listed_in_their_order() -> None:
    """However they came."""
    assert listed([Lack.LOG_DRIVER, Lack.SWAP]) == "swap, log-driver"
