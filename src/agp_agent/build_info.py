"""What this copy of the program was built from."""

import platform
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self

from agp_agent import __version__

_COMMIT_FILE: Final = "COMMIT"
"""Written into the package by whoever builds it: the image's Dockerfile, ``.ci/wheel``. A checkout has none."""


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """``commit`` is the source's, ``-dirty`` behind it where there was more than that; None where nobody wrote it."""

    version: str
    commit: str | None
    python: str

    @classmethod
    def of_this(cls) -> Self:
        """Of the program that runs."""
        return cls(__version__, _commit(), platform.python_version())


def _commit() -> str | None:
    try:
        written = (files("agp_agent") / _COMMIT_FILE).read_text().strip()
    except FileNotFoundError:
        return None
    return None if written in ("", "unknown") else written
