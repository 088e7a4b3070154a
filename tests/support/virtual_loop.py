"""An event loop whose time is the test's: nothing in it depends on how fast the machine is.

Time passes only when nothing is left to do, and then at once up to the next timer. What would run in a thread runs in
the loop, a turn later. So everything happens in the same order each time, and can be stopped at any turn.
"""

import asyncio
import contextvars
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_TICKS_PER_S: Final = 16
"""Timers keep to a grid, so that the microseconds of a real clock that enters a sum change no order."""
_FUNERAL_TURNS: Final = 200
_BUSY_TURNS: Final = 20_000

_life: contextvars.ContextVar["Life | None"] = contextvars.ContextVar("life", default=None)


class Life:
    """One process, as far as the loop is concerned: all tasks that came from its first one."""

    def __init__(self) -> None:
        """It begins."""
        self.alive = True
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def check(self) -> None:
        """Let nobody go on who is dead: called by everything through which a process has an effect on its world."""
        if not self.alive:
            raise asyncio.CancelledError("this process is dead")

    @property
    def left(self) -> list[asyncio.Task[Any]]:
        """Its tasks that have not ended."""
        return [task for task in self.tasks if not task.done()]


class _Selector(selectors.DefaultSelector):
    """Never waits: time passes instead."""

    loop: "VirtualLoop"
    _busy = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; where nothing is, it is later than it was."""
        ready = super().select(0)
        assert ready or timeout is not None, "nothing will ever happen again"
        self._busy = self._busy + 1 if ready or not timeout else 0
        assert self._busy < _BUSY_TURNS, "somebody goes round and round, and no time passes"
        if not ready:
            self.loop.now_s += max(0.0, timeout or 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. ``turns`` and ``pass_time`` let it run for so long; between them it stands still."""

    def __init__(self) -> None:
        """It is zero o'clock."""
        self.now_s = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.set_task_factory(_create_task)

    def time(self) -> float:
        """Return the time that has passed here."""
        return self.now_s

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at the tick nearest to this time; what is in the future stays there."""
        tick = round(when * _TICKS_PER_S)
        if when > self.now_s:
            tick = max(tick, math.floor(self.now_s * _TICKS_PER_S) + 1)
        return super().call_at(tick / _TICKS_PER_S, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do it here, a turn later, unless whoever asked for it is dead by then."""
        del executor
        life, future = _life.get(), self.create_future()
        if life is not None:
            life.check()

        def work() -> None:
            if future.done():
                return
            if life is not None and not life.alive:
                future.cancel()  # its last steps may wait for this: it never comes
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001  whatever it is, it goes to the one who asked
                future.set_exception(error)

        self.call_soon(work)
        return future

    def live(self, life: Life, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as part of a life; so is all that it starts."""
        context = contextvars.Context()
        context.run(_life.set, life)
        return self.create_task(coro, context=context)

    def kill(self, life: Life) -> None:
        """End a life as SIGKILL does: nothing that its tasks do from now on has an effect."""
        life.alive = False
        for task in life.left:
            task.cancel()
        for _ in range(_FUNERAL_TURNS):
            if not life.left:
                return
            self.turns(1)
        raise AssertionError(f"these tasks do not end: {life.left}")

    def turns(self, number: int) -> None:
        """Let everybody who is ready have so many turns; no time passes."""
        self.run_until_complete(_turns(number))

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until_complete(asyncio.sleep(seconds))


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def of_no_life(make: Callable[[], T]) -> T:
    """Call something whose tasks belong to no life: the machine's own."""
    return contextvars.Context().run(make)


def _create_task(
    loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
    life = _life.get() if context is None else context.get(_life)
    if life is not None:
        life.tasks[task] = None
        task.add_done_callback(lambda done: life.tasks.pop(done, None))
    return task
