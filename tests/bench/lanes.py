"""The agent as one contender among others: one task at a time, cold or warm, with what its own trace says of each."""

import secrets
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from bench.problem import BenchError
from bench.rivals import Lap
from bench.trace import Told, Trace
from bench.wire import Connection, named_request, request
from bench.workbench import Workbench
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Script:
    """What is run: the playbook's name and content, and a text that its output has when all went well."""

    name: str
    content: str
    output: str


@dataclass
class Lane:
    """One agent that takes a task at a time. ``waiting``: containers that it keeps ready, 0 where it starts cold."""

    bench: Workbench
    agent: AgentProcess
    dashboard: DashboardStub
    script: Script
    waiting: int = 0
    answers_ms: list[float] = field(default_factory=list)
    """POST to 202."""
    output_ms: list[float] = field(default_factory=list)
    """POST to the first byte of output in the agent: by its trace, with a whole round trip of HTTP added."""
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Its trace begins now."""
        self._trace = Trace(self.agent)
        self._agent_id = self.bench.warm_id() if self.waiting else self.bench.agent_id

    def lap(self) -> Lap:
        """Send one task, and wait for its result at the dashboard and for the removal of its container."""
        task_id = secrets.token_hex(8)
        order = named_request(self.agent.token, task_id, self.script.name, self.script.content)
        self.rest()
        with Connection(self.agent.port) as connection:
            trip_ms = _round_trip_ms(connection, self.agent.token)
            wall_s, begin_s = time.time(), time.monotonic()
            connection.order(order)
            self.answers_ms.append((time.monotonic() - begin_s) * 1000)
            delivery = self.dashboard.acknowledged(task_id)
        if delivery.result["status"] != "completed" or self.script.output not in delivery.result["output"]:
            raise BenchError(f"The agent reported {delivery.result} for a playbook that works.")
        told = self._trace.of_one()
        self.told.append(told)
        self.output_ms.append(told.until_ms["output"] + trip_ms)
        result_ms = (delivery.at_s - begin_s) * 1000
        if self.waiting:
            return Lap(result_ms, result_ms)
        self.bench.wait_empty()
        return Lap(result_ms, (self.bench.removal_s(wall_s) - wall_s) * 1000)

    def rest(self) -> None:
        """Return once as many containers wait as shall, and nothing else of this agent is left."""

        def rested() -> bool:
            there, running = (self.bench.containers(self._agent_id, running=only) for only in (False, True))
            return len(there) == len(running) == self.waiting

        eventually(rested, f"{self.waiting} containers waiting")

    def forget(self) -> None:
        """Those were laps to warm up."""
        self.answers_ms.clear()
        self.output_ms.clear()
        self.told.clear()

    def stages_ms(self) -> dict[str, list[float]]:
        """Every stage's samples."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for told in self.told:
            for stage, took_ms in told.stages_ms.items():
                found[stage].append(took_ms)
        return dict(found)


def _round_trip_ms(connection: Connection, token: str) -> float:
    begin_s = time.monotonic()
    status, _ = connection.ask(request("POST", "/heartbeat", token))
    assert status == _OK
    return (time.monotonic() - begin_s) * 1000
