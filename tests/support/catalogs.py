"""Catalogs that tests write for agents."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agp_agent import __version__

SHELL = f"agp/runner-shell:{__version__}"
PYTHON = f"agp/runner-python:{__version__}"


def shell_runner(suffix: str, **fields: Any) -> dict[str, Any]:
    """A shell runner for names that end so, with further keys."""
    return {"image": SHELL, "match": {"suffixes": [suffix]}, "command": ["agp-shell", "{playbook}"], **fields}


def python_runner(suffix: str, **fields: Any) -> dict[str, Any]:
    """A Python runner for names that end so, with further keys."""
    return {"image": PYTHON, "match": {"suffixes": [suffix]}, "command": ["python3", "{playbook}"], **fields}


def write_catalog(path: Path, runners: Mapping[str, Any]) -> Path:
    """Write a catalog as an editor does that saves whole files: nobody sees half of it. JSON is YAML."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"runners": runners}))
    new.replace(path)
    return path


def write_secret(path: Path, value: bytes, mode: int = 0o600) -> Path:
    """Write a file that holds a secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)
        os.fchmod(file.fileno(), mode)
    return path
