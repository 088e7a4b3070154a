"""How many file descriptors there are, and whether enough are left."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agp_agent import descriptors


@pytest.fixture
def soft_limit() -> Iterator[int]:
    """The soft limit of this process, given back in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def used() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    ("allowed", "tasks"), [(resource.RLIM_INFINITY, sys.maxsize), (1024, 244), (64, 4), (48, 1), (10, 1)]
)
def test_how_many_tasks_fit(allowed: int, tasks: int) -> None:
    """Beside what the agent itself and its clients have open; one is always tried."""
    assert descriptors.tasks_max(allowed) == tasks


@pytest.mark.parametrize(
    ("allowed", "clients"), [(resource.RLIM_INFINITY, 1280), (10**6, 1280), (1024, 256), (64, 16), (10, 8)]
)
def test_how_many_clients_may_come_in(allowed: int, clients: int) -> None:
    """A share of what the process may open; never none, and never more than anybody needs."""
    assert descriptors.clients_max(allowed) == clients


@pytest.mark.parametrize(
    ("allowed", "wanted", "strangers"), [(10**6, None, 1024), (10**6, 50, 50), (10**6, 5000, 1024), (1024, None, 204)]
)
def test_how_many_strangers_may_come_in(allowed: int, wanted: int | None, strangers: int) -> None:
    """As many as the operator wants; but a fifth of the places is left for those who show a right token."""
    assert descriptors.strangers_max(allowed, wanted) == strangers


def test_few_left_is_a_problem_until_there_are_more(soft_limit: int) -> None:
    """The sentence names the limit; the agent goes on with what it has."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert descriptors.problem() is None
    few = used() + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    assert descriptors.problem() == (
        f"nearly all of the {few} file descriptors that this process may have (RLIMIT_NOFILE) are in use"
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # not even one to look
    found = descriptors.problem()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard))
    assert found is not None
    assert descriptors.problem() is None


def test_the_limit_is_raised_to_what_the_system_grants() -> None:
    """In a process of its own, which begins with less."""
    code = (
        "import resource; from agp_agent import descriptors; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128));"
        "descriptors.raise_limit(); print(descriptors.limit())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout == "128\n"
