"""What an agent meets at its ports: engine, dashboard, disk and clocks, all watched, and with faults to order."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast

from agp_agent import clock
from agp_agent.dashboard import Answer, Headers, Meaning, interpret
from agp_agent.engine import ContainerSpec, OwnedContainer, Signal, Stream
from agp_agent.errors import EngineUnavailable
from agp_agent.executor import Executor
from agp_agent.journal import Accepted, Admission, Attempt, Journal, NewAttempt, Release, Reservation, Start
from agp_agent.journal.database import Database, Operation, _Write
from agp_agent.lifecycle import Verdict
from agp_agent.models import TaskResult
from agp_agent.slots import Slots
from fakes.fake_engine import FakeEngine
from fakes.fake_host import Container, FakeHost
from support.agent_witness import Witness
from support.virtual_loop import Life, VirtualLoop, of_no_life

T = TypeVar("T")

IMAGE: Final = "fake/runner:1"
_LONG_AGO_MS: Final = 1_750_000_000_000


@dataclass
class Surroundings:
    """What stays while agents come and go, and how it is just now."""

    loop: VirtualLoop
    witness: Witness
    host: "WatchedHost"
    dashboard: str = "ok"
    """How it answers: ok, slow, away, answer lost, html, or a status."""
    engine_is_away: bool = False
    lose_answer_of: str = ""
    """The next call of this name is done, and nobody hears of it."""
    disk_is_full: bool = False
    """No playbook can be handed over; what is reserved for results is there."""
    clock_offset_s: float = 0.0

    def wall_ms(self) -> int:
        """Return the time of the wall clock, which may jump."""
        return _LONG_AGO_MS + round((self.loop.time() + self.clock_offset_s) * 1000)


class WatchedHost(FakeHost):
    """The machine: nothing on it dies with the agent, and the witness sees it."""

    def __init__(self, loop: VirtualLoop, witness: Witness) -> None:
        """It has the fake image."""
        super().__init__(clock=loop.time)
        self.images[IMAGE] = "sha256:1"
        self._witness = witness

    def start(self, container: Container) -> None:
        """Begin a life of its own."""
        of_no_life(lambda: super(WatchedHost, self).start(container))

    async def remove(self, container: Container) -> None:
        """See it through, whoever asked for it."""
        await asyncio.shield(of_no_life(lambda: asyncio.create_task(super(WatchedHost, self).remove(container))))

    def lose_markers(self) -> None:
        """Lose what containers said that printed nothing yet: it had not reached the engine's disk."""
        for container in self.containers.values():
            if not container.log[Stream.OUTPUT]:
                container.log[Stream.CONTROL].clear()
                if fate := self._witness.fate_of(container):
                    fate.unmarked.add(container.container_id)

    async def forget(self, *, kill_running: bool) -> None:
        """Be replaced, and note whom that concerns."""
        for container in self.containers.values():
            if fate := self._witness.fate_of(container):
                fate.outlived.add(container.container_id)
                if kill_running and container.running:
                    fate.taken_along.add(container.container_id)
        await super().forget(kill_running=kill_running)

    def happened(self, container: Container, action: str) -> None:
        """Tell the witness when a container ends."""
        super().happened(container, action)
        if action == "die":
            self._witness.ended(container)

    def _playbook(self, container: Container) -> bytes | None:
        self._witness.playbook_starts(container)
        return super()._playbook(container)


class WatchedEngine(FakeEngine):
    """One agent's connection to the engine, which can lose answers."""

    def __init__(self, around: Surroundings, life: Life) -> None:
        """Where the engine is away, it is away for every agent."""
        super().__init__(around.host)
        self._around = around
        self._life = life
        self._away = around.engine_is_away

    async def _call(self, name: str) -> None:
        self._life.check()
        self._around.witness.seen["engine call"] += 1
        await super()._call(name)
        self._life.check()

    async def create(self, spec: ContainerSpec) -> str:
        """Create; perhaps nobody hears of it."""
        container_id = await super().create(spec)
        self._lose_answer("create")
        return container_id

    async def start(self, container_id: str) -> None:
        """Start; perhaps nobody hears of it."""
        await super().start(container_id)
        self._lose_answer("start")

    async def signal(self, container_id: str, signal: Signal) -> bool:
        """Signal, and note that it was the agent."""
        reached = await super().signal(container_id, signal)
        container = self.host.find(container_id)
        if reached and container and (fate := self._around.witness.fate_of(container)):
            fate.stopped.add(container.container_id)
        return reached

    async def remove(self, container_id: str) -> None:
        """Remove, under the eyes of the witness; perhaps nobody hears of it."""
        await self._call("remove")
        container = self.host.find(container_id)
        if container is not None:
            self._around.witness.removing(container)
        await super().remove(container_id)
        self._lose_answer("remove")

    async def owned(self, labels: Mapping[str, str]) -> list[OwnedContainer]:
        """List, with ages as they are here, for one who looks at the real clock."""
        found, now_s = await super().owned(labels), self._around.loop.time()
        return [replace(one, created_at_s=time.time() - (now_s - one.created_at_s)) for one in found]

    def _lose_answer(self, call: str) -> None:
        if self._around.lose_answer_of == call:
            self._around.lose_answer_of = ""
            self._around.witness.seen[f"answer lost: {call}"] += 1
            raise EngineUnavailable("the connection was reset while the engine answered")


class WatchedDashboard:
    """The dashboard of one agent's life. How it answers is the world's."""

    def __init__(self, around: Surroundings, life: Life) -> None:
        """Ready to listen."""
        self._around = around
        self._life = life

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Take a result, or not."""
        self._life.check()
        mode, witness = self._around.dashboard, self._around.witness
        if mode == "away":
            return Answer(Meaning.RETRY, "the dashboard was not reached", away=True)
        run_id = witness.reported(headers.idempotency_key, result)
        await asyncio.sleep(1.0 if mode == "slow" else 0)
        self._life.check()
        if mode == "answer lost":
            return Answer(Meaning.RETRY, "the connection was reset", away=True)
        status = 200 if mode in ("ok", "slow", "html") else int(mode)
        body = b"<html>" if mode == "html" else b'{"message": "Result received"}'
        answer = interpret(status, body, "30" if mode == "503" else None)
        witness.answered(run_id, answer)
        return answer

    async def aclose(self) -> None:
        """Nothing to close."""


class Told(Future[Any]):
    """What a write of the real database is told by, for whoever waits in no loop: in the writer's own thread."""

    def get_loop(self) -> "Told":
        """The place where it is told: here."""
        return self

    def call_soon_threadsafe(self, call: Callable[..., object], *arguments: object) -> None:
        """Not soon: now."""
        call(*arguments)


def write_of(operation: Operation[Any]) -> _Write:
    """Return a write for the real writer."""
    told: Any = Told()
    return _Write(operation, told)


class SteppedDatabase(Database):
    """The real database; a write is committed in the turn after it was asked for, and not at all by the dead."""

    _life: Life
    _after_commit: Callable[[], None]
    _asked: list[tuple[Operation[Any], asyncio.Future[Any]]]

    def attend(self, life: Life, after_commit: Callable[[], None]) -> None:
        """Belong to a life."""
        self._life, self._after_commit, self._asked = life, after_commit, []

    async def write(self, operation: Operation[T]) -> T:
        """Wait for the turn, share its commit with all others, and be told a turn later."""
        self._life.check()
        if self._closed:
            return await super().write(operation)
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._commit)
        done: asyncio.Future[T] = loop.create_future()
        self._asked.append((operation, done))
        return await asyncio.shield(done)

    def _commit(self) -> None:
        if not self._life.alive:
            return
        asked, self._asked = self._asked, []
        writes = [write_of(operation) for operation, _ in asked]
        for write in writes:
            self._writes.put(write)
        told: Any = [write.done for write in writes]
        wait(told)
        self._after_commit()
        for write, (_, done) in zip(writes, asked, strict=True):
            if error := write.done.exception():
                done.set_exception(error)
            else:
                done.set_result(write.done.result())
            done.exception()  # seen: whoever asked may be gone

    async def read(self, operation: Operation[T]) -> T:
        """Read, unless dead."""
        self._life.check()
        return await super().read(operation)

    def close(self) -> None:
        """Finish what was asked for, unless dead."""
        self._commit()
        super().close()


class FullDisk:
    """Slots of the real kind, on a disk that may be full."""

    kind = "same path"

    def __init__(self, inner: Slots, around: Surroundings) -> None:
        """Stand before the real ones."""
        self._around = around
        self.open, self.note, self.drop, self.names = inner.open, inner.note, inner.drop, inner.names
        self.sync, self.is_untouched = inner.sync, inner.is_untouched
        self._fill = inner.fill

    async def fill(self, name: str, image: str, file: str, playbook: bytes, note: Mapping[str, object]) -> None:
        """Fill, unless there is no room."""
        if self._around.disk_is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await self._fill(name, image, file, playbook, note)


class WorldExecutor(Executor):
    """The real executor, on this world's disk."""

    around: Surroundings

    def use_slots(self, slots: Slots) -> None:
        """Use them as far as there is room."""
        super().use_slots(cast("Slots", FullDisk(slots, self.around)))


class WorldJournal(Journal):
    """The real journal, in this world's time."""

    _around: Surroundings

    def attend(self, life: Life, around: Surroundings) -> None:
        """Belong to a life in a world."""
        self._around = around
        self._now_ms = around.wall_ms
        turn_into(self._db, SteppedDatabase).attend(life, around.witness.committed)

    async def running(self, run_id: str, release: Release) -> bool:
        """Note when this was by the clock of this world."""
        return await super().running(run_id, replace(release, released_boot_s=self._around.loop.time()))

    async def start(self, run_id: str, start: Start) -> bool:
        """The same, where a container had waited."""
        return await super().start(run_id, self._in_this_world(start))

    async def accept(
        self,
        new: NewAttempt,
        admission: Admission,
        reject: Verdict | None = None,
        reservation: Reservation | None = None,
    ) -> Accepted:
        """The same, where it had waited for an order that comes in."""
        if reservation is not None:
            reservation = replace(reservation, start=self._in_this_world(reservation.start))
        return await super().accept(new, admission, reject, reservation)

    def _in_this_world(self, start: Start) -> Start:
        return replace(start, release=replace(start.release, released_boot_s=self._around.loop.time()))

    async def attempt(self, run_id: str) -> Attempt | None:
        """Tell when that was for one who looks at the real boot clock."""
        found = await super().attempt(run_id)
        if found is None or found.released_boot_s is None:
            return found
        return replace(found, released_boot_s=clock.boot_s() - self._around.loop.time() + found.released_boot_s)


def turn_into(part: object, kind: type[T]) -> T:
    """Make a part that was built as one of its class behave as one of a subclass of it."""
    part.__class__ = kind
    assert isinstance(part, kind)
    return part
