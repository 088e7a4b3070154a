"""Runs one container at a time per call: prepare, release, watch, discard. Knows no journal and no network.

*prepare* gives a container whose entry waits; *release* hands the playbook over and lets it start; *watch* sees it to
its end. A container that was prepared ahead of time and one that was prepared just now are the same thing.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from agp_agent.capture import Spool, complete_from_log
from agp_agent.engine import Attachment, ContainerEngine, ContainerSpec, ContainerState, Image, Signal, Stream
from agp_agent.errors import EngineError, EngineUnavailable
from agp_agent.lifecycle import ContainerExit, Reason
from agp_agent.planner import RunSpec
from agp_agent.slots import PROBE_PREFIX, Slots

T = TypeVar("T")

_SIGNAL_EXIT_BASE: Final = 128
_MARKER_MAX_BYTES: Final = 256
_STREAM_END_S: Final = 10.0
"""How long the rest of the output may take to arrive after the exit, before it is read from the engine's log."""
_STREAM_EARLY_S: Final = 1.0
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A started container whose entry waits for its release."""

    spec: RunSpec
    container: ContainerSpec
    container_id: str
    image: Image
    attachment: Attachment
    epoch: int
    """The engine's when the container was created."""


@dataclass(slots=True)
class LiveRun:
    """A released container. ``pump`` is None for one that was adopted: nobody was attached when it started."""

    container_id: str
    slot: str
    marker: bytes
    spool: Spool
    epoch: int | None
    pump: asyncio.Task[None] | None = None
    control: bytearray = field(default_factory=bytearray)
    interrupted: bool = False
    """The stream may have missed something: the output is completed from the engine's log."""
    stream_ended_s: float = 0.0

    @property
    def started(self) -> bool:
        """Whether the entry said that it starts the playbook."""
        return self.control.startswith(self.marker)


@dataclass(frozen=True, slots=True)
class Stop:
    """When and why a run is ended by the agent. ``note`` is awaited before anything is done."""

    after_s: float
    cancelled: asyncio.Event
    grace_s: float
    note: Callable[[Reason], Awaitable[None]]
    asked_before: Reason | None = None
    """An earlier agent stopped the container for this reason, or was about to."""


class NeverStarted(EngineError):
    """The container ended, and it is certain that its playbook never started."""


class StartUnknown(EngineError):
    """The container ended, and nobody can tell whether its playbook started."""


def release_line(nonce: str) -> bytes:
    """What lets the entry start the playbook: the runner contract, version 1."""
    return f"agp1 release {nonce}\n".encode()


def start_marker(nonce: str) -> bytes:
    """What the entry answers on its control channel before anything else."""
    return f"agp1 started {nonce}\n".encode()


class Executor:
    """Drives containers through the engine's port."""

    def __init__(self, engine: ContainerEngine, spools: Path, uids: range) -> None:
        """Output is spooled under ``spools``; every prepared container gets a user of its own out of ``uids``."""
        self._engine = engine
        self._spools = spools
        self._uids = uids
        self._uid_of: dict[str, int] = {}
        self._slots: Slots | None = None

    def use_slots(self, slots: Slots) -> None:
        """Hand playbooks over in this way from now on."""
        self._slots = slots

    @property
    def slots(self) -> Slots:
        """The way playbooks are handed over. Raises ``EngineUnavailable`` while it is not known yet."""
        if self._slots is None:
            raise EngineUnavailable("the engine has not been reached yet")
        return self._slots

    # --- prepare ---------------------------------------------------------------------------------------------------

    async def prepare(self, spec: RunSpec, slot: str) -> Prepared:
        """Create, attach and start a container in ``slot``; its entry then waits for the release.

        Raises:
            ImageUnavailable, LockdownRefused, EngineUnavailable, EngineError: nothing was started; what may have been
                made is removed again as far as the engine answers.
        """
        try:
            return await self._prepare(spec, slot)
        except BaseException:
            with contextlib.suppress(EngineError):
                await asyncio.shield(self.discard(slot))
            raise

    async def _prepare(self, spec: RunSpec, slot: str) -> Prepared:
        image = await self._engine.image(spec.container.image, spec.pull)
        mount = await self.slots.open(slot)
        container = spec.in_slot(slot, self._take_uid(slot), mount)
        epoch = self._engine.epoch
        container_id = await self._engine.create(container)
        attachment = await self._engine.attach(container_id)
        try:
            await self._engine.start(container_id)
        except BaseException:
            await attachment.aclose()
            raise
        return Prepared(spec, container, container_id, image, attachment, epoch)

    def _take_uid(self, slot: str) -> int:
        taken = set(self._uid_of.values())
        uid = next((uid for uid in self._uids if uid not in taken), None)
        if uid is None:
            raise EngineError(
                f"all {len(self._uids)} user ids of AGP_UID_RANGE are in use; widen it or run fewer tasks."
            )
        self._uid_of[slot] = uid
        return uid

    # --- release ---------------------------------------------------------------------------------------------------

    async def release(self, prepared: Prepared, playbook: bytes, note: Mapping[str, object], nonce: str) -> LiveRun:
        """Hand the playbook over and let it start. Whether it did is told by the run's end, also where this is cut off.

        Raises:
            EngineUnavailable, EngineError, OSError: the playbook could not be handed over; it has not started.
        """
        spec, slot = prepared.spec, prepared.container.name
        try:
            await self.slots.fill(slot, prepared.image.name, spec.playbook_file, playbook, note)
            spool = Spool.create(self._spools / slot, spec.output_limit_bytes)
        except BaseException:
            await prepared.attachment.aclose()  # its entry sees the end of stdin, and ends
            raise
        run = LiveRun(prepared.container_id, slot, start_marker(nonce), spool, prepared.epoch)
        run.pump = asyncio.create_task(_pump(prepared.attachment, run), name=f"pump {slot}")
        try:
            await prepared.attachment.send(release_line(nonce))
        except EngineUnavailable:
            run.interrupted = True  # the line may have arrived: the end of the container will tell
        return run

    def adopt(self, container_id: str, slot: str, nonce: str, uid: int | None, limit_bytes: int) -> LiveRun:
        """Take over a released container of an earlier agent; its output is completed from the engine's log."""
        if uid is not None:
            self._uid_of[slot] = uid
        spool = Spool.reopen(self._spools / slot, limit_bytes)
        return LiveRun(container_id, slot, start_marker(nonce), spool, None, interrupted=True)

    # --- watch -----------------------------------------------------------------------------------------------------

    async def watch(self, run: LiveRun, stop: Stop) -> ContainerExit:
        """See a released container to its end; stop it by TERM, grace, KILL when its time is over or it is cancelled.

        Cancelling this call leaves the container alone: the next agent adopts it.

        Raises:
            ContainerMissing: somebody removed it.
            NeverStarted: it ended, and its playbook certainly never started.
            StartUnknown: it ended, and nobody can tell whether the playbook started.
        """
        ended = asyncio.create_task(self._engine.wait(run.container_id), name=f"wait {run.slot}")
        try:
            asked = await self._until_ended(run, ended, stop)
            state = await ended
            await self._end_of_output(run)
            await self._check_started(run, state)
            return await self._exit(run, state, asked or stop.asked_before)
        finally:
            ended.cancel()
            if run.pump is not None:
                run.pump.cancel()
            run.spool.close()

    async def _until_ended(self, run: LiveRun, ended: asyncio.Task[ContainerState], stop: Stop) -> Reason | None:
        """Wait for the end, or bring it about; return why the agent did."""
        cancelled = asyncio.create_task(stop.cancelled.wait())
        try:
            done, _ = await asyncio.wait({ended, cancelled}, timeout=stop.after_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        if ended in done:
            return None
        reason = Reason.CANCEL_REQUESTED if cancelled in done else Reason.DEADLINE
        await stop.note(reason)
        stopped = await self._signal(run.container_id, Signal.TERM, ended)
        await asyncio.wait({ended}, timeout=stop.grace_s)
        if not ended.done():
            stopped = await self._signal(run.container_id, Signal.KILL, ended) or stopped
        return reason if stopped else None

    async def _signal(self, container_id: str, signal: Signal, ended: asyncio.Task[ContainerState]) -> bool:
        """Send a signal, again and again while the engine is away; False where the container had ended by itself."""
        while not ended.done():
            try:
                return await self._engine.signal(container_id, signal)
            except EngineUnavailable:
                await asyncio.wait({ended}, timeout=_RETRY_S)
        return False

    async def _end_of_output(self, run: LiveRun) -> None:
        """Wait for the rest of the output; where the stream was interrupted, complete it from the engine's log."""
        if run.pump is not None:
            _, late = await asyncio.wait({run.pump}, timeout=_STREAM_END_S)
            if late:
                run.pump.cancel()
                await asyncio.wait(late)
            # A stream that ends long before its container was cut, or the playbook closed its stdout: the log tells.
            early = asyncio.get_running_loop().time() - run.stream_ended_s > _STREAM_EARLY_S
            if late or early or run.epoch != self._engine.epoch:
                run.interrupted = True
        if run.interrupted:
            engine_log = await self._patiently(lambda: self._engine.log(run.container_id))
            complete_from_log(run.spool, engine_log)
            if not run.started:
                run.control[:] = engine_log.control[:_MARKER_MAX_BYTES]

    async def _check_started(self, run: LiveRun, state: ContainerState) -> None:
        if run.started:
            return
        # The marker may have died with an engine that was restarted: only the engine's own memory can tell.
        same_engine = run.epoch is not None and run.epoch == self._engine.epoch
        if same_engine or (await self._patiently(lambda: self._engine.history(run.container_id))).created:
            raise NeverStarted(state.error or f"its entry ended with exit code {state.exit_code} before the playbook")
        raise StartUnknown("the container engine was restarted, and whether the playbook started is not known")

    async def _exit(self, run: LiveRun, state: ContainerState, asked: Reason | None) -> ContainerExit:
        """Judge a death by signal: who killed it? Only the agent's own record and the engine's memory can tell."""
        if asked or state.oom_killed or state.exit_code < _SIGNAL_EXIT_BASE:
            return ContainerExit(state.exit_code, oom_killed=state.oom_killed, asked=asked)
        history = await self._patiently(lambda: self._engine.history(run.container_id))
        same_engine = run.epoch == self._engine.epoch or history.created or history.died
        return ContainerExit(
            state.exit_code, killed_externally=history.kills > 0, engine_restarted=not same_engine and not history.kills
        )

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask until the engine answers."""
        while True:
            try:
                return await call()
            except EngineUnavailable:
                await asyncio.sleep(_RETRY_S)

    async def leftover_slots(self) -> list[str]:
        """Names of all slots and spools there are, whoever needs them; probes come and go by themselves."""
        spools = await asyncio.to_thread(os.listdir, self._spools)
        names = {*await self.slots.names(), *spools}
        return sorted(name for name in names if not name.startswith(PROBE_PREFIX))

    # --- discard ---------------------------------------------------------------------------------------------------

    async def discard(self, slot: str) -> None:
        """Remove a slot with its container and its spool. What is missing is success.

        Raises:
            EngineUnavailable: the container may still be there; nothing else was touched.
        """
        await self._engine.remove(slot)
        await self.slots.drop(slot)
        (self._spools / slot).unlink(missing_ok=True)
        self._uid_of.pop(slot, None)


async def _pump(attachment: Attachment, run: LiveRun) -> None:
    """Take in what the container prints until its stream ends. Never waits for anything but the stream itself."""
    try:
        async for stream, data in attachment.frames():
            if stream is Stream.OUTPUT:
                run.spool.append(data)
            elif len(run.control) < _MARKER_MAX_BYTES:
                run.control += data[: _MARKER_MAX_BYTES - len(run.control)]
    except EngineUnavailable:
        run.interrupted = True
    finally:
        run.stream_ended_s = asyncio.get_running_loop().time()
        await attachment.aclose()
