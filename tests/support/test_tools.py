"""The programs that ``.ci/test-tools`` fetches for the tests."""

import shutil
from pathlib import Path
from typing import Final

_TOOLS: Final = Path(__file__).parents[2] / "build/tools/usr/bin"


def tool(name: str) -> str:
    """The path of a program; one that is not there is a failure, never a skip."""
    found = shutil.which(name) or shutil.which(name, path=str(_TOOLS))
    assert found is not None, f"there is no {name} on this machine: run .ci/test-tools first"
    return found
