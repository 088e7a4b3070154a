"""The socket in the state directory: by it an agent is asked from its own machine, where nothing else lets that in."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "health.sock"

_BACKLOG: Final = 16


def listen(folder: Path) -> socket.socket:
    """Open it in the state directory, whatever a dead agent left there. Raises ``OSError``."""
    listener = socket.socket(socket.AF_UNIX)
    with short_path(folder) as path:
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
    listener.listen(_BACKLOG)
    return listener


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Its path in a few bytes, while this is open: the system takes no more than 107. Raises ``OSError``."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)
