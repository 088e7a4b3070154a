"""What the units of the Docker adapter are tested with."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.docker_api import DockerApi, docker_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[DockerApi]:
    """A stand-in for the engine's API."""
    async with docker_api(tmp_path / "engine.sock") as ready:
        yield ready
