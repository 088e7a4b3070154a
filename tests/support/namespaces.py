"""Commands that execute another one in a namespace of its own."""

import os
from pathlib import Path
from typing import Final

# Whoever is not root becomes it in a user namespace: mounting needs that, and files still belong to the same user.
_UNSHARE: Final = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


def with_tmpfs(path: Path, size: str) -> tuple[str, ...]:
    """A command in whose namespace a file system in memory lies over ``path``: nobody else sees what is in it."""
    return (*_UNSHARE, "sh", "-ec", f'mount -t tmpfs -o size={size} none "$0"; exec "$@"', str(path))


def with_bind(source: Path, target: Path) -> tuple[str, ...]:
    """A command in whose namespace ``source`` lies over ``target`` too."""
    return (*_UNSHARE, "sh", "-ec", 'mount --bind "$0" "$1"; shift; exec "$@"', str(source), str(target))


def with_address(address: str, device: str) -> tuple[str, ...]:
    """A command in a network namespace that has this address, on a device of this name, and no way out."""
    script = 'ip link add "$1" type bridge; ip address add "$0" dev "$1"; ip link set "$1" up; shift; exec "$@"'
    return ("unshare", "--net", "sh", "-ec", script, address, device)
