"""File descriptors: how many this process may have, what they are for, and whether enough are left."""

import contextlib
import errno
import resource
import sys
from pathlib import Path
from typing import Final

_CLIENTS_SHARE: Final = 4
"""One in so many may be a client's connection."""
_CLIENTS_MIN: Final = 8
_CLIENTS_MAX: Final = 1280
STRANGERS_MAX: Final = 1024
"""A thousand honest senders that come at once are strangers until their first line arrives."""
_OWN: Final = 36
"""What the agent has open whatever it does: journal, trail, the engine's connections, deliveries."""
_PER_TASK: Final = 3
"""Its attached stream, its spool, and one for a moment's use."""
_SPARE: Final = 8
NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""What the system says when it grants no more."""
_OPEN: Final = Path("/proc/self/fd")


def raise_limit() -> None:
    """Take all that the system grants, as servers do."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # it grants less than it says: stay with what there is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """How many this process may have open now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def clients_max(descriptors: int) -> int:
    """How many connections of clients there may be with so many descriptors."""
    if descriptors == resource.RLIM_INFINITY:
        return _CLIENTS_MAX
    return max(_CLIENTS_MIN, min(_CLIENTS_MAX, descriptors // _CLIENTS_SHARE))


def strangers_max(descriptors: int, wanted: int | None) -> int:
    """How many of them no right token has come over: at most ``wanted``, and a fifth of the places is never theirs."""
    return min(wanted or STRANGERS_MAX, clients_max(descriptors) * 4 // 5)


def tasks_max(descriptors: int) -> int:
    """How many tasks can run at once beside them; one is always tried."""
    if descriptors == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, (descriptors - clients_max(descriptors) - _OWN) // _PER_TASK)


def problem() -> str | None:
    """Why no new work should be begun; None where enough are left."""
    allowed = limit()
    if allowed == resource.RLIM_INFINITY:
        return None
    try:
        left = allowed - sum(1 for _ in _OPEN.iterdir())
    except OSError:
        left = 0
    if left >= _SPARE:
        return None
    return f"nearly all of the {allowed} file descriptors that this process may have (RLIMIT_NOFILE) are in use"
