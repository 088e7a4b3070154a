"""The tree of errors."""

import inspect

import pytest

from agp_agent import errors
from agp_agent.errors import AgentError, ConfigurationError, Refused


def subclasses(of: type[Exception]) -> list[type[Exception]]:
    """Return everything that the module defines below ``of``."""
    found = inspect.getmembers(errors, lambda one: inspect.isclass(one) and issubclass(one, of) and one is not of)
    return [one for _, one in found]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("InvalidBody", 400),
        ("Unauthorized", 401),
        ("BodyTimeout", 408),
        ("AlreadyRunning", 409),
        ("TooLarge", 413),
        ("UnsupportedMediaType", 415),
        ("Unavailable", 503),
    ],
)
def test_each_refusal_has_its_status(name: str, status: int) -> None:
    """What went wrong decides the number, nowhere else."""
    assert getattr(errors, name).status == status


def test_every_refusal_is_in_the_table_above() -> None:
    """A new refusal gets a status and a test."""
    assert {one.__name__ for one in subclasses(Refused)} == {
        *("InvalidBody", "Unauthorized", "BodyTimeout", "AlreadyRunning", "TooLarge", "UnsupportedMediaType"),
        "Unavailable",
    }


def test_the_drawing_of_the_tree_names_every_error() -> None:
    """The docstring is the map, so it must be complete."""
    assert errors.__doc__ is not None
    for one in subclasses(AgentError):
        assert one.__name__ in errors.__doc__


def test_a_configuration_error_tells_all_problems_at_once() -> None:
    """An operator corrects everything in one go."""
    error = ConfigurationError("one is wrong.", "two is wrong.")
    assert error.problems == ("one is wrong.", "two is wrong.")
    assert str(error) == "one is wrong.\ntwo is wrong."


def test_a_refusal_carries_the_detail_of_its_answer() -> None:
    """Its message is what the client reads; where the client shall come back, it is told when."""
    refused = errors.Unavailable("The queue is full.")
    assert (refused.detail, str(refused)) == ("The queue is full.", "The queue is full.")
    assert refused.headers == {"Retry-After": "5"}
    assert errors.Unauthorized.headers == {"WWW-Authenticate": "Bearer"}
