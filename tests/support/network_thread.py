"""Doing something in another network namespace, from this process. Needs root."""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000


def in_network(namespace: Path, act: Callable[[], T]) -> T:
    """Call something in a network namespace (a file such as ``/run/netns/NAME``), and return what it returns.

    A thread can change its own namespace, and the thread then ends; sockets and threads that it made stay in there.
    """
    made: list[T] = []

    def enter_and_act() -> None:
        with namespace.open("rb") as opened:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(opened.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(namespace))
        made.append(act())

    thread = threading.Thread(target=enter_and_act, name="in-network")
    thread.start()
    thread.join()
    (result,) = made
    return result
