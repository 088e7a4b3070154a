"""Where this system keeps things: by systemd's own words where it starts the agent, else by convention (FHS, XDG)."""

import os
from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "agent.yaml"
_CONFIG_DIR: Final = Path("/etc/agp-agent")
_CREDENTIALS: Final = {"token_file": "token", "dashboard_token_file": "dashboard-token"}
"""Settings, and the credentials of a unit (``LoadCredential=``), or files in ``/etc``, that take their place."""


def state_dir() -> Path:
    """The state directory, where no setting names one."""
    if (named := os.environ.get("STATE_DIRECTORY")) is not None:
        return Path(named.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/agp-agent")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "agp-agent"


def config_file() -> Path | None:
    """The settings file, where nobody names one and it exists."""
    named = os.environ.get("CONFIGURATION_DIRECTORY")
    found = (Path(named.split(":")[0]) if named else _CONFIG_DIR) / CONFIG_FILE
    return found if _exists(found) else None


def token_files() -> dict[str, Path]:
    """The settings that name files of tokens, for those that systemd hands over, or that are beside the settings."""
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY") or _CONFIG_DIR)
    files = {setting: folder / name for setting, name in _CREDENTIALS.items()}
    return {setting: file for setting, file in files.items() if _exists(file)}


def _exists(file: Path) -> bool:
    """Whether it is there, as far as this user may know."""
    try:
        return file.exists()
    except PermissionError:
        return False
