"""Files of secrets as an operator should write them."""

import os
from pathlib import Path


def write_secret(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write ``text`` in place into a file of this mode; return its path."""
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return path


def replace_secret(path: Path, text: str, mode: int = 0o600) -> None:
    """Put a new file of this mode in the place of the old one, at once."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    write_secret(fresh, text, mode)
    fresh.replace(path)
