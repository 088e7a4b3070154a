"""How the command comes to its feet."""

import gc
from collections.abc import Iterator

import pytest

from agp_agent.cli.agent import kept_for_good


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    """Give what was set aside back to the collector."""
    yield
    gc.unfreeze()
    gc.enable()


def test_what_stays_for_good_is_not_looked_through_for_garbage() -> None:
    """Neither while it comes nor later."""
    before = gc.get_freeze_count()
    with kept_for_good():
        assert not gc.isenabled()
        came: list[list[object]] = [[] for _ in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(came)


def test_garbage_is_collected_again_after_an_import_that_failed() -> None:
    """Or what comes after would only grow."""
    with pytest.raises(ImportError), kept_for_good():
        raise ImportError("no such module")
    assert gc.isenabled()
