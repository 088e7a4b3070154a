"""Waiting on conditions inside an event loop. Nothing sleeps for a guessed time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_S: Final = 30.0
"""Far longer than anything takes: reaching it means that the condition never comes true."""
_PAUSE_S: Final = 0.002


async def until(look: Callable[[], T], what: str) -> T:
    """Return what ``look`` returns as soon as that is true.

    Raises:
        AssertionError: it did not become true; ``what`` says what was waited for.
    """

    async def look_async() -> T:
        return look()

    return await until_async(look_async, what)


async def until_async(look: Callable[[], Awaitable[T]], what: str) -> T:
    """The same for a ``look`` that is awaited."""
    seen: T | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (seen := await look()):  # noqa: ASYNC110  conditions of any kind, which have no event
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise AssertionError(f"not seen within {PATIENCE_S:g} s: {what} (last look: {seen!r})") from None
    return seen


async def settle(turns: int = 50) -> None:
    """Let everything that is ready to run have its turns."""
    for _ in range(turns):
        await asyncio.sleep(0)
