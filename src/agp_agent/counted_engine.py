"""Counts the calls to the container engine, by what was asked and how that went. It is an engine like the one in it."""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

from agp_agent.engine import ContainerEngine
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, ImageUnavailable, LockdownRefused

RESULTS: Final = ("ok", "unavailable", "missing", "refused", "image_unavailable", "lockdown_refused")
"""How a call went. ``refused``: the engine answered, and would not do it."""
_RESULT_OF: Final[tuple[tuple[type[EngineError], str], ...]] = (
    (EngineUnavailable, "unavailable"),
    (ContainerMissing, "missing"),
    (ImageUnavailable, "image_unavailable"),
    (LockdownRefused, "lockdown_refused"),
    (EngineError, "refused"),
)
_NOT_ASKED: Final = frozenset({"open", "aclose"})
"""What is no question to the engine."""
CALLS: Final = tuple(
    sorted(
        name
        for name, one in vars(ContainerEngine).items()
        if inspect.iscoroutinefunction(one) and name not in _NOT_ASKED
    )
)
"""What can be asked of an engine, in the words of its port."""


def counted(engine: ContainerEngine) -> tuple[ContainerEngine, Counter[tuple[str, str]]]:
    """The same engine, and the number of its calls by what was asked and how that went (``CALLS``, ``RESULTS``)."""
    calls: Counter[tuple[str, str]] = Counter()
    return cast("ContainerEngine", _Counted(engine, calls)), calls


class _Counted:
    def __init__(self, engine: ContainerEngine, calls: Counter[tuple[str, str]]) -> None:
        self._engine = engine
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in CALLS:
            return found
        setattr(self, name, counting := self._counting(name, found))
        return counting

    def _counting(self, name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        async def counting(*arguments: Any, **more: Any) -> Any:
            try:
                answer = await ask(*arguments, **more)
            except EngineError as error:
                self._calls[name, next(result for kind, result in _RESULT_OF if isinstance(error, kind))] += 1
                raise
            self._calls[name, "ok"] += 1
            return answer

        return counting
