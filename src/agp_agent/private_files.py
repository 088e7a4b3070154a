"""Files that hold secrets: read only where nobody else on this machine could have read or changed them."""

import os
import stat
from pathlib import Path
from typing import Final

_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
_LIMIT_BYTES: Final = 64 * 1024


class NotPrivate(ValueError):
    """The file may be read by everybody, or changed by more than its owner. The message goes behind the file's name."""


def read_private(path: Path, limit_bytes: int = _LIMIT_BYTES) -> bytes:
    """The content of a secret file; what is checked is the very file that is read.

    Its owner may be anybody, and its group may read it: so a secret of Kubernetes (0440, by ``fsGroup``) and one of
    systemd (0440) reach an agent that is not root.

    Raises:
        OSError: it cannot be opened.
        NotPrivate: its mode is too open.
        ValueError: it is no regular file, or larger than ``limit_bytes``.
    """
    with open(_opened(path), "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"is larger than {limit_bytes} bytes")
    return content


def check_private(path: Path) -> None:
    """Raise what ``read_private`` would, for a file that somebody else reads."""
    os.close(_opened(path))


def _opened(path: Path) -> int:
    # Not to wait for whoever writes into a pipe, should it be one.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError("is not a regular file")
    if mode & _OTHERS:
        raise NotPrivate(_sentence(mode, "everybody on this machine can read it"))
    if mode & stat.S_IWGRP:
        raise NotPrivate(_sentence(mode, "its group can change it"))


def _sentence(mode: int, why: str) -> str:
    return (
        f"has mode {stat.S_IMODE(mode):04o}, so {why}; expected 0600 or 0400, or 0640 or 0440 where a group of its "
        "own reads it (for a Secret of Kubernetes: defaultMode 0440 and fsGroup)"
    )
