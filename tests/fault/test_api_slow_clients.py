"""Row 30: clients that keep the agent waiting cost nobody else anything, and not for long."""

import sys
import time
from collections import Counter

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.ledger import fds
from support.raw_http import exchange, request
from support.slow_clients import SlowClients
from support.waiting import eventually

SLOW = 500
DEADLINE_S = 10.0
SLACK_S = 15.0
"""Added to the deadline by a machine that does other things too."""
WAITS_FOR_SLOW_S = DEADLINE_S / 2
"""An honest client waits a few ms. Only one that had to wait for slow ones would come near their deadline."""
FEW_FILES = ("prlimit", "--nofile=256:256")


def _honest(agent: AgentProcess) -> float:
    """How long an honest client waits for its answer, over a connection of its own."""
    began_s = time.monotonic()
    answer = exchange(agent.port, [request("POST", "/heartbeat", agent.headers)])
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
    return time.monotonic() - began_s


def _bursts_told(agent: AgentProcess) -> int:
    return sum("too many connections" in str(line["event"]) for line in agent.log_lines())


def test_500_slow_connections_are_closed_in_time_and_nobody_else_waits(start_watched: StartWatched) -> None:
    """Row 30: 500 silent and dripping connections, each closed at 10 s; honest p99 is printed; no file left open."""
    watched = start_watched()
    agent = watched.agent
    before = fds(agent)
    with SlowClients(agent.port, agent.headers, SLOW) as slow:
        assert slow.still_open > SLOW * 0.9  # they really are there
        watched.neighbours()
        waits = []
        while slow.still_open and time.monotonic() < slow.all[0].opened_s + DEADLINE_S + SLACK_S:
            waits.append(_honest(agent))
            time.sleep(0.01)  # the next honest client
        assert slow.still_open == 0
        answers = Counter(client.answer[:12] for client in slow.all)
        ends = [client.closed_after_s or 0 for client in slow.all if b"408" in client.answer[:12]]
    # One that drips into the closed connection may be reset before it has read its answer.
    assert set(answers) <= {b"HTTP/1.1 408", b"HTTP/1.1 401", b""}
    assert answers[b"HTTP/1.1 408"] > SLOW * 3 // 5
    assert min(ends) > DEADLINE_S * 0.9
    assert max(ends) < DEADLINE_S + SLACK_S
    p99_s = sorted(waits)[len(waits) * 99 // 100]
    sys.stdout.write(f"honest p99 {p99_s * 1000:.0f} ms of {len(waits)} requests\n")
    assert p99_s < WAITS_FOR_SLOW_S
    eventually(lambda: fds(agent) <= before + 24, f"{before} file descriptors again")
    assert _bursts_told(agent) == 0
    watched.check()


def test_where_files_are_few_slow_connections_give_way_to_honest_ones(start_watched: StartWatched) -> None:
    """Row 30: with 256 file descriptors those waited for longest make room; all are answered, all tasks end well."""
    watched = start_watched(wrapper=FEW_FILES)
    agent = watched.agent
    with SlowClients(agent.port, agent.headers, SLOW) as slow:
        neighbours = watched.neighbours()
        for _ in range(30):
            _honest(agent)
        assert fds(agent) < 200
        assert slow.still_open < SLOW / 2  # control: they did not all fit
        for task_id in neighbours:
            watched.dashboard.result(task_id)
    watched.check()
    assert _bursts_told(agent) == 1
