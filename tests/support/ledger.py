"""What was promised to a sender of tasks, and whether it was kept: the invariants that hold after every fault.

1. What was accepted (202 seen) is exactly what was reported.
2. Each attempt was started at most once.
3. Each outcome is a legal one.
4. No container, slot, spool file, file descriptor or thread is left.
5. No token stands in any log.
6. Ten good tasks that ran beside it ended normally.
"""

import json
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx

from support.agent_process import WARM, AgentProcess
from support.dashboard_stub import DashboardStub
from support.starts_seen import StartsSeen, number_in, numbered
from support.waiting import PATIENCE_S, eventually

_LEGAL_ERROR: Final = re.compile(
    r"exit code \d{1,3}( \(SIG[A-Z0-9]+\))?|timed out after [\d.]+ s( in the queue; it never started)?|cancelled"
    r"|killed from outside|killed: out of memory \(limit \d+ MiB\)|lost: .+|no runner for .+"
    r"|image .+ is not available: .+|the container engine refused the container: .+",
    re.DOTALL,
)
LOST_WITH_ENGINE: Final = "lost: the container engine, or what held the container for it, ended and took it along"
"""Seen on a busy machine also of a playbook that ended by itself while its engine was away: what dockerd then says of
its end is not always right, and so not believed."""
_LEFT_S: Final = PATIENCE_S if WARM == "0" else 150.0
"""A warm container that was given up while the journal was in doubt is kept as evidence: it goes when it is a minute
old, by a look once a minute."""
MORE_FDS: Final = 24
"""Connections that may be kept open for later, and files of the journal, above what the agent had when it was ready."""
MORE_THREADS: Final = 24
"""Threads of the pools, which grow with the first work and then stay."""


@dataclass
class Sent:
    """A task that was accepted. ``mark`` stands in the output of its playbook where that is a numbered one."""

    task_id: str
    mark: str | None
    ends_well: bool = False


@dataclass
class Ledger:
    """Sends tasks to an agent, remembers what was accepted, and ``check``s what became of it.

    Make it when the agent is ready for the first time. The agent may be killed and started again meanwhile.
    """

    agent: AgentProcess
    dashboard: DashboardStub
    docker_host: str | None = None
    """Address of the engine itself, where the environment does not name it."""
    accepted: dict[str, Sent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin to watch."""
        self.starts = StartsSeen(self.agent.instance, self.docker_host)
        self._fds, self._threads = fds(self.agent), threads(self.agent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.starts.close()

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self, script: str, task_id: str | None = None, *, ends_well: bool = False) -> str:
        """Send a shell playbook that tells its start, which must be accepted; return its task id."""
        task_id = task_id or f"task-{secrets.token_hex(4)}"
        answer = self.try_send(script, task_id, ends_well=ends_well)
        assert answer.status_code == 202, answer.text
        return task_id

    def try_send(self, script: str, task_id: str, *, ends_well: bool = False) -> httpx.Response:
        """Send it; only a 202 makes it an accepted one."""
        mark = secrets.token_hex(4)
        answer = self.agent.post_task(task_id, numbered(mark, script))
        if answer.status_code == 202:
            self.accepted[task_id] = Sent(task_id, mark, ends_well)
        return answer

    def note(self, task_id: str) -> None:
        """Remember a task that was accepted on another way; its starts cannot be counted."""
        self.accepted[task_id] = Sent(task_id, None)

    def neighbours(self, number: int = 10) -> list[str]:
        """Send good tasks: they must end normally, whatever happens beside them."""
        return [self.send("echo one\nsleep 0.2\necho two\n", ends_well=True) for _ in range(number)]

    # --- checking ----------------------------------------------------------------------------------------------------

    def check(self, *, patience_s: float = PATIENCE_S) -> dict[str, dict[str, Any]]:
        """Wait until everything is reported, assert the invariants, and return the results by task id."""
        results = {task_id: self.dashboard.result(task_id, patience_s=patience_s) for task_id in self.accepted}
        self._check_reported_once()
        for sent in self.accepted.values():
            self._check_result(sent, results[sent.task_id])
        self._check_nothing_left()
        self.check_no_token()
        return results

    def _check_reported_once(self) -> None:
        """What the dashboard holds: nothing that was not accepted, and of each task one result under one key."""
        taken = [one for one in self.dashboard.deliveries() if one.reply.acknowledges]
        assert {one.result["task_id"] for one in taken} == set(self.accepted)
        held = {(one.headers["idempotency-key"], one.body) for one in taken}
        twice = {key: n for key, n in Counter(json.loads(body)["task_id"] for _, body in held).items() if n > 1}
        assert twice == {}, f"more than one result: {twice}"

    def _check_result(self, sent: Sent, result: dict[str, Any]) -> None:
        error = result["error"]
        assert (result["status"], error is None) in {("completed", True), ("failed", False)}, result
        assert error is None or _LEGAL_ERROR.fullmatch(error), result
        if sent.ends_well:
            assert error is None, result
        if sent.mark is None:
            return
        numbers = self.starts.numbers(sent.mark)
        assert len(numbers) <= 1, f"{sent.task_id} was started {len(numbers)} times"
        reported = number_in(result["output"], sent.mark)
        assert reported is None or not numbers or {reported} == numbers, "the output is another start's"
        assert reported is not None or not sent.ends_well, result

    def _check_nothing_left(self) -> None:
        agent = self.agent
        left = "every container, volume, slot and spool file removed"
        eventually(lambda: agent.left_of_tasks() == [], left, patience_s=_LEFT_S)
        if agent.process.poll() is None:
            eventually(lambda: fds(agent) <= self._fds + MORE_FDS, f"{self._fds} file descriptors again")
            eventually(lambda: threads(agent) <= self._threads + MORE_THREADS, f"{self._threads} threads again")

    def check_no_token(self) -> None:
        """Assert that neither token stands in the log, in the audit trail or in any file of the state directory."""
        secret = [self.agent.token.encode(), self.agent.dashboard_token.encode()]
        files = [self.agent.log_path, *(path for path in self.agent.state.rglob("*") if path.is_file())]
        contents = ((path, path.read_bytes()) for path in files)
        assert [str(path) for path, content in contents if any(token in content for token in secret)] == []


def fds(agent: AgentProcess) -> int:
    """How many file descriptors the agent's process has open."""
    return len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir()))


def threads(agent: AgentProcess) -> int:
    """How many threads the agent's process has."""
    return len(list(Path(f"/proc/{agent.process.pid}/task").iterdir()))
