"""Row 17: thousands of results wait when the dashboard returns: no stampede, none lost or twice, new ones not last."""

from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub, Reply
from support.ledger import Ledger
from support.waiting import eventually
from support.waiting_results import seed

NOT_DELIVERED: Final = "result not delivered; kept"
FEW_KNOCKS: Final = 40
"""Far more than fit into the few seconds of this outage where each waits longer than the one before."""
RETRY_AFTER_S: Final = 1
NEW: Final = 10
FEW_PLACES: Final = 40
"""Far fewer than wait, far more than turns in which a new result and an old one alternate."""


@pytest.mark.parametrize(
    "waiting", [500, pytest.param(10_000, marks=(pytest.mark.campaign, pytest.mark.timeout(1200)))]
)
def test_a_backlog_goes_out_without_a_stampede(dashboard: DashboardStub, tmp_path: Path, waiting: int) -> None:
    """Row 17: refused, then 429 with Retry-After, then open: four at once at most, each result once, new ones soon."""
    backlog = [f"waiting {number}" for number in range(waiting)]
    seed(tmp_path / "agent" / "state", backlog)
    dashboard.go_away()
    with (
        AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent,
        Ledger(agent, dashboard) as watched,
    ):
        for task_id in backlog:
            watched.note(task_id)
        eventually(lambda: _refusals(agent) >= 2, "knocks at a dashboard that is away")
        dashboard.reply = Reply(429, b"", {"Retry-After": str(RETRY_AFTER_S)})
        dashboard.come_back()
        eventually(dashboard.deliveries, "an answer 429")
        dashboard.reply = Reply()
        eventually(lambda: len(dashboard.deliveries()) >= 50, "the backlog on its way")
        busy, first = dashboard.deliveries()[:2]
        assert (busy.reply.status, first.reply.status) == (429, 200)
        assert first.at_s - busy.at_s >= RETRY_AFTER_S
        assert _refusals(agent) <= FEW_KNOCKS
        places = [_place_of_a_new_one(watched, number) for number in range(NEW)]
        assert max(places) <= FEW_PLACES, places
        assert len(dashboard.deliveries()) < waiting, "nothing was waiting any more: the places say nothing"
        watched.neighbours()
        results = watched.check(patience_s=900)
    assert dashboard.most_at_once <= 4
    assert results[backlog[-1]]["output"] == f"this is {backlog[-1]}\n"
    taken = [one for one in dashboard.deliveries() if one.reply.acknowledges]
    assert set(Counter(one.headers["idempotency-key"] for one in taken).values()) == {1}
    assert len(taken) == waiting + NEW + 10


def _place_of_a_new_one(watched: Ledger, number: int) -> int:
    """Post a result; return how many the dashboard got after the 202 and before it."""
    task_id = f"new {number}"
    watched.agent.accept_task(task_id, "x", "p.none")
    before = len(watched.dashboard.deliveries())
    watched.note(task_id)
    watched.dashboard.acknowledged(task_id)
    seen = [one.result["task_id"] for one in watched.dashboard.deliveries()[before:]]
    return seen.index(task_id) if task_id in seen else 0


def _refusals(agent: AgentProcess) -> int:
    return sum(line["event"] == NOT_DELIVERED for line in agent.log_lines())
