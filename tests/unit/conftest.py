"""What the unit tests share."""

import os

import pytest
from hypothesis import HealthCheck, settings

# No clock decides a test: a busy machine makes examples slowly.
settings.register_profile("agp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agp")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the shell that runs the tests reaches a test."""
    for name in [name for name in os.environ if name.upper().startswith("AGP_")]:
        monkeypatch.delenv(name)
