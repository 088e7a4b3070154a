"""A whole agent, as the composition root builds it, in a world of fakes that can do to it whatever a real one does.

The journal, the audit trail, slots and spools are real files; engine, dashboard and time are the world's. Everything
runs in one ``VirtualLoop``, so that the agent can be killed at any turn, and begun again on what it left.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from agp_agent.app import Agent
from agp_agent.backoff import Gate
from agp_agent.caller import Caller
from agp_agent.disk_watch import RESERVE_BYTES
from agp_agent.engine import Signal
from agp_agent.errors import EngineError, Refused
from agp_agent.journal import JournalUnavailable
from agp_agent.redaction import Masker
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir
from support.agent_ports import (
    IMAGE,
    Surroundings,
    WatchedDashboard,
    WatchedEngine,
    WatchedHost,
    WorldExecutor,
    WorldJournal,
    turn_into,
    write_of,
)
from support.agent_verdicts import OUTPUT_LIMIT_BYTES, TIMEOUT_S
from support.agent_witness import Witness
from support.virtual_loop import Life, VirtualLoop

SeedBug = Callable[[Agent], None]

PLACES: Final = 2
_CATALOG: Final = f"""
runners:
  shell: {{image: "{IMAGE}", match: {{suffixes: [.sh]}}, command: [agp-shell, "{{playbook}}"]}}
"""
_PATIENCE_S: Final = 3000
_LOOK_S: Final = 20
_TURNS_MAX: Final = 200
_LAST_TURNS: Final = 5
"""So soon those hear of its end whose requests were under way."""
_IN_MEMORY: Final = Path("/dev/shm")
"""A file system as any other, but that nobody waits for a disk."""


class Inhabitant:
    """One life of the agent in this world."""

    def __init__(self, folder: Path, settings: Settings, around: Surroundings, seed_bug: SeedBug) -> None:
        """Build it and let it begin."""
        self._folder = folder
        self._loop = around.loop
        self._stopping = asyncio.Event()
        self.life = Life()
        self.state = StateDir(folder, "unit")
        self.engine = WatchedEngine(around, self.life)
        dashboard = WatchedDashboard(around, self.life)
        self.agent = Agent(settings, self.state, self.engine, dashboard, Masker(lambda: ()), lambda _run_id, _run: None)
        journal = turn_into(self.agent.journal, WorldJournal)
        journal.attend(self.life, around)
        journal._db._writes.put(write_of(lambda db: db.execute("PRAGMA busy_timeout = 0")))  # nobody waits in real time
        turn_into(self.agent._engine_watch._executor, WorldExecutor).around = around
        self.agent._outbox._gate = Gate(around.loop.time)
        seed_bug(self.agent)
        self.main = self._loop.live(self.life, self._live())

    async def _live(self) -> None:
        async with self.agent.running():
            await self._stopping.wait()
            await self.agent.drain(5)
        self.state.close()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._stopping.set()

    def do(self, request: Coroutine[Any, Any, None]) -> None:
        """Let a request come in."""
        self._loop.live(self.life, request)

    def kill(self) -> None:
        """Send SIGKILL: what is not on disk now is gone; sockets and locks go with the process."""
        files = [self._folder / f"journal.db{suffix}" for suffix in ("", "-wal")]
        self.life.alive = False
        self.engine._break_attachments()
        kept = [(file, file.read_bytes()) for file in files if file.exists()]
        self._loop.kill(self.life)
        self.agent.journal.close()  # this tidies up, as a process that is killed does not
        (self._folder / "journal.db-shm").unlink(missing_ok=True)
        for file, data in kept:
            file.write_bytes(data)
        self.agent.audit._writer.shutdown()
        if self.agent.audit._fd >= 0:
            os.close(self.agent.audit._fd)
        self.state.close()


class World:
    """The folder, the machine, the dashboard, the clocks, and the agent as long as there is one."""

    def __init__(self, seed_bug: SeedBug = lambda _agent: None, *, warm: int = 0) -> None:
        """An empty one, in which nothing is amiss. ``seed_bug`` may change the parts of every agent.

        ``warm``: how many containers wait for a task.
        """
        self._home = tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
        home = Path(self._home.name)
        (home / "catalog.yaml").write_text(_CATALOG)
        self.folder = home / "state"
        self.loop = VirtualLoop()
        self.witness = Witness(self.loop.time, PLACES)
        self.around = Surroundings(self.loop, self.witness, WatchedHost(self.loop, self.witness))
        self.agent: Inhabitant | None = None
        self._seed_bug = seed_bug
        self._locker: sqlite3.Connection | None = None
        self._settings = Settings(
            catalog=home / "catalog.yaml",
            task_timeout_s=TIMEOUT_S,
            stop_grace_s=5,
            output_limit_bytes=OUTPUT_LIMIT_BYTES,
            max_running=PLACES,
            max_queued=20,
            result_retention_s=10**9,
            warm=warm,
        )
        self.start()

    # --- the agent -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start an agent on what the last one left."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "reserve").open("ab") as reserve:
            reserve.truncate(RESERVE_BYTES)  # quicker than to fill it
        self.agent = Inhabitant(self.folder, self._settings, self.around, self._seed_bug)
        self.witness.open(self.folder / "journal.db")
        self.witness.able()

    def kill(self) -> None:
        """The agent dies by SIGKILL."""
        assert self.agent is not None
        self.unlock_journal()
        self.witness.committed()
        self.witness.close()
        self.agent.kill()
        self.agent = None
        self.witness.seen["killed"] += 1

    def terminate(self) -> None:
        """The agent is asked to stop."""
        assert self.agent is not None
        self.agent.terminate()

    def look_after_agent(self) -> None:
        """Where the agent has stopped as it was asked to, bury it; a loop that ended by itself is a broken promise."""
        if self.agent is None or not self.agent.main.done():
            return
        self.agent.main.result()
        self.loop.turns(_LAST_TURNS)
        assert not self.agent.life.left, f"left by an agent that stopped: {self.agent.life.left}"
        self.witness.close()
        self.agent = None
        self.witness.seen["stopped"] += 1

    # --- requests --------------------------------------------------------------------------------------------------

    def submit(self, task_id: str, playbook: str, name: str = "a.sh") -> None:
        """Somebody sends a task."""
        assert self.agent is not None
        body = json.dumps({"task_id": task_id, "playbook": {"name": name, "content": playbook}}).encode()
        self.agent.do(self._accept(self.agent.agent, body))

    async def _accept(self, agent: Agent, body: bytes) -> None:
        try:
            _, accepted = await agent.intake.accept(body, None, Caller("peer"))
        except Refused as refused:
            self.witness.seen[f"refused with {refused.status}"] += 1
        else:
            self.witness.promise(accepted)

    def cancel(self, task_id: str) -> None:
        """Somebody cancels a task."""
        assert self.agent is not None
        self.agent.do(self._cancel(self.agent.agent, task_id))

    async def _cancel(self, agent: Agent, task_id: str) -> None:
        with contextlib.suppress(JournalUnavailable):
            self.witness.seen["cancel noted"] += await agent.journal.request_cancel(task_id)

    def reconcile(self) -> None:
        """A minute is over."""
        assert self.agent is not None
        self.agent.do(self._reconcile(self.agent.agent))

    async def _reconcile(self, agent: Agent) -> None:
        with contextlib.suppress(EngineError, JournalUnavailable):
            await agent._reconciler.reconcile()

    # --- what goes wrong -------------------------------------------------------------------------------------------

    def engine_goes_away(self) -> None:
        """Nobody reaches the engine any more; containers live on."""
        self.around.engine_is_away = True
        if self.agent is not None:
            self.agent.engine.go_away()

    def engine_comes_back(self, *, restarted: bool, kill_running: bool = False, loses_markers: bool = False) -> None:
        """It can be reached again; ``restarted`` as another process, which may kill what it finds."""
        self.around.engine_is_away = False
        self.witness.able()
        if loses_markers:
            self.around.host.lose_markers()
        if restarted:
            self.loop.run_until_complete(self.around.host.forget(kill_running=kill_running))
            self.witness.seen["engine replaced"] += 1
        if self.agent is not None:
            self.loop.run_until_complete(self.agent.engine.come_back(restarted=False))

    def operator(self, *, removes: bool, which: int) -> None:
        """Somebody kills a container, or removes it."""
        containers = list(self.around.host.containers.values())
        if not containers:
            return
        container = containers[which % len(containers)]
        fate = self.witness.fate_of(container)
        if removes:
            if fate is not None:  # while it is killed for that, it can be seen as killed or as gone
                fate.removed.add(container.container_id)
                fate.killed.update({container.container_id} if container.running else ())
            self.loop.run_until_complete(self.around.host.remove(container))
        elif self.around.host.signal(container, Signal.KILL) and fate is not None:
            fate.killed.add(container.container_id)
        self.witness.seen["removed by an operator" if removes else "killed by an operator"] += 1

    def lock_journal(self) -> None:
        """Another process holds the journal: no write is possible, reads are."""
        self._locker = sqlite3.connect(self.folder / "journal.db", isolation_level=None)
        self._locker.execute("BEGIN IMMEDIATE")
        self.witness.seen["journal locked"] += 1

    def unlock_journal(self) -> None:
        """It lets go."""
        if self._locker is not None:
            self._locker.close()
            self._locker = None
            self.witness.able()

    @property
    def journal_is_locked(self) -> bool:
        """Whether somebody holds it."""
        return self._locker is not None

    # --- time ------------------------------------------------------------------------------------------------------

    def turns(self, number: int) -> None:
        """Let everybody have so many turns."""
        self.loop.turns(number)
        self.look_after_agent()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass."""
        self.loop.pass_time(seconds)
        self.look_after_agent()

    def until(self, what: str) -> None:
        """Stop at the very turn in which the next thing of this kind happens, if one does soon."""
        self.loop.run_until_complete(self._until(what))
        self.look_after_agent()

    async def _until(self, what: str) -> None:
        before = self.witness.seen[what]
        for _ in range(_TURNS_MAX):
            if self.witness.seen[what] > before:
                return
            await asyncio.sleep(0)

    # --- the end ---------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault."""
        self.around.dashboard, self.around.lose_answer_of, self.around.disk_is_full = "ok", "", False
        self.unlock_journal()
        if self.around.engine_is_away:
            self.engine_comes_back(restarted=False)
        self.look_after_agent()
        if self.agent is None:
            self.start()

    def settle(self) -> None:
        """Give everything the time to come to its end, and judge it."""
        self.heal()
        for _ in range(_PATIENCE_S // _LOOK_S):
            self.pass_time(_LOOK_S)
            if self.agent is None:  # it had been asked to stop
                self.start()
            elif not self.left:
                break
        self.witness.judge()
        if self.left:
            self.witness.broken.append(f"left in the end: {self.left}")
        self.witness.check()

    @property
    def left(self) -> list[str]:
        """All that is not at its end yet."""
        rows = [row.run_id for row in self.witness.rows.values() if row.delivery not in ("acknowledged", "dead_letter")]
        waiting = self.agent.agent.pool.slots if self.agent else frozenset()
        files = [path.name for kind in ("slots", "spool") for path in (self.folder / kind).iterdir()]
        files = [name for name in files if name not in waiting]
        containers = [one.name for one in self.around.host.containers.values() if one.name not in waiting]
        places = list(self.agent.agent._dispatcher._walk.places.active) if self.agent else []
        return rows + files + containers + places

    def check(self) -> None:
        """Raise where a promise was broken so far."""
        self.witness.look_at_files(self.folder)
        self.witness.check()

    def close(self) -> None:
        """End the world."""
        if self.agent is not None:
            self.kill()
        self.loop.run_until_complete(self.around.host.stop())
        self.loop.close()
        self._home.cleanup()
