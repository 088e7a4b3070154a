"""SELinux, where the host enforces it: containers may only read what carries a label that is theirs."""

import os
from pathlib import Path
from typing import Final

READABLE: Final = "container_ro_file_t"
"""The type of what containers may read and nobody writes from inside them."""

_CONTAINERS_OWN: Final = frozenset({READABLE, "container_file_t", "svirt_sandbox_file_t", "container_share_t"})
_LABEL: Final = "security.selinux"
_ENFORCE: Final = Path("/sys/fs/selinux/enforce")


def is_enforced(switch: Path = _ENFORCE) -> bool:
    """Whether this host enforces it."""
    try:
        return switch.read_text().strip() == "1"
    except OSError:
        return False


def share(path: Path, switch: Path = _ENFORCE) -> None:
    """Where it is enforced, label a file or folder of the agent's own so that containers may read it.

    All containers may: which of them can is decided by what is mounted.

    Raises:
        OSError: the agent may not relabel it.
    """
    if not is_enforced(switch):
        return
    os.setxattr(path, _LABEL, f"system_u:object_r:{READABLE}:s0".encode())


def problem(source: str) -> str | None:
    """Why containers could not read an operator's folder or file, and what to do about it; None: they can."""
    try:
        label = os.getxattr(source, _LABEL).rstrip(b"\0").decode(errors="replace")
    except OSError:
        return None  # it is not here, or its file system has no labels of its own
    parts = label.split(":")
    kind = parts[2] if len(parts) > 2 else label  # noqa: PLR2004  user:role:type:level
    if kind in _CONTAINERS_OWN:
        return None
    return f"{source} has the SELinux type {kind}, which containers may not read: chcon -R -t container_file_t {source}"
