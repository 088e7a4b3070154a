"""Whether the agent can start tasks now, and how many at once. Written by the loops, read by dispatcher and API."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PARTS: Final = ("engine", "runner images", "journal", "journal size", "audit", "disk", "file descriptors")
"""What may keep tasks from starting."""


@dataclass(slots=True)
class Readiness:
    """The agent's condition. ``changed`` is set at every change; the dispatcher sleeps on it."""

    max_running: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    """What is missing, one sentence each, by part (``PARTS``)."""
    warnings: dict[str, str] = field(default_factory=dict)
    """What is not well and keeps no task from starting, by part, such as catalog or a token file; one sentence each."""
    draining: bool = False
    paused: bool = False
    """An operator wants no task to start; what comes is taken on and waits."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody saw that a part is not well: whoever watches that part looks again at once."""
    listeners: list[asyncio.Event] = field(default_factory=list)
    on_news: Callable[[str, str | None], None] = lambda _part, _problem: None
    """Called at every change of a part, with its problem or None."""

    @property
    def slots(self) -> int:
        """Tasks that can run at once now: none while something is missing, or the agent is paused or stopping."""
        return 0 if self.problems or self.draining or self.paused else self.max_running

    @property
    def ready(self) -> bool:
        """Whether a task that is accepted now would be started."""
        return self.slots > 0

    def subscribe(self) -> asyncio.Event:
        """An event of the caller's own that is set at every change."""
        self.listeners.append(asyncio.Event())
        return self.listeners[-1]

    def report(self, part: str, problem: str | None) -> bool:
        """Say how a part is; None is well. True where that is news."""
        return self._note(self.problems, part, problem)

    def warn(self, part: str, problem: str | None) -> bool:
        """The same for a part that keeps no task from starting."""
        return self._note(self.warnings, part, problem)

    def _note(self, notes: dict[str, str], part: str, problem: str | None) -> bool:
        if notes.get(part) == problem:
            return False
        if problem is None:
            notes.pop(part, None)
        else:
            notes[part] = problem
        self._tell()
        self.on_news(part, problem)
        return True

    def doubt(self, part: str, problem: str) -> None:
        """Report a problem that was met in passing; it stands until the part was looked at again."""
        self.report(part, problem)
        self.doubted.set()

    def pause(self, *, paused: bool) -> None:
        """Start no task until this is taken back, or go on."""
        self.paused = paused
        self._tell()

    def drain(self) -> None:
        """Start nothing any more."""
        self.draining = True
        self._tell()

    def _tell(self) -> None:
        for event in (self.changed, *self.listeners):
            event.set()
