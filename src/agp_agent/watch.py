"""Watches a released container to its end: takes in its output, stops it when asked, and finds out how it ended.

The end of the stream is not the exit, and a bare exit code 137 may be anything: what happened is told by inspect, by
the agent's own record of what it asked for, and by what the engine's process remembers.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from agp_agent.capture import Spool, complete_from_log
from agp_agent.engine import Attachment, ContainerEngine, ContainerLog, ContainerState, Signal, Stream
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable
from agp_agent.evidence import SIGNAL_EXIT_BASE, Evidence
from agp_agent.lifecycle import ContainerExit, Reason
from agp_agent.redaction import Needles, StreamMasker
from agp_agent.stages import Stage

T = TypeVar("T")

_REFUSAL: Final = "agp1 error "
_CONTROL_MAX_BYTES: Final = 256 * 1024
"""The start marker, and as many events as are looked at."""
_STREAM_END_S: Final = 10.0
"""How long the rest of the output may take to arrive after the exit, before it is read from the engine's log."""
_STREAM_EARLY_S: Final = 0.5
"""A stream that ended so long before its container was cut, or the playbook closed its stdout: the log tells."""
_COMPARED_BYTES: Final = 64 * 1024
"""A stream that was cut ends as one does whose container ended. So little is compared with the engine's log each time;
of more, the log is read only where there is doubt, for it may be large."""
_FLOOD_BYTES: Final = 64 * 1024
_FLOOD_S: Final = 1.0
"""More than so much in so short a time waits inside the engine, for its log or for us; less is passed on at once."""
_STUCK_LOOKS: Final = 3
_STUCK_S: Final = 2.0
_RETRY_S: Final = 1.0
_CLOCK_SLACK_S: Final = 1.0
"""How far the clock of the engine's host may go wrong within one run."""


class NeverStarted(EngineError):
    """The container ended, and it is certain that its playbook never started."""


class StartUnknown(EngineError):
    """The container ended, and nobody can tell whether its playbook started."""


@dataclass(frozen=True, slots=True)
class Stop:
    """When and why a run is ended by the agent. ``note`` is awaited before anything is done."""

    after_s: float
    cancelled: asyncio.Event
    grace_s: float
    note: Callable[[Reason], Awaitable[None]]
    asked_before: Reason | None = None
    """An earlier agent stopped the container for this reason, or was about to."""


@dataclass(slots=True)
class Flow:
    """How much came lately: within the last one to two times ``_FLOOD_S``."""

    since_s: float = 0.0
    now_bytes: int = 0
    before_bytes: int = 0

    def take(self, size: int, at_s: float) -> None:
        """Count bytes that came."""
        if (passed_s := at_s - self.since_s) > _FLOOD_S:
            self.before_bytes = self.now_bytes if passed_s <= 2 * _FLOOD_S else 0
            self.since_s, self.now_bytes = at_s, 0
        self.now_bytes += size

    def is_flood(self, at_s: float) -> bool:
        """Whether it was much."""
        self.take(0, at_s)
        return self.now_bytes + self.before_bytes >= _FLOOD_BYTES


@dataclass(slots=True)
class LiveRun:
    """A released container. One that was adopted has no ``epoch`` and no ``pump``: nobody saw it start."""

    container_id: str
    slot: str
    marker: bytes
    spool: Spool
    epoch: int | None
    pump: asyncio.Task[None] | None = None
    control: bytearray = field(default_factory=bytearray)
    interrupted: bool = False
    """The stream may have missed something: the output is completed from the engine's log."""
    ended_early: bool = False
    """The stream ended well before the container did."""
    stream_ended_s: float = 0.0
    released_s: float | None = None
    told_to_stop_s: float = 0.0
    flow: Flow = field(default_factory=Flow)
    ended_in_flood: bool = False
    log_is_gone: bool = False
    """The container was removed before the engine's log of it could be read."""
    was_warm: bool = False
    """Its container had waited for whoever might come: what happened to it then says nothing of its runner."""
    ended_as_stuck: bool = False
    """The agent killed it because it seemed to wait for its release for ever."""
    secrets: Needles | None = None
    """What is masked in its output; None: its runner has no secrets."""
    log_is_secret: bool = False
    """The secrets that it was started with are not known any more: nobody could mask the engine's log."""
    masker: StreamMasker | None = field(init=False, default=None)
    mark: Callable[[Stage], None] = lambda _stage: None
    """Told of each stage that the run reaches."""

    def __post_init__(self) -> None:
        """Mask from the first byte on."""
        self.masker = StreamMasker(self.secrets) if self.secrets else None

    @property
    def in_doubt(self) -> bool:
        """Whether the engine's log may well have more than the stream had."""
        return self.interrupted or self.ended_early

    @property
    def started(self) -> bool:
        """Whether the playbook started: its entry said so, or there is output, which only a playbook makes."""
        return self.control.startswith(self.marker) or self.spool.total_bytes > 0

    @property
    def holds_back(self) -> bool:
        """Whether the last that came may be the beginning of a secret, and is not in the spool."""
        return self.masker is not None and self.masker.holds

    def keep(self, output: bytes, *, is_last: bool = False) -> None:
        """Spool what was printed, its secrets masked; ``is_last``: also what was held back."""
        if self.masker is not None:
            output = self.masker.feed(output) + (self.masker.end() if is_last else b"")
        if output:
            self.spool.append(output)

    def take_in(self, attachment: Attachment) -> None:
        """Begin to take in what the container prints; it was released just now."""
        self.released_s = asyncio.get_running_loop().time()
        self.pump = asyncio.create_task(self._pump(attachment), name=f"pump {self.slot}")

    async def _pump(self, attachment: Attachment) -> None:
        """Read until the stream ends. Never waits for anything but the stream itself."""
        try:
            async for stream, data in attachment.frames():
                if stream is Stream.OUTPUT:
                    self.mark(Stage.OUTPUT)
                    self.keep(data)
                    self.flow.take(len(data), asyncio.get_running_loop().time())
                elif len(self.control) < _CONTROL_MAX_BYTES:
                    self.mark(Stage.MARKER)
                    self.control += data[: _CONTROL_MAX_BYTES - len(self.control)]
        except EngineUnavailable:
            self.interrupted = True
        finally:
            self.stream_ended_s = asyncio.get_running_loop().time()
            self.ended_in_flood = self.flow.is_flood(self.stream_ended_s)
            await attachment.aclose()


async def see_to_end(engine: ContainerEngine, run: LiveRun, stop: Stop) -> ContainerExit:
    """See a released container to its end; stop it by TERM, grace, KILL when its time is over or it is cancelled.

    Cancelling this call leaves the container alone: the next agent adopts it.

    Raises:
        ContainerMissing: somebody removed it.
        NeverStarted: it ended by itself, and its playbook certainly never started.
        StartUnknown: it ended by itself, and nobody can tell whether the playbook started.
    """
    ended = asyncio.create_task(engine.wait(run.container_id), name=f"wait {run.slot}")
    rescue = asyncio.create_task(_end_if_stuck(engine, run), name=f"rescue {run.slot}")
    try:
        asked = await _until_ended(engine, run, ended, stop)
        state = await ended
        run.mark(Stage.EXITED)
        engine_log = None if await _stream_is_whole(engine, run) else await _log_of(engine, run)
        evidence = await _evidence(engine, run, state, stop.asked_before, asked)
        if engine_log is not None:
            _complete_output(run, await _masked(run.secrets, engine_log), evidence)
        elif not run.in_doubt:
            run.keep(b"", is_last=True)
        if asked is not None and not evidence.before_its_stop:
            return ContainerExit(state.exit_code, oom_killed=state.oom_killed, asked=asked)
        _check_started(run, evidence)
        return evidence.exit
    finally:
        ended.cancel()
        rescue.cancel()
        if run.pump is not None:
            run.pump.cancel()
        run.spool.close()


async def _end_if_stuck(engine: ContainerEngine, run: LiveRun) -> None:
    """Kill a container whose stream broke before its playbook started: it may wait for its release for ever.

    An engine that dies and keeps its containers alive (live-restore) takes the release line with it. One that starts
    between the last look and the kill is noted, so that it is neither run again nor taken for killed by somebody else.
    """
    if run.pump is not None:
        await asyncio.wait({run.pump})
    with contextlib.suppress(EngineError):  # it is gone: whoever waits for its end is told
        for look in range(_STUCK_LOOKS):
            await asyncio.sleep(_STUCK_S if look else 0)
            if run.started or _tells_of_start(run, await _patiently(lambda: engine.log(run.container_id))):
                return
        run.ended_as_stuck = True  # first: its end may be told before the answer
        run.ended_as_stuck = await _patiently(lambda: engine.signal(run.container_id, Signal.KILL))


def _tells_of_start(run: LiveRun, engine_log: ContainerLog) -> bool:
    """Whether the engine's log shows that the playbook started; the marker is the first that rotation drops."""
    return engine_log.control.startswith(run.marker) or bool(engine_log.output) or engine_log.rotated


async def _until_ended(
    engine: ContainerEngine, run: LiveRun, ended: asyncio.Task[ContainerState], stop: Stop
) -> Reason | None:
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
    run.told_to_stop_s = asyncio.get_running_loop().time()
    stopped = await _signal(engine, run.container_id, Signal.TERM, ended)
    await asyncio.wait({ended}, timeout=stop.grace_s)
    if not ended.done():
        stopped = await _signal(engine, run.container_id, Signal.KILL, ended) or stopped
    return reason if stopped else None


def _ended_before_its_stop(run: LiveRun, state: ContainerState) -> bool:
    """Whether it ended by itself, and an engine that hung took the signal for delivered when it went on.

    Its life was shorter than the time that it had been released for when it was told to stop.
    """
    if run.released_s is None or state.ran_s is None or state.exit_code >= SIGNAL_EXIT_BASE:
        return False
    return state.ran_s < run.told_to_stop_s - run.released_s - _CLOCK_SLACK_S


async def _signal(
    engine: ContainerEngine, container_id: str, signal: Signal, ended: asyncio.Task[ContainerState]
) -> bool:
    """Send a signal, again and again while the engine is away; False where the container had ended by itself."""
    while not ended.done():
        try:
            return await engine.signal(container_id, signal)
        except EngineUnavailable:
            await asyncio.wait({ended}, timeout=_RETRY_S)
    return False


async def _stream_is_whole(engine: ContainerEngine, run: LiveRun) -> bool:
    """Wait for the rest of the output; whether all of it came, as far as anybody can tell."""
    if run.pump is None:
        return False
    _, late = await asyncio.wait({run.pump}, timeout=_STREAM_END_S)
    if late:
        run.pump.cancel()
        await asyncio.wait(late)
    if late or not _same_contact(engine, run):
        run.interrupted = True
    run.ended_early = asyncio.get_running_loop().time() - run.stream_ended_s > _STREAM_EARLY_S
    return not run.in_doubt and run.spool.total_bytes > _COMPARED_BYTES


async def _log_of(engine: ContainerEngine, run: LiveRun) -> ContainerLog | None:
    """The engine's record of the output, which may tell of the start; where it is gone and needed, a gap is stated."""
    try:
        engine_log = await _patiently(lambda: engine.log(run.container_id))
    except ContainerMissing:  # removed after its end: how it ended is known, what it printed last is not
        run.log_is_gone = True
        if run.in_doubt:
            run.spool.note_gap()
        return None
    if not run.started and _tells_of_start(run, engine_log):
        run.control[:] = run.marker
    if run.in_doubt and len(engine_log.control) > len(run.control):
        begun = b"" if engine_log.control.startswith(run.marker) else bytes(run.control)
        run.control[:] = (begun + engine_log.control)[:_CONTROL_MAX_BYTES]
    return engine_log


async def _evidence(
    engine: ContainerEngine, run: LiveRun, state: ContainerState, asked_before: Reason | None, asked: Reason | None
) -> Evidence:
    """Find out whether the engine lived through the run. Its memory is asked only where that decides something.

    One that is stopping does not answer; by the time that its successor does, contact has been broken.
    """
    evidence = Evidence(
        state,
        same_contact=_same_contact(engine, run),
        asked_before=asked_before,
        before_its_stop=_ended_before_its_stop(run, state),
    )
    is_ours = asked is not None and not evidence.before_its_stop
    if evidence.same_contact and (is_ours or evidence.is_plain or not run.started):
        return evidence
    history = await _patiently(lambda: engine.history(run.container_id))
    return replace(evidence, history=history, same_contact=_same_contact(engine, run))


def _same_contact(engine: ContainerEngine, run: LiveRun) -> bool:
    """Whether contact to the engine has not been broken since the container was created."""
    return run.epoch is not None and run.epoch == engine.epoch


async def _masked(secrets: Needles | None, engine_log: ContainerLog) -> ContainerLog:
    """The engine's log with the same secrets masked as in the spool, so that the two can be joined."""
    if secrets is None:
        return engine_log
    output = secrets.without_cut_start(engine_log.output) if engine_log.rotated else engine_log.output
    return replace(engine_log, output=await asyncio.to_thread(secrets.masked, output))


def _complete_output(run: LiveRun, engine_log: ContainerLog, evidence: Evidence) -> None:
    """Add what the engine's log has beyond the spool; state a gap where that need not be all."""
    if run.ended_in_flood and run.interrupted and not evidence.same_process:
        run.spool.note_gap()  # what the engine had read from the container and not passed on died with it
    if run.log_is_secret:
        run.spool.note_gap()
        return
    complete_from_log(run.spool, engine_log, interrupted=run.interrupted or run.holds_back)
    if run.interrupted and evidence.ended_unseen:
        run.spool.note_gap()  # what it printed last, while no engine was there, nobody took in


def _check_started(run: LiveRun, evidence: Evidence) -> None:
    """Raise where it did not start, or nobody can tell whether it did."""
    state = evidence.state
    if run.started:
        if run.ended_as_stuck and state.exit_code >= SIGNAL_EXIT_BASE:
            raise StartUnknown("its release seemed to have been lost, and it was ended just when it began")
        return
    if run.log_is_gone:
        raise StartUnknown("its container was removed before anybody could see whether the playbook had started")
    # The marker may have died with an engine that was restarted: only the engine's own memory can tell.
    if evidence.same_process:
        raise NeverStarted(state.error or f"its entry ended with exit code {state.exit_code}{_said(run.control)}")
    raise StartUnknown("contact to the container engine was lost, and whether the playbook started is not known")


def _said(control: bytes | bytearray) -> str:
    """How the sentence goes on: with the entry's own reason, where it gave one as the runner contract has it."""
    line = control.partition(b"\n")[0].decode(errors="replace")
    if not line.startswith(_REFUSAL) or not line.isprintable():
        return " before the playbook"
    return f" before the playbook: {line.removeprefix(_REFUSAL)}"


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Ask until the engine answers."""
    while True:
        try:
            return await call()
        except EngineUnavailable:
            await asyncio.sleep(_RETRY_S)
