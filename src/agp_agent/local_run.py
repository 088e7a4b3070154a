"""Runs one playbook here and now: the same parts and the same path as ``serve``, with a temporary state of its own."""

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from agp_agent.app import Agent
from agp_agent.caller import Caller
from agp_agent.capture import Gap
from agp_agent.dashboard import Answer, Headers, Meaning
from agp_agent.errors import EngineUnavailable
from agp_agent.lifecycle import Outcome, Reason, Verdict
from agp_agent.models import TaskResult
from agp_agent.pool_sizes import NONE_WARM
from agp_agent.preflight import engine_of
from agp_agent.redaction import Masker
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir
from agp_agent.watch import LiveRun

EXIT_ENGINE: Final = 69
EXIT_TIMED_OUT: Final = 124
EXIT_CANCELLED: Final = 130
EXIT_UNREAD: Final = 141
"""As a program ends that SIGPIPE ended."""
_TASK_ID: Final = "local"
_ENGINE_PATIENCE_S: Final = 10.0
"""Somebody waits at the terminal: an engine that does not answer by then is an error."""


class _Here:
    """In the place of the dashboard: takes the result, and tells that it came."""

    def __init__(self) -> None:
        self.result: asyncio.Future[TaskResult] = asyncio.get_running_loop().create_future()

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Take it."""
        del headers
        if not self.result.done():
            self.result.set_result(result)
        return Answer(Meaning.ACKNOWLEDGED)

    async def aclose(self) -> None:
        """Nothing to close."""


class _Terminal:
    """Copies a run's output to a stream as it comes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._copying: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        """Nobody reads the output any more."""

    def observe(self, _run_id: str, run: LiveRun) -> None:
        """Follow this run."""
        self._copying = asyncio.create_task(self._copy(run))

    async def finished(self) -> None:
        """Return once all output is out."""
        if self._copying is not None:
            await self._copying

    async def _copy(self, run: LiveRun) -> None:
        try:
            async for chunk in run.spool.follow():
                text = chunk if isinstance(chunk, bytes) else _gap_line(chunk)
                await asyncio.to_thread(self._write, text)
        except BrokenPipeError:
            self.closed.set()  # whoever read it has seen enough, such as head(1)

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._out.flush()


def _gap_line(gap: Gap) -> bytes:
    return f"\n[agp-agent: {gap.omitted_bytes} bytes omitted]\n".encode()


async def run_file(
    name: str, content: str, settings: Settings, masker: Masker, timings: TextIO | None = None
) -> tuple[Verdict, int]:
    """Run a playbook; its output goes to stdout as it comes. Ctrl-C and SIGTERM cancel it.

    ``masker`` is told of the runner's secrets. ``timings`` is told the moments of the run's stages.

    Returns:
        How it ended, and the exit code for the shell: the playbook's own where it has one.

    Raises:
        EngineUnavailable: the engine did not answer within ten seconds, or has no runner image.
        Refused, ConfigurationError: the playbook or the settings cannot be used.
    """
    here, terminal = _Here(), _Terminal(sys.stdout.buffer)
    with tempfile.TemporaryDirectory(prefix="agp-run-") as folder, StateDir(Path(folder), "run") as state:
        agent = Agent(settings, state, engine_of(settings), here, masker, terminal.observe, wish=NONE_WARM)
        async with agent.running():
            await contact(agent)
            run_id = await _submit(agent, name, content)
            _cancel_on_signals(agent)
            unread = asyncio.create_task(_cancel_when(terminal.closed, agent))
            await here.result
            unread.cancel()
            await terminal.finished()
            verdict = await agent.journal.verdict(run_id)
            await agent.drain(_ENGINE_PATIENCE_S)  # the container is removed before the state is
    if timings is not None and (trace := agent.stages.last_over) is not None:
        timings.write(json.dumps(trace.document(), indent=1) + "\n")
    assert verdict is not None  # noqa: S101  its result was delivered
    return verdict, EXIT_UNREAD if terminal.closed.is_set() else exit_code_of(verdict)


async def contact(agent: Agent) -> None:
    """Wait until the agent can run something; then clear up behind commands like this one that were killed.

    Raises:
        EngineUnavailable: after ten seconds, with the reason.
    """
    readiness = agent.readiness
    try:
        async with asyncio.timeout(_ENGINE_PATIENCE_S):
            while not readiness.ready:
                readiness.changed.clear()
                await readiness.changed.wait()
    except TimeoutError:
        raise EngineUnavailable("; ".join(readiness.problems.values())) from None
    await agent.remove_leftovers()


async def _submit(agent: Agent, name: str, content: str) -> str:
    body = json.dumps({"task_id": _TASK_ID, "playbook": {"name": name, "content": content}}).encode()
    _, accepted = await agent.intake.accept(body, None, Caller("terminal"))
    return accepted.run_id


def _cancel_on_signals(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: loop.create_task(agent.journal.request_cancel(_TASK_ID)))


async def _cancel_when(closed: asyncio.Event, agent: Agent) -> None:
    await closed.wait()
    await agent.journal.request_cancel(_TASK_ID)


def exit_code_of(verdict: Verdict) -> int:
    """What the shell is told."""
    if verdict.reason is Reason.CANCEL_REQUESTED:
        return EXIT_CANCELLED
    if verdict.outcome is Outcome.TIMED_OUT:
        return EXIT_TIMED_OUT
    if verdict.outcome in (Outcome.ERROR, Outcome.LOST):
        return EXIT_ENGINE
    return verdict.exit_code if verdict.exit_code is not None else 1
