"""The catalog that is in force now, and the runners that tasks were accepted under before it changed."""

import asyncio

from agp_agent.catalog.catalog import Catalog
from agp_agent.catalog.runner import Runner


class Catalogs:
    """Belongs to the event loop."""

    def __init__(self, catalog: Catalog) -> None:
        """``catalog`` is in force until ``replace``."""
        self._current = catalog
        self._kept: dict[str, Runner] = {}
        self._listeners: list[asyncio.Event] = []

    @property
    def current(self) -> Catalog:
        """The catalog that tasks are accepted under now."""
        return self._current

    def subscribe(self) -> asyncio.Event:
        """An event of the caller's own that is set at every new catalog."""
        event = asyncio.Event()
        self._listeners.append(event)
        return event

    def replace(self, catalog: Catalog) -> None:
        """Accept tasks under this one from now on."""
        self._current = catalog
        for event in self._listeners:
            event.set()

    def keep(self, run_id: str, runner: Runner) -> None:
        """Remember the runner that a run was accepted under: it stays its runner whatever the catalog becomes."""
        self._kept[run_id] = runner

    def runner_of(self, run_id: str, name: str) -> Runner | None:
        """The runner of a run: the one it was accepted under or, where an earlier agent accepted it, today's."""
        return self._kept.get(run_id) or self._current.runners.get(name)

    def forget(self, run_id: str) -> None:
        """The run has ended. Idempotent."""
        self._kept.pop(run_id, None)
