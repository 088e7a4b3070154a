"""What the unit tests share."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the shell that runs the tests reaches a test."""
    for name in [name for name in os.environ if name.upper().startswith("AGP_")]:
        monkeypatch.delenv(name)
