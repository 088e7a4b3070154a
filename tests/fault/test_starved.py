"""Row 35: the agent is stopped for a while, has hardly any file descriptors, or hardly any memory."""

import os
import resource
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import pytest

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.ledger import Ledger, fds
from support.waiting import PATIENCE_S, eventually

WAITING: Final = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\n"
NOFILE: Final = 64
LONG_S: Final = 600
CROWD: Final = 100
FEW: Final = 10


def send_running(watched: Ledger, number: int) -> dict[str, str]:
    """Send tasks that run until they are let go; return their containers by task."""
    agent = watched.agent
    tasks = [watched.send(WAITING, ends_well=True) for _ in range(number)]
    containers = {task_id: agent.container_of(task_id) for task_id in tasks}
    for container in containers.values():
        agent.engine.wait_printed(container, b"before")
    return containers


def let_go(agent: AgentProcess, containers: dict[str, str]) -> None:
    """Let them all go on."""
    for container in containers.values():
        agent.engine.let_go(container)


def still_running(agent: AgentProcess, containers: dict[str, str]) -> set[str]:
    """Those that have not ended."""
    return {str(one.id) for one in agent.engine.containers(agent.instance, running=True)} & set(containers.values())


def cpu_s(agent: AgentProcess) -> float:
    """The processor time that the agent has used."""
    fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- stopped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped_s", [3, pytest.param(60, marks=pytest.mark.campaign)])
def test_an_agent_that_was_stopped_catches_up(start_watched: StartWatched, stopped_s: int) -> None:
    """Row 35: what ended while it stood still is reported as it was, and who knocked meanwhile gets an answer."""
    watched = start_watched({"AGP_MAX_RUNNING": 5})
    agent = watched.agent
    containers = send_running(watched, 5)
    queued = watched.neighbours()
    agent.signal(signal.SIGSTOP)
    answers: list[int] = []
    knocking = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{agent.http.base_url}/healthz", timeout=LONG_S).status_code)
    )
    knocking.start()
    let_go(agent, containers)
    for container in containers.values():
        agent.engine.wait_ended(container)
    time.sleep(stopped_s)  # the fault itself
    assert answers == []
    assert not any(watched.dashboard.deliveries(task_id) for task_id in (*containers, *queued))
    agent.signal(signal.SIGCONT)
    knocking.join()
    assert answers == [200]
    results = watched.check()
    assert all(results[task_id]["output"].endswith("before\nafter\n") for task_id in containers)


# --- file descriptors ------------------------------------------------------------------------------------------------


@contextmanager
def crowd(agent: AgentProcess, number: int) -> Iterator[None]:
    """Inside, so many clients have connected and say nothing."""
    address = ("127.0.0.1", agent.port)
    with ExitStack() as silent:
        for _ in range(number):
            silent.enter_context(socket.create_connection(address))
        yield


def test_with_few_file_descriptors_less_runs_at_once(start_watched: StartWatched) -> None:
    """Row 35: under RLIMIT_NOFILE 64 fewer tasks run at once, and a crowd of silent clients costs none of them."""
    # Those that wait would have their share of the descriptors.
    watched = start_watched({"AGP_MAX_RUNNING": 50, "AGP_WARM": 0}, wrapper=("prlimit", f"--nofile={NOFILE}:{NOFILE}"))
    agent = watched.agent
    found = agent.wait_log("engine found")
    assert (found["max_running"], "RLIMIT_NOFILE" in found["max_running_because"]) == (4, True)
    containers = send_running(watched, 4)
    queued = watched.neighbours()
    with crowd(agent, CROWD):
        before_s = cpu_s(agent)
        let_go(agent, containers)
        for task_id in (*containers, *queued):
            watched.dashboard.result(task_id)
        assert agent.http.get("/healthz").status_code == 200
        assert fds(agent) <= NOFILE
        assert cpu_s(agent) - before_s < 10  # no endless accepting of what cannot be accepted
    watched.check()


@contextmanager
def no_descriptor_left(agent: AgentProcess) -> Iterator[None]:
    """Inside, the agent's process has all the files open that it may have: it must close one to open another."""
    pid = agent.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "ends_meanwhile",
    # The removal of what has ended may fail then, and is done at the next reconciliation: that is up to a minute.
    [False, pytest.param(True, marks=pytest.mark.campaign)],
)
def test_without_a_file_descriptor_left_the_agent_waits_for_better_times(
    start_watched: StartWatched, *, ends_meanwhile: bool
) -> None:
    """Row 35: new work is refused with 503 and the reason, what runs is kept, and all is well again by itself."""
    watched = start_watched({"AGP_MAX_RUNNING": 5})
    agent = watched.agent
    containers = send_running(watched, 5)
    with no_descriptor_left(agent):
        before_s, began_s = cpu_s(agent), time.monotonic()
        agent.wait_log("agent degraded", part="file descriptors")
        refused = watched.try_send("echo never\n", "refused")
        assert (refused.status_code, "RLIMIT_NOFILE" in refused.json()["detail"]) == (503, True), refused.text
        assert agent.http.get("/readyz").status_code == 503
        assert agent.http.get("/healthz").status_code == 200
        with crowd(agent, FEW):
            assert httpx.get(f"{agent.http.base_url}/healthz", timeout=PATIENCE_S).status_code == 200
        if ends_meanwhile:
            let_go(agent, containers)
            eventually(lambda: not still_running(agent, containers), "the end of what ran")
        used_s, passed_s = cpu_s(agent) - before_s, time.monotonic() - began_s
        assert used_s < 0.5 * passed_s, "it runs hot"
    agent.wait_ready()
    if not ends_meanwhile:
        let_go(agent, containers)
    watched.neighbours()
    watched.check()
    agent.wait_log("agent recovered", part="file descriptors")
    degraded = [line["part"] for line in agent.log_lines() if line["event"] == "agent degraded"]
    assert degraded.count("file descriptors") == 1


# --- memory ----------------------------------------------------------------------------------------------------------


def squeeze(agent: AgentProcess) -> None:
    """Let the agent's process have no more address space than it has now."""
    pid = agent.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE"),) * 2)


def feed(watched: Ledger) -> int:
    """Send tasks that need memory; return how many of them were not accepted."""
    number = 0
    for _ in range(5):
        with suppress(httpx.HTTPError):
            task_id = f"big-{secrets.token_hex(4)}"
            number += watched.try_send(f"true {'x' * 500_000}\n", task_id).status_code == 202
    return 5 - number


def test_an_agent_out_of_memory_is_started_again_and_goes_on(start_watched: StartWatched) -> None:
    """Row 35: what was accepted before is reported by the next process, whatever the starved one still did."""
    watched = start_watched({"AGP_MAX_RUNNING": 5})
    agent = watched.agent
    containers = send_running(watched, 5)
    watched.neighbours()
    squeeze(agent)
    assert feed(watched) > 0  # it starves, however it says so: below, the same food is taken
    agent.signal(signal.SIGKILL)
    agent.wait()
    agent.start()
    let_go(agent, containers)
    watched.check()
    assert feed(watched) == 0
    results = watched.check()
    assert all(results[task_id]["output"].endswith("before\nafter\n") for task_id in containers)
