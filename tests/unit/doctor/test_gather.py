"""What doctor finds on this machine, where an engine is not needed for it."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from agp_agent.doctor.gather import _free
from agp_agent.state_dir import StateDir


class Usage(NamedTuple):
    """As ``shutil.disk_usage`` tells it."""

    free: int


def test_what_an_agent_keeps_in_reserve_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it there is as much room as the agent itself asks for: doctor must not call that a failure."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(40 * 2**20))
    assert _free(tmp_path) == 40 * 2**20
    StateDir.reserve_of(tmp_path).write_bytes(bytes(32 * 2**20))
    assert _free(tmp_path) == 72 * 2**20
