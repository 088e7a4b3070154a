"""Where things are, by systemd's words and by convention."""

import os
from pathlib import Path

import pytest

from agp_agent import system_places
from agp_agent.settings import load, source_of

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_places, "_CONFIG_DIR", Path("/nowhere"))
    for name in [name for name in os.environ if name.startswith("AGP_") or name.endswith("_DIRECTORY")]:
        monkeypatch.delenv(name)


def test_the_state_directory_is_that_of_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else root's, else the user's own."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert system_places.state_dir() == Path("/var/lib/agp-agent")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/.state")
    assert system_places.state_dir() == Path("/home/me/.state/agp-agent")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert load().state_dir == Path("/var/lib/one")


def test_the_settings_file_is_that_of_the_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only where it exists; nothing is read from the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.yaml").write_text("port: 1234\n")
    assert load().port == 8470
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    assert load().port == 1234
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "none"))
    assert load().port == 8470


def test_tokens_come_as_credentials_unless_they_are_given_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is given by name goes before what is handed over, as a value or as a file."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert (load().token_file, load().dashboard_token_file) == (None, None)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "dashboard-token").write_text(TOKEN)
    assert (load().token_file, load().dashboard_token_file) == (tmp_path / "token", tmp_path / "dashboard-token")
    monkeypatch.setenv("AGP_TOKEN", TOKEN)
    monkeypatch.setenv("AGP_DASHBOARD_TOKEN_FILE", "/etc/other")
    assert (load().token_file, load().dashboard_token_file) == (None, Path("/etc/other"))


def test_without_systemd_they_lie_beside_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that commands of the operator see what the service gets."""
    monkeypatch.setattr(system_places, "_CONFIG_DIR", tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    assert (load().token_file, load().dashboard_token_file) == (tmp_path / "token", None)
    assert source_of("token_file", load()) == f"found in {tmp_path}"
    assert source_of("dashboard_token_file", load()) == "default"
