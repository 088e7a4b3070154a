"""Waiting on conditions. Tests never sleep for a guessed time: they wait until something is so."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_S: Final = 90.0
"""Far longer than anything takes: reaching it means that the condition never comes true."""
_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.1
"""Who waits for long looks less often: what is waited for needs the processor, too."""


def eventually(look: Callable[[], T], what: str, *, patience_s: float = PATIENCE_S) -> T:
    """Return what ``look`` returns as soon as that is true; ``what`` says what was waited for.

    Raises:
        AssertionError: it did not become true within ``patience_s``.
    """
    give_up_s, pause_s = time.monotonic() + patience_s, _PAUSE_S
    while not (seen := look()):
        assert time.monotonic() < give_up_s, f"not seen within {patience_s:g} s: {what} (last look: {seen!r})"
        time.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.2)
    return seen
