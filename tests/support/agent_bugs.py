"""Bugs to seed into a whole agent: parts that take the right steps in the wrong order, or leave one out.

They are for tests that show that they would see such a bug; none of them is a switch of the product.
"""

import asyncio
from typing import Any, Final

from agp_agent.app import Agent
from agp_agent.dashboard import Dashboard, Headers
from agp_agent.ending import Ending
from agp_agent.engine import OwnedContainer
from agp_agent.journal import Attempt, Release
from agp_agent.lifecycle import ContainerExit, State, Verdict
from agp_agent.models import TaskResult, TaskStatus
from agp_agent.outbox import Outbox
from agp_agent.output import Output
from agp_agent.reconciler import Reconciler
from agp_agent.watch import LiveRun, Stop
from support.agent_ports import WorldExecutor, WorldJournal, turn_into
from support.agent_world import SeedBug


class RemovesFirst(WorldExecutor):
    """Removes the container, its slot and its spool before anybody has written down how it ended."""

    async def watch(self, run: LiveRun, stop: Stop) -> ContainerExit:
        """See it to its end, and tidy up at once."""
        ended = await super().watch(run, stop)
        await self.discard(run.slot)
        return ended


class ReportsFirst(Ending):
    """Tells the dashboard how an attempt ended, and writes it down after that."""

    early: Dashboard

    async def finish(
        self, attempt: Attempt, verdict: Verdict, output: Output | None = None, ran_s: float | None = None
    ) -> None:
        """Report, then write."""
        text = (output or Output()).text()
        result = TaskResult(task_id=attempt.task_id, status=verdict.status, output=text, error=verdict.error)
        await self.early.report(result, Headers(f"unit/{attempt.task_id}/{attempt.attempt}/{attempt.run_id}", ""))
        await super().finish(attempt, verdict, output, ran_s)


class ReleasesFirst(WorldJournal):
    """Answers that a release is written down, and writes it down after that."""

    async def running(self, run_id: str, release: Release) -> bool:
        """Promise, then write."""
        self.late = asyncio.create_task(super().running(run_id, release))
        return True


class RunsAgain(Reconciler):
    """Puts back into the queue whatever has ended while no agent was there."""

    async def _take_up(self, attempt: Attempt, container: OwnedContainer | None) -> None:
        state = await self._engine.inspect(container.container_id) if container else None
        if state is not None and state.ended:
            await self._walk.start_over(attempt)
        else:
            await super()._take_up(attempt, container)


class ForgetsAdoption(Reconciler):
    """Does not care for what an earlier agent released."""

    async def _take_up(self, attempt: Attempt, container: OwnedContainer | None) -> None:
        if attempt.state is State.PREPARING:
            await super()._take_up(attempt, container)


class AcknowledgesFirst(Outbox):
    """Takes a result for delivered before the dashboard has said so."""

    async def _deliver(self, seq: int) -> None:
        due = await self._journal.due_result(seq)
        await self._journal.acknowledge(seq)
        if due is not None:
            status = TaskStatus.COMPLETED if due.error is None else TaskStatus.FAILED
            result = TaskResult(task_id=due.task_id, status=status, output=due.output.text(), error=due.error)
            await self._dashboard.report(result, Headers(self._key(due), ""))


def _reports_first(agent: Agent) -> None:
    turn_into(agent._dispatcher._walk._ending, ReportsFirst).early = agent._dashboard


BUGS: Final[dict[str, tuple[SeedBug, str]]] = {
    "remove before write": (lambda agent: _seed(agent._engine_watch._executor, RemovesFirst), "removed before"),
    "report before commit": (_reports_first, "reported before it was committed"),
    "release before write": (lambda agent: _seed(agent.journal, ReleasesFirst), "released before|did not happen"),
    "run again by guess": (lambda agent: _seed(agent._reconciler, RunsAgain), "put back although it had started"),
    "forget adoption": (lambda agent: _seed(agent._reconciler, ForgetsAdoption), "more than 2 run|never reported"),
    "close before acknowledged": (lambda agent: _seed(agent._outbox, AcknowledgesFirst), "closed before the dashboard"),
}
"""Each with the promise that it breaks."""


def _seed(part: object, bug: type[Any]) -> None:
    turn_into(part, bug)
