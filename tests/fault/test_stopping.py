"""Row 33: the agent is told to stop, once or twice, and is killed while it does."""

import signal
import threading
from typing import Final

from fault.conftest import StartWatched
from support.dashboard_stub import DashboardStub, Reply
from support.doomed import UNTIL_LET_GO
from support.ledger import Ledger

STOPPING: Final = "stopping: no new tasks; a second signal ends at once"


def _send_held(watched: Ledger) -> tuple[str, str]:
    """Send a playbook that waits to be let go; return it and its container as soon as it waits."""
    task_id = watched.send(UNTIL_LET_GO, ends_well=True)
    container = watched.agent.container_of(task_id)
    watched.agent.engine.wait_printed(container, b"before")
    return task_id, container


def _begin_to_stop(watched: Ledger) -> None:
    watched.agent.signal(signal.SIGTERM)
    watched.agent.wait_log(STOPPING)


def test_sigterm_drains(start_watched: StartWatched, dashboard: DashboardStub) -> None:
    """Row 33: new tasks get 503, what runs ends and is delivered before the agent does, what waits is kept; code 0."""
    watched = start_watched({"AGP_MAX_RUNNING": 2, "AGP_DRAIN_TIMEOUT_S": 80})
    agent, held = watched.agent, _send_held(watched)
    waiting = watched.neighbours()
    _begin_to_stop(watched)
    assert watched.try_send("echo\n", "refused").status_code == 503
    agent.engine.let_go(held[1])
    assert agent.wait() == 0
    assert [one.reply.acknowledges for one in dashboard.deliveries(held[0])] == [True]
    assert any(not dashboard.deliveries(task_id) for task_id in waiting), "nothing waited: this proves nothing"
    agent.start()
    watched.check()


def test_the_drain_has_an_end(start_watched: StartWatched) -> None:
    """Row 33: what does not end within AGP_DRAIN_TIMEOUT_S is left running, and the next agent takes it over."""
    watched = start_watched({"AGP_DRAIN_TIMEOUT_S": "0.5"})
    agent, held = watched.agent, _send_held(watched)
    watched.neighbours()
    assert agent.stop() == 0
    assert agent.engine.inspect(held[1])["State"]["Running"]
    agent.start()
    agent.wait_audited("task adopted", task_id=held[0])
    agent.engine.let_go(held[1])
    watched.check()


def test_a_second_sigterm_ends_at_once(start_watched: StartWatched) -> None:
    """Row 33: the second signal does not wait for the drain; exit code 0, and nothing of what is under way is lost."""
    watched = start_watched({"AGP_DRAIN_TIMEOUT_S": 3600})
    agent, held = watched.agent, _send_held(watched)
    watched.neighbours()
    _begin_to_stop(watched)
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert agent.engine.inspect(held[1])["State"]["Running"]
    agent.start()
    agent.engine.let_go(held[1])
    watched.check()


def test_sigkill_while_it_drains(start_watched: StartWatched, dashboard: DashboardStub) -> None:
    """Row 33: an agent that is killed while it waits for its playbooks and flushes its results leaves all of them."""
    watched = start_watched({"AGP_DRAIN_TIMEOUT_S": 3600})
    agent, held, answer = watched.agent, _send_held(watched), threading.Event()
    flushed = f"{held[0]} flushed"
    dashboard.script(flushed, Reply(after=answer))
    watched.send("echo result\n", flushed, ends_well=True)
    dashboard.wait_deliveries(flushed, 1)  # under way, and not answered
    watched.neighbours()
    _begin_to_stop(watched)
    agent.kill()
    answer.set()
    agent.start()
    agent.wait_audited("task adopted", task_id=held[0])
    agent.engine.let_go(held[1])
    watched.check()
