"""What the settings name, made."""

from pathlib import Path

import pytest

from agp_agent.preflight import mount_rules
from agp_agent.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """All that names a file, each in a folder of its own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Settings(
        state_dir=tmp_path / "state",
        catalog=tmp_path / "catalog" / "catalog.yaml",
        dashboard_ca_file=tmp_path / "ca" / "ca.pem",
        tls_cert_file=tmp_path / "cert" / "cert.pem",
        tls_key_file=tmp_path / "key" / "key.pem",
        tailscale_socket=tmp_path / "tailscale" / "tailscaled.sock",
        tailscale_allow="tag:dashboard",
    )


@pytest.mark.parametrize("folder", ["state", "key", "tailscale", "docker"])
def test_what_is_secret_or_powerful_is_not_mounted(settings: Settings, tmp_path: Path, folder: str) -> None:
    """Not even to be read."""
    assert mount_rules(settings).problem(str(tmp_path / folder))


@pytest.mark.parametrize("folder", ["catalog", "ca", "cert"])
def test_what_the_agent_believes_is_not_mounted_writable(settings: Settings, tmp_path: Path, folder: str) -> None:
    """A playbook that could write its catalog would grant itself everything."""
    assert mount_rules(settings).problem(str(tmp_path / folder)) is None
    assert mount_rules(settings).problem(str(tmp_path / folder), writable=True)
