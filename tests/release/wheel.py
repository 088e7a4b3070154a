"""The wheel as it is shipped: building it, and what it does in an environment that has nothing else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from release.images import ROOT


def built_wheel(folder: Path) -> Path:
    """Build the wheel of the commit that is checked out, into ``folder``."""
    subprocess.run((ROOT / ".ci" / "wheel", folder), check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """Install a wheel, and the locked packages that it needs, into a clean environment; returns its ``agp-agent``."""
    subprocess.run((sys.executable, "-m", "venv", folder), check=True)
    pip = (folder / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps")
    subprocess.run((*pip, "--require-hashes", "-r", ROOT / "requirements.lock"), check=True)
    subprocess.run((*pip, wheel), check=True)
    return folder / "bin" / "agp-agent"


def version_of(command: Path) -> dict[str, Any]:
    """What an installed command says of itself; its ``--help`` must work, too."""
    helped = subprocess.run((command, "--help"), check=True, capture_output=True, text=True)
    assert "serve" in helped.stdout
    told: dict[str, Any] = json.loads(
        subprocess.run((command, "version", "--json"), check=True, capture_output=True).stdout
    )
    return told
