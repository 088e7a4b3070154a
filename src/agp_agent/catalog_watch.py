"""Notices that the operator changed the catalog: a valid one is taken over, an invalid one is not, loudly."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from agp_agent import catalog, secret_files, selinux
from agp_agent.audit import Audit, AuditEvent
from agp_agent.catalog import Catalog, Catalogs, Runner
from agp_agent.errors import ConfigurationError
from agp_agent.mount_rules import MountRules
from agp_agent.readiness import Readiness

log = structlog.get_logger(__name__)

PART: Final = "catalog"
_LOOK_S: Final = 1.0

_State = tuple[object, ...]


class CatalogWatch:
    """Looks every second; what looks the same twice has been written to its end, and is read.

    It looks at the file behind the path, whatever links lead there, so that a link that is swapped, as Kubernetes does
    with a ConfigMap, is a change like any other.
    """

    def __init__(
        self,
        catalogs: Catalogs,
        readiness: Readiness,
        audit: Audit,
        path: Path | None,
        rules: MountRules,
        also: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        """``path`` is the operator's file or None; ``rules`` say what it may not mount.

        ``also``: what else of the configuration is in force, for the audit trail.
        """
        self._catalogs = catalogs
        self._readiness = readiness
        self._audit = audit
        self._path = path
        self._rules = rules
        self._also = also
        self._seen: _State | None = None
        self._read: _State | None = None

    async def run(self) -> None:
        """Look again and again; without a file there is nothing to look at."""
        self._began(self._catalogs.current)
        while self._path is not None:
            await self.look(self._path)
            await asyncio.sleep(_LOOK_S)

    async def look(self, path: Path) -> None:
        """Take over what has changed and is no longer being written."""
        before, self._seen = self._seen, await asyncio.to_thread(_state, [path, *self._catalogs.current.side_files])
        # What could not be used is tried again: it may have been for want of another file.
        if self._seen != before or (self._seen == self._read and PART not in self._readiness.warnings):
            return
        self._read = self._seen
        try:
            new = await asyncio.to_thread(catalog.load, path, self._rules)
        except ConfigurationError as error:
            self._refuse(error)
        else:
            self._take_over(new)

    def _refuse(self, error: ConfigurationError) -> None:
        if self._readiness.warn(PART, " ".join(error.problems)):
            log.error("the changed catalog cannot be used; the one before stays in force", problems=error.problems)

    def _take_over(self, new: Catalog) -> None:
        self._readiness.warn(PART, None)
        if new != self._catalogs.current:
            self._catalogs.replace(new)
            self._began(new)

    def _began(self, new: Catalog) -> None:
        """Tell which catalog is in force from now on."""
        runners = new.runners.values()
        self._audit.record(
            AuditEvent.CONFIG_LOADED,
            sha256=new.sha256,
            runners={one.name: one.image for one in runners},
            grants={one.name: one.grants for one in runners if one.grants},
            **self._also(),
        )
        log.info("catalog in force", runners=new.names)
        for runner in runners:
            for problem in unusable(runner):
                log.warning("tasks of this runner will fail", runner=runner.name, why=problem)


def unusable(runner: Runner) -> list[str]:
    """What a runner is granted and its tasks could not use now, one sentence each."""
    unreadable = [selinux.problem(source) for source in runner.sources] if selinux.is_enforced() else []
    return [*secret_files.problems(runner.secret_files), *filter(None, unreadable)]


def _state(paths: list[Path]) -> _State:
    """What changes whenever one of the files does."""
    return tuple(_identity(path) for path in paths)


def _identity(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
