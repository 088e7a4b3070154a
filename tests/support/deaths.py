"""The death of an agent at an exact moment, from outside.

Two ways. A ``HttpGate`` between the agent and its engine, or its dashboard, stops before a call is passed on ("call not
made") or before its answer is ("call made, answer lost"), and the agent is killed there. What the agent does by itself
is struck by ``strace``, attached to the running process, which kills it where it enters its N-th call of a kind: at the
first ``pwrite64`` into the journal's WAL nothing of the commit is on disk, at the third a part of it is, and at the
``fdatasync`` all of it is, though nobody was told.
"""

import re
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.agent_process import AgentProcess
from support.http_gate import HttpGate
from support.waiting import PATIENCE_S, eventually

_TRACE: Final = "strace.log"
_STOPPED: Final = "--- stopped by SIGSTOP ---"


@dataclass(frozen=True, slots=True)
class Gates:
    """What stands between the agent and its neighbours."""

    engine: HttpGate
    dashboard: HttpGate

    @property
    def settings(self) -> dict[str, object]:
        """What tells the agent to go through the gates."""
        return {"DOCKER_HOST": self.engine.address, "AGP_DASHBOARD_URL": self.dashboard.address}

    def forget(self) -> None:
        """Stop nowhere any more."""
        self.engine.forget()
        self.dashboard.forget()


@dataclass(frozen=True, slots=True)
class Syscall:
    """The ``number``-th system call of a kind from now on, in one thread; of a file in the state directory, or any."""

    names: str
    number: int = 1
    file: str | None = None


@dataclass(slots=True)
class Death:
    """A death that was prepared, of the process that runs. ``wait`` returns once it has died of it."""

    agent: AgentProcess
    step: str
    where: list[str] = field(default_factory=list)
    """What the killer saw."""
    of_next: bool = False
    """The process that is meant is yet to be started."""
    _tracer: "subprocess.Popen[bytes] | None" = None
    _running: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        """Whoever is started later is not meant."""
        if not self.of_next:
            self._running = self.agent.process

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        return self._running or self.agent.process

    def kill(self) -> bool:
        """Kill now; an ``Action`` of a gate, which cuts the connection."""
        self.where.append(self.step)
        self._process.kill()
        self._process.wait(PATIENCE_S)
        return False

    def kill_at(self, call: Syscall) -> bool:
        """Let strace kill it at a system call; an ``Action`` of a gate, which passes on."""
        self._attach(call, signal.SIGKILL)
        return True

    def stop_at(self, call: Syscall) -> None:
        """Let strace stop it just behind a system call."""
        self._attach(call, signal.SIGSTOP)

    def go_on_to(self, call: Syscall) -> None:
        """Once it is stopped, let it go on to its death at another system call."""
        eventually(lambda: _STOPPED in (self.agent.folder / _TRACE).read_text(), "stopped")
        self._detach()
        self.kill_at(call)
        self._process.send_signal(signal.SIGCONT)

    def _attach(self, call: Syscall, number: signal.Signals) -> None:
        pid = self._process.pid
        paths = () if call.file is None else ("-P", str(self.agent.state / call.file))
        inject = f"inject={call.names}:signal={number.name}:when={call.number}"
        command = ("strace", "-f", "-q", "-p", str(pid), *paths, "-e", f"trace={call.names}", "-e", inject)
        with (self.agent.folder / _TRACE).open("ab") as log:
            self._tracer = subprocess.Popen(command, stderr=log)
        tracer = str(self._tracer.pid)
        eventually(lambda: all(_field(task, "TracerPid") == tracer for task in _threads(pid)), "strace attached")

    def _detach(self) -> None:
        assert self._tracer is not None
        self._tracer.terminate()
        self._tracer.wait(PATIENCE_S)

    def wait(self, patience_s: float = PATIENCE_S) -> None:
        """Return once the agent was killed, by this and at this step."""
        assert self._process.wait(patience_s) == -signal.SIGKILL, f"{self.step}: it ended otherwise"
        if self._tracer is not None:
            self._tracer.wait(PATIENCE_S)
            trace = self.agent.folder / _TRACE
            self.where += trace.read_text().splitlines()
            trace.unlink()
        assert self.where, f"{self.step}: something else killed it"


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _field(process: Path, name: str) -> str:
    """A field of /proc/…/status."""
    try:
        text = (process / "status").read_text()
    except OSError:  # it has ended meanwhile
        return ""
    found = re.search(rf"^{name}:\t(\S+)", text, re.MULTILINE)
    return found[1] if found else ""
