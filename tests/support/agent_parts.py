"""The parts of an agent over a ``FakeEngine``, put together as the composition root does, without its loops running."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from agp_agent.audit import Audit
from agp_agent.canary import Canary, Periods
from agp_agent.catalog import Catalog, Catalogs
from agp_agent.dispatcher import Dispatcher
from agp_agent.engine import Mount
from agp_agent.executor import Executor
from agp_agent.fencing import Fencing
from agp_agent.journal import Accepted, Admission, Attempt, DueResult, Journal, NewAttempt
from agp_agent.lifecycle import State, Verdict
from agp_agent.planner import Limits
from agp_agent.pool import Pool, PoolRules
from agp_agent.pool_sizes import Wish
from agp_agent.reach import Reach
from agp_agent.readiness import Readiness
from agp_agent.reconciler import Reconciler
from agp_agent.slots import BindSlots, Slots
from agp_agent.walk import Walk
from agp_agent.watch import LiveRun
from fakes.fake_engine import FakeEngine
from fakes.fake_host import Container, FakeHost
from support.async_waiting import PATIENCE_S, until, until_async
from support.clock import SetClock
from support.orders import order

IMAGE: Final = "fake/runner:1"
FENCE_IMAGE: Final = "agp/fence:fake"
API_PORT: Final = 8470
LABELS: Final = {"agp.agent_id": "unit", "agp.instance": "0123456789ab"}
LIMITS: Final = Limits(task_timeout_s=60, stop_grace_s=30, output_limit_bytes=4096)


def catalog_of(**runners: Mapping[str, object]) -> Catalog:
    """Return a catalog of runners of the fake image; ``shell`` is always among them."""
    base = {"image": IMAGE, "command": ["agp-shell", "{playbook}"]}
    shell = {"match": {"suffixes": [".sh"]}}
    named = {"shell": shell} | {name: dict(fields) for name, fields in runners.items()}
    return Catalog.model_validate({"runners": {name: base | shell | fields for name, fields in named.items()}})


@dataclass
class GatedSlots:
    """Slots of the real kind, with gates at which a test can stop a hand-over, and errors it can have."""

    inner: Slots
    filling: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a playbook is about to be handed over."""
    may_fill: asyncio.Event = field(default_factory=asyncio.Event)
    fill_errors: list[Exception] = field(default_factory=list)
    """Raised one after another, instead of filling."""
    kind: str = "gated"

    async def open(self, name: str) -> Mount:
        """Open for real."""
        return await self.inner.open(name)

    async def fill(self, name: str, image: str, file: str, playbook: bytes, note: Mapping[str, object]) -> None:
        """Wait at the gate, then fill for real, or fail."""
        self.filling.set()
        await self.may_fill.wait()
        if self.fill_errors:
            raise self.fill_errors.pop(0)
        await self.inner.fill(name, image, file, playbook, note)

    async def sync(self, name: str) -> None:
        """Sync for real."""
        await self.inner.sync(name)

    async def is_untouched(self, name: str) -> bool:
        """Look for real."""
        return await self.inner.is_untouched(name)

    async def note(self, name: str) -> Mapping[str, object]:
        """Read for real."""
        return await self.inner.note(name)

    async def drop(self, name: str) -> None:
        """Drop for real."""
        await self.inner.drop(name)

    async def names(self) -> list[str]:
        """List for real."""
        return await self.inner.names()


@dataclass
class Parts:
    """One agent's parts. A second one over the same folder and host is the agent after a restart."""

    folder: Path
    host: FakeHost
    engine: FakeEngine
    journal: Journal
    audit: Audit
    readiness: Readiness
    catalogs: Catalogs
    executor: Executor
    pool: Pool
    reach: Reach
    canary: Canary
    walk: Walk
    dispatcher: Dispatcher
    reconciler: Reconciler
    clock: SetClock
    slots: GatedSlots
    runs: dict[str, LiveRun]
    """What the observer saw."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        folder: Path,
        host: FakeHost,
        *,
        catalog: Catalog | None = None,
        limits: Limits = LIMITS,
        max_running: int = 4,
        queue_timeout_s: float = 0,
        clock: SetClock | None = None,
        uids: range = range(20000, 20256),
        rules: PoolRules | None = None,
        memory_left: Callable[[], float | None] = lambda: None,
        periods: Periods = Periods(),  # noqa: B008  it cannot be changed
        journal: Callable[[Path, SetClock], Journal] = lambda path, clock: Journal(path, clock, clock.boot_time),
    ) -> Self:
        """Build the parts; nothing moves yet."""
        for name in ("slots", "spool"):
            (folder / name).mkdir(exist_ok=True)
        clock = clock or SetClock()
        engine, runs = FakeEngine(host), dict[str, LiveRun]()
        opened, audit = journal(folder / "journal.db", clock), Audit(folder / "audit.jsonl")
        catalogs, readiness = Catalogs(catalog or catalog_of()), Readiness(max_running=max_running)
        fencing, reach = Fencing(engine, LABELS, image=FENCE_IMAGE), Reach()
        executor = Executor(engine, folder / "spool", uids, fencing)
        slots = GatedSlots(BindSlots(folder / "slots", folder / "slots", "same path"))
        slots.may_fill.set()
        executor.use_slots(slots)
        pool = Pool(
            engine,
            executor,
            catalogs,
            readiness,
            reach,
            limits=limits,
            labels=LABELS,
            rules=rules or PoolRules(Wish(0), len(uids)),
            memory_left=memory_left,
        )
        walk = Walk(
            opened,
            executor,
            pool,
            audit,
            catalogs=catalogs,
            readiness=readiness,
            reach=reach,
            limits=limits,
            labels=LABELS,
            observer=runs.__setitem__,
        )
        return cls(
            folder=folder,
            host=host,
            engine=engine,
            journal=opened,
            audit=audit,
            readiness=readiness,
            catalogs=catalogs,
            executor=executor,
            pool=pool,
            reach=reach,
            canary=Canary(
                engine,
                fencing,
                catalogs,
                readiness,
                reach,
                limits=limits,
                labels=LABELS,
                uids=uids,
                port=API_PORT,
                periods=periods,
            ),
            walk=walk,
            dispatcher=Dispatcher(opened, walk, catalogs, readiness, queue_timeout_s=queue_timeout_s),
            reconciler=Reconciler(opened, engine, executor, walk, pool, audit, LABELS, retention_s=1000),
            clock=clock,
            slots=slots,
            runs=runs,
        )

    def go(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a loop or a walk until these parts are closed."""
        task = asyncio.create_task(loop)
        self._tasks.append(task)
        return task

    async def freeze(self) -> None:
        """Stop all loops and walks; containers stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.dispatcher.aclose()
        await self.reconciler.aclose()
        await self.pool.aclose()
        await self.executor.aclose()

    async def aclose(self) -> None:
        """Stop as an agent stops."""
        await self.freeze()
        await self.engine.aclose()
        await self.audit.aclose()
        self.journal.close()

    # --- what tests do and look at ---------------------------------------------------------------------------------

    async def post(self, content: str, task_id: str = "t", runner: str = "shell") -> str:
        """Accept an order; return its run_id."""
        return (await self.accept(order(task_id, content, runner))).run_id

    async def accept(self, new: NewAttempt) -> Accepted:
        """Accept an order."""
        return await self.journal.accept(replace(new), Admission(self.readiness.slots, 1000))

    async def attempt(self, run_id: str) -> Attempt:
        """Return how an attempt stands."""
        found = await self.journal.attempt(run_id)
        assert found is not None
        return found

    async def in_state(self, run_id: str, state: State) -> Attempt:
        """Wait until an attempt is in this state."""

        async def look() -> Attempt | None:
            found = await self.attempt(run_id)
            return found if found.state is state else None

        found = await until_async(look, f"{run_id} {state}")
        assert found is not None
        return found

    async def verdict(self, run_id: str) -> Verdict:
        """Wait for an attempt's end."""
        found = await until_async(lambda: self.journal.verdict(run_id), f"the end of {run_id}")
        assert found is not None
        return found

    async def result(self, run_id: str) -> tuple[Verdict, DueResult]:
        """Wait for an attempt's end; return how it ended and what the outbox has of it."""
        verdict = await self.verdict(run_id)
        for seq in await self.journal.due(limit=1000, skip=[], horizon_ms=10**9):
            due = await self.journal.due_result(seq)
            if due is not None and due.run_id == run_id:
                return verdict, due
        raise AssertionError(f"{run_id} has ended without a result")

    async def printed(self, run_id: str, text: bytes) -> LiveRun:
        """Wait until a run has printed this."""
        run = await until(lambda: self.runs.get(run_id), f"{run_id} released")
        assert run is not None
        await until(lambda: text in run.spool.newest(10_000), f"{text!r} printed by {run_id}")
        return run

    async def clean(self) -> None:
        """Wait until nothing of any task is left: container, slot, spool, place."""

        def look() -> bool:
            left = [*(self.folder / "slots").iterdir(), *(self.folder / "spool").iterdir()]
            return not left and not self.host.containers and not self.walk.places.active

        await until(look, "nothing left")

    async def events(self) -> list[str]:
        """Return the names of all audit events so far."""
        return [line["event"] for line in await self.audited()]

    async def audited(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all audit lines so far, or those of one event."""
        await self.audit.flush()
        lines = [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]
        return [line for line in lines if event is None or line["event"] == event]

    async def heard(self, event: str) -> None:
        """Wait until an event was audited: that comes after the journal's commit."""

        async def look() -> bool:
            return event in await self.events()

        await until_async(look, event)

    async def limit_journal(self, *, pages: int) -> None:
        """Let the journal's file grow by so many pages and no more: beyond, SQLite says that the disk is full."""

        def limit(db: sqlite3.Connection) -> None:
            used = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {used + pages}")

        await self.journal._db.write(limit)

    def container(self) -> Container:
        """Return the only container there is."""
        (found,) = self.host.containers.values()
        return found


@contextlib.asynccontextmanager
async def agent(folder: Path, host: FakeHost, **options: Any) -> AsyncIterator[Parts]:
    """Make the parts, contact the engine, and close them in the end."""
    parts = Parts.make(folder, host, **options)
    await parts.engine.open()
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            yield parts
    finally:
        await parts.aclose()


@contextlib.asynccontextmanager
async def machine() -> AsyncIterator[FakeHost]:
    """A host that has the fake image; whatever still runs on it in the end is switched off."""
    host = FakeHost()
    host.images |= {IMAGE: "sha256:1", FENCE_IMAGE: "sha256:2"}
    try:
        yield host
    finally:
        await host.stop()


def wipe(folder: Path) -> None:
    """Remove what is in a folder."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
