"""What the tests of packages share."""

from collections.abc import Iterator

import pytest

from support.engine_side import EngineSide


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineSide]:
    """The engine, seen from beside the agents."""
    with EngineSide() as side:
        yield side
