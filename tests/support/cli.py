"""The command ``agp-agent``, run to its end."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from support.agent_process import COMMAND
from support.waiting import PATIENCE_S

Ended = subprocess.CompletedProcess[str]
Cli = Callable[..., Ended]
"""Called with the arguments; by keyword ``stdin``, ``wrapper`` (a command that executes it) and more environment."""


def command_line(environment: Mapping[str, str]) -> Cli:
    """Make a caller of the command in this environment."""

    def run(*arguments: object, stdin: str = "", wrapper: Sequence[str] = (), **more: object) -> Ended:
        return subprocess.run(
            [*wrapper, COMMAND, *map(str, arguments)],
            env={**environment, **{name: str(value) for name, value in more.items()}},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    return run


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
