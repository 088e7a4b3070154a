"""Agents behind gates, which die at an exact step: what the tests of the agent's death share."""

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx

from agp_agent import __version__
from support.agent_process import AgentProcess
from support.deaths import Death, Gates
from support.ledger import Ledger, Sent
from support.starts_seen import numbered
from support.strikes import Step
from support.waiting import eventually

UNTIL_LET_GO: Final = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\n"
_GOOD: Final = 10
_BYSTANDERS: Final = 2
SHORT_S: Final = 1
SHORT_CATALOG: Final = f"""
runners:
  short:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.short]}}
    command: [agp-shell, "{{playbook}}"]
    timeout_s: {SHORT_S}
"""
"""A runner for ``.short`` playbooks, which are stopped after a second."""


@dataclass(slots=True)
class Doomed:
    """An agent that dies again and again, and ten good playbooks beside it.

    Two of them run through all its deaths, the others while the first death is recovered from: later ones are counted
    out, for a death comes at the next commit or call, whose ever that is.
    """

    watched: Ledger
    gates: Gates
    _bystanders: list[str] = field(default_factory=list)
    _neighbours: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the bystanders."""
        agent = self.watched.agent
        tasks = [self.watched.send(UNTIL_LET_GO, ends_well=True) for _ in range(_BYSTANDERS)]
        self._bystanders = [agent.container_of(task_id) for task_id in tasks]
        for container in self._bystanders:
            agent.engine.wait_printed(container, b"before")

    def strike(self, step: Step, script: str, name: str = "playbook.sh") -> str:
        """Let the agent die at this step of a new task, and start the next agent; return the task's id."""
        agent, task_id, mark = self.watched.agent, step.name, secrets.token_hex(4)
        strike = step.arm(agent, self.gates)
        try:
            answer = agent.post_task(task_id, numbered(mark, script), name)
            assert answer.status_code == 202, answer.text
        except httpx.TransportError:
            assert step.unanswered, step.name
        if step.row > 1:
            self.watched.accepted[task_id] = Sent(task_id, mark)
        strike.wait()
        self.restart()
        return task_id

    def restart(self) -> None:
        """Start the next agent after a death; after the first one with good tasks beside what it takes up."""
        self.gates.forget()
        self.watched.agent.start()
        if not self._neighbours:
            self._neighbours = self.watched.neighbours(_GOOD - _BYSTANDERS)
            for one in self._neighbours:
                self.watched.agent.wait_log("task delivered", task_id=one)

    def settle(self, task_id: str) -> None:
        """Return once the agent has nothing to do any more for this task."""
        agent = self.watched.agent
        self.watched.dashboard.acknowledged(task_id)
        number = len(self._bystanders)
        eventually(lambda: agent.containers_of_tasks() == number, f"{task_id}: container removed")
        eventually(lambda: agent.http.get("/readyz").status_code == 200, "ready")

    def let_bystanders_go(self) -> None:
        """Let the bystanders end."""
        for container in self._bystanders:
            self.watched.agent.engine.let_go(container)


def die_at_start(agent: AgentProcess, gates: Gates, name: str, arm: Callable[[Death, Gates], None]) -> None:
    """Start an agent that dies where ``arm`` says."""
    strike = Death(agent, name, of_next=True)
    arm(strike, gates)
    with contextlib.suppress(AssertionError, OSError):  # it may be dead before it could say that it listens
        agent.start(ready=False)
    strike.wait()
    gates.forget()
