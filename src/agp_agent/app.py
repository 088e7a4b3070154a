"""The composition root: builds all parts of an agent from the settings, starts and stops its loops."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog

from agp_agent import __version__, catalog, leftovers, recovery
from agp_agent.audit import Audit, AuditEvent
from agp_agent.canary import Canary
from agp_agent.catalog import Catalogs
from agp_agent.catalog_watch import CatalogWatch
from agp_agent.counted_engine import counted
from agp_agent.dashboard import Dashboard
from agp_agent.degradation import Degradation
from agp_agent.disk_watch import DiskWatch
from agp_agent.dispatcher import Dispatcher
from agp_agent.engine import ContainerEngine
from agp_agent.engine_watch import EngineWatch
from agp_agent.errors import StateDirectoryError
from agp_agent.executor import Executor
from agp_agent.fencing import Fencing
from agp_agent.following import Following
from agp_agent.intake import FastLane, Intake
from agp_agent.journal import Delivery
from agp_agent.lifecycle import Outcome, Reason
from agp_agent.metrics import Metrics
from agp_agent.operating import Operating
from agp_agent.outbox import Outbox
from agp_agent.overview import Overview
from agp_agent.planner import Limits
from agp_agent.pool import Pool, PoolRules
from agp_agent.pool_sizes import Wish
from agp_agent.preflight import memory_left, mount_rules
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness
from agp_agent.reconciler import Reconciler
from agp_agent.redaction import Masker
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir
from agp_agent.tally import Tally
from agp_agent.walk import Observer, Walk

log = structlog.get_logger(__name__)

_REMOVAL_S = 5.0
"""At least so long may the removal of containers that wait for a task take, whatever time running tasks are given."""


class Agent:
    """All parts of one agent. It runs in ``running``, and is done with when that ends."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        engine: ContainerEngine,
        dashboard: Dashboard,
        masker: Masker,
        observer: Observer | None = None,
        configured: Callable[[], Mapping[str, object]] = dict,
        wish: Wish | None = None,
    ) -> None:
        """Build the parts; nothing moves yet. ``observer`` follows the output of runs in the place of ``following``.

        ``configured``: what the audit trail tells of the configuration beside the catalog; ``wish``: how many warm
        containers there are to be, where that is not what the settings say.

        Raises:
            ConfigurationError: the catalog or the state directory cannot be used.
        """
        labels = state.identity.labels
        self.settings = settings
        self.identity = state.identity
        rules = mount_rules(settings)
        self.catalogs = Catalogs(catalog.load(settings.catalog, rules))
        self.readiness = Readiness(problems={"engine": "the container engine has not been reached yet"})
        recovery.check_schema(state)
        self.audit = _open_audit(state, masker, settings.audit_retention_s)
        self._degradation = Degradation(self.audit)
        self.readiness.on_news = self._degradation.hear
        opened = recovery.open_journal(state, self.audit)
        self.journal, self._opened = opened.journal, opened
        self.following = Following(self.journal)
        self.operating = Operating(self.journal, self.audit, self.readiness, state.paused)
        self._state = state
        self.metrics = Metrics()
        self.journal.on_commit(self.metrics.committed)
        engine, calls = counted(engine)
        self.metrics.count_engine_calls(calls)
        self._engine = engine
        self.stages = self.metrics.stages
        self._dashboard = dashboard
        self._fencing = Fencing(engine, labels, image=settings.fence_image, deny=settings.outbound_denied)
        self.reach = Reach()
        executor = Executor(engine, state.spool, settings.uids, self._fencing, masker, rules, self.stages)
        self._executor = executor
        limits = Limits(settings.task_timeout_s, settings.stop_grace_s, settings.output_limit_bytes)
        self.pool = Pool(
            engine,
            executor,
            self.catalogs,
            self.readiness,
            self.reach,
            limits=limits,
            labels=labels,
            rules=PoolRules(
                wish or Wish(settings.warm, is_asked="warm" in settings.model_fields_set),
                len(settings.uids),
                settings.warm_max_age_s,
                settings.warm_before_ready,
            ),
            memory_left=memory_left(),
        )
        walk = Walk(
            self.journal,
            executor,
            self.pool,
            self.audit,
            catalogs=self.catalogs,
            readiness=self.readiness,
            reach=self.reach,
            limits=limits,
            labels=labels,
            observer=observer or self.following.observe,
            stages=self.stages,
        )
        self._dispatcher = Dispatcher(
            self.journal, walk, self.catalogs, self.readiness, queue_timeout_s=settings.queue_timeout_s
        )
        self._reconciler = Reconciler(
            self.journal, engine, executor, walk, self.pool, self.audit, labels, retention_s=settings.result_retention_s
        )
        self._outbox = Outbox(self.journal, dashboard, self.audit, state.identity.agent_id, stages=self.stages)
        self._disk_watch = DiskWatch(
            self.journal,
            self.audit,
            self.readiness,
            state.reserve,
            journal_limit_bytes=settings.journal_limit_bytes,
        )
        self._catalog_watch = CatalogWatch(
            self.catalogs, self.readiness, self.audit, settings.catalog, rules, configured
        )
        self._canary = Canary(
            engine,
            self._fencing,
            self.catalogs,
            self.readiness,
            self.reach,
            limits=limits,
            labels=labels,
            uids=settings.uids,
            port=settings.port,
        )
        self._engine_watch = EngineWatch(
            engine,
            executor,
            self.pool,
            self.catalogs,
            self.readiness,
            self._reconciler.reconcile,
            slots=state.slots,
            engine_state_dir=settings.engine_state_dir,
            labels=labels,
            max_running=settings.max_running,
            max_uids=len(settings.uids),
            accepted=settings.accepted_lacks,
        )
        self.overview = Overview(
            self.journal,
            self.audit,
            self.readiness,
            engine,
            lambda: self.catalogs.current,
            limits,
            self.reach,
            warm=self.pool.status,
            accepted=settings.accepted_lacks,
            agent_id=state.identity.agent_id,
            max_queued=settings.max_queued,
        )
        self.auth_failures = Tally(self.audit, AuditEvent.AUTH_FAILED, counted=self.metrics.auth_failed)
        self._refusals = Tally(self.audit, AuditEvent.TASK_REFUSED)
        self.intake = Intake(
            self.journal,
            self.audit,
            self._refusals,
            self.readiness,
            self.catalogs,
            max_queued=settings.max_queued,
            rerun_after_s=settings.rerun_after_s,
            playbook_limit_bytes=settings.playbook_limit_bytes,
            stages=self.stages,
            fast_lane=FastLane(walk, self._dispatcher.hold),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops around the body. Containers that still run at its end are left to the next agent.

        Raises:
            ExceptionGroup: a loop ended by an error nobody foresaw.
        """
        self.audit.record(AuditEvent.AGENT_STARTED, version=__version__, agent_id=self.identity.agent_id)
        await self._recover()
        await self._tell_dead_letters()
        await self._engine.open()
        try:
            async with asyncio.TaskGroup() as loops:
                tasks = [loops.create_task(loop) for loop in self._loops()]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            await self._aclose()

    async def _recover(self) -> None:
        lost = 0
        if (damage := self._opened.damage) is not None:
            lost += await recovery.rebuild(self.journal, self._state, self.audit, damage)
        lost += await recovery.settle(self._opened, self._state, self.audit)
        self.stages.found_ended(Outcome.LOST, Reason.JOURNAL_LOST, lost)

    async def _tell_dead_letters(self) -> None:
        """They are kept until an operator looks at them: remind of them at every start."""
        number = (await self.journal.counts()).get(Delivery.DEAD_LETTER, 0)
        if number:
            log.warning("results that were not delivered are kept as dead letters", dead_letters=number)
            self.audit.record(AuditEvent.DEAD_LETTERS_KEPT, dead_letters=number)

    def _loops(self) -> list[Coroutine[Any, Any, None]]:
        loops = (self._engine_watch, self._disk_watch, self._catalog_watch, self._dispatcher, self._reconciler)
        others = (self.pool, self._outbox, self._canary, self.auth_failures, self._refusals)
        return [*(loop.run() for loop in (*loops, *others)), self.journal.broken()]

    async def remove_leftovers(self) -> None:
        """As soon as the engine is there, remove what killed commands such as ``run`` have left on it."""
        changed = self.readiness.subscribe()
        while "engine" in self.readiness.problems:
            changed.clear()
            await changed.wait()
        await leftovers.remove(self._engine, {Path(tempfile.gettempdir()), self.settings.state_dir})

    async def drain(self, timeout_s: float) -> None:
        """Start nothing any more, and give what runs so long to end and to be delivered."""
        self.readiness.drain()
        await asyncio.gather(_within(timeout_s, self._idle()), _within(max(timeout_s, _REMOVAL_S), self.pool.drain()))

    async def _idle(self) -> None:
        await self._dispatcher.idle()
        await self._reconciler.idle()
        await self._outbox.flushed()

    async def _aclose(self) -> None:
        await self._dispatcher.aclose()
        await self._reconciler.aclose()
        await self.pool.aclose()
        await self._executor.aclose()
        await self._fencing.aclose()
        await self.overview.aclose()
        await self._engine.aclose()
        await self._dashboard.aclose()
        await asyncio.to_thread(self.stages.tracer.close)
        self._degradation.close()
        self.auth_failures.flush()
        self._refusals.flush()
        self.audit.record(AuditEvent.AGENT_STOPPED, agent_id=self.identity.agent_id)
        await self.audit.aclose()
        self.journal.close()


async def _within(timeout_s: float, work: Coroutine[Any, Any, None]) -> None:
    """Wait for it, but no longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await work


def _open_audit(state: StateDir, masker: Masker, max_age_s: float) -> Audit:
    try:
        return Audit(state.audit, masker.tree, max_age_s=max_age_s)
    except OSError as error:
        raise StateDirectoryError(f"{state.audit}: the audit trail cannot be used: {error.strerror}.") from None
