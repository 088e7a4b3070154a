"""One suite, two engines."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.engine import ContainerEngine
from contract.rig import Rig, docker_rig, fake_rig


@pytest.fixture(params=["fake", "docker"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """The engine under test and the ways to disturb it."""
    if request.param == "fake":
        async with fake_rig(tmp_path) as fake:
            yield fake
    else:
        async with docker_rig(tmp_path) as docker:
            yield docker


@pytest.fixture
def engine(rig: Rig) -> ContainerEngine:
    """The engine under test."""
    return rig.engine
