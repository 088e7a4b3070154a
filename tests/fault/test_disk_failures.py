"""Row 14: the disk under the state directory is full, turns read-only, or fails: nothing that was accepted is lost."""

from pathlib import Path
from typing import Final

import httpx
import pytest

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.dashboard_stub import RECEIVED, Reply
from support.disks import abort, failing, fill, with_ext4
from support.ledger import Ledger
from support.namespaces import with_tmpfs
from support.waiting import eventually

RUNNING: Final = 5
WAITING: Final = (
    "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\nhead -c 300000 /dev/zero | tr '\\0' x\necho after\n"
)
WRITES: Final = ("write", "pwrite64", "fdatasync", "ftruncate", "fallocate")
FILES: Final = ("journal.db", "journal.db-wal", "audit.jsonl", "reserve")


def send_running(watched: Ledger) -> dict[str, str]:
    """Send tasks that run until they are let go; return their containers by task."""
    agent = watched.agent
    tasks = [watched.send(WAITING, ends_well=True) for _ in range(RUNNING)]
    containers = {task_id: agent.container_of(task_id) for task_id in tasks}
    for container in containers.values():
        agent.engine.wait_printed(container, b"before")
    return containers


def check_refusing(watched: Ledger, task_id: str) -> str:
    """New work is refused with 503 and its reason; the agent is alive and says that it is not ready."""
    agent = watched.agent
    refused = watched.try_send("echo never\n", task_id)
    assert refused.status_code == 503, refused.text
    assert refused.headers["retry-after"] == "5"
    eventually(lambda: agent.http.get("/readyz").status_code == 503, "not ready")
    assert agent.http.get("/healthz").status_code == 200
    return str(refused.json()["detail"])


def events_by_part(agent: AgentProcess, event: str) -> list[str]:
    """The parts of all degradations of the running process, or of all recoveries, in their order."""
    return [str(line["part"]) for line in agent.log_lines() if line["event"] == event]


def check_told_once(agent: AgentProcess, part: str) -> None:
    """Each part that was degraded has one event for that, and one for its end; ``part`` is among them."""
    degraded = events_by_part(agent, "agent degraded")
    assert part in degraded
    assert len(set(degraded)) == len(degraded), degraded
    for each in degraded:
        agent.wait_log("agent recovered", part=each)
    assert sorted(events_by_part(agent, "agent recovered")) == sorted(degraded)


def test_a_full_disk_costs_no_result(start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 14: on a full disk new work gets 503, what runs ends and is delivered, and space heals it without restart."""
    state = tmp_path / "agent-0/state"
    state.mkdir(parents=True)
    watched = start_watched({"AGP_MAX_RUNNING": RUNNING}, wrapper=with_tmpfs(state, "128m"))
    agent = watched.agent
    containers = send_running(watched)
    watched.neighbours()
    fill(agent.state_inside / "fill")
    agent.wait_log("agent degraded", part="disk")
    assert "state directory is full" in check_refusing(watched, "refused")
    for container in containers.values():
        agent.engine.let_go(container)
    for task_id in containers:
        assert watched.dashboard.result(task_id)["output"].endswith("xafter\n")
    check_refusing(watched, "refused as before")
    (agent.state_inside / "fill").unlink()
    agent.wait_ready()
    watched.send("echo well\n", ends_well=True)
    watched.check()
    check_told_once(agent, "disk")


@pytest.mark.parametrize("error", [pytest.param("EIO", marks=pytest.mark.campaign), "EROFS"])
def test_a_disk_that_fails_every_write_costs_no_result(start_watched: StartWatched, error: str) -> None:
    """Row 14: while every write ends in EIO or EROFS the agent refuses, keeps what runs, and heals without restart."""
    watched = start_watched({"AGP_MAX_RUNNING": RUNNING})
    agent = watched.agent
    containers = send_running(watched)
    watched.neighbours()
    with failing(agent, WRITES, error, FILES):
        assert "cannot write durably" in check_refusing(watched, "refused")
        for container in containers.values():
            agent.engine.let_go(container)
            agent.engine.wait_ended(container)
        for part in ("journal", "audit"):  # the trail is looked at once a second
            agent.wait_log("agent degraded", part=part)
        assert not any(watched.dashboard.deliveries(task_id) for task_id in containers)
    results = watched.check()
    assert all(results[task_id]["output"].endswith("xafter\n") for task_id in containers)
    check_told_once(agent, "journal")
    check_told_once(agent, "audit")


def test_a_commit_whose_sync_failed_is_undone_before_its_sender_is_told(start_watched: StartWatched) -> None:
    """Row 14: a commit was written and its sync failed: 503, and a death at that moment does not bring it back."""
    watched = start_watched()
    agent = watched.agent
    with failing(agent, ("fdatasync",), "EIO", ("journal.db-wal",), when="1"):
        assert watched.try_send("echo never\n", "refused").status_code == 503
        agent.kill()
    agent.start()
    watched.neighbours()  # what had been brought back would run before them, and be reported
    watched.check()


def test_a_commit_that_cannot_be_undone_has_no_answer(start_watched: StartWatched) -> None:
    """Row 14: no sync succeeds: the connection is closed without a word, and sending again works when it is well."""
    watched = start_watched()
    agent = watched.agent
    with failing(agent, ("fdatasync",), "EIO", ("journal.db-wal",)), pytest.raises(httpx.TransportError):
        watched.try_send("echo once\n", "in doubt")
    agent.wait_ready()
    watched.send("echo once\n", "in doubt", ends_well=True)
    watched.neighbours()
    watched.check()
    check_told_once(agent, "journal")


@pytest.mark.campaign
def test_a_file_system_that_turned_read_only_gives_everything_back_when_repaired(
    start_watched: StartWatched, tmp_path: Path
) -> None:
    """Row 14: an ext4 that met an error refuses every write for good; once it is repaired the next agent goes on.

    Only root can mount it.
    """
    state = tmp_path / "agent-0/state"
    state.mkdir(parents=True)
    wrapper = with_ext4(tmp_path / "image", state, "256M")
    watched = start_watched({"AGP_MAX_RUNNING": RUNNING}, wrapper=wrapper)
    agent = watched.agent
    containers = send_running(watched)
    watched.neighbours()
    abort(agent)
    with pytest.raises(OSError, match="Read-only"):
        (agent.state_inside / "probe").touch()
    assert "cannot write durably" in check_refusing(watched, "refused")
    for container in containers.values():
        agent.engine.let_go(container)
        agent.engine.wait_ended(container)
    assert len(events_by_part(agent, "agent degraded")) == len(set(events_by_part(agent, "agent degraded")))
    agent.kill()
    agent.start()
    results = watched.check()
    assert all(results[task_id]["output"].endswith("xafter\n") for task_id in containers)


@pytest.mark.campaign
def test_an_agent_that_died_on_a_full_disk_starts_on_it(start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 14: killed on a full disk it starts again there, and delivers what ended meanwhile, before there is space.

    Only root can mount the file system.
    """
    state = tmp_path / "agent-0/state"
    state.mkdir(parents=True)
    wrapper = with_ext4(tmp_path / "image", state, "160M")
    watched = start_watched({"AGP_MAX_RUNNING": RUNNING}, wrapper=wrapper)
    agent = watched.agent
    containers = send_running(watched)
    fill(agent.state_inside / "fill")
    agent.wait_log("agent degraded", part="disk")
    agent.kill()
    for container in containers.values():
        agent.engine.let_go(container)
        agent.engine.wait_ended(container)
    agent.start(ready=False)
    agent.wait_log("agent degraded", part="disk")
    check_refusing(watched, "refused")
    for task_id in containers:
        assert watched.dashboard.result(task_id)["output"].endswith("xafter\n")
    (agent.state_inside / "fill").unlink()
    agent.wait_ready()
    watched.neighbours()
    watched.check()


@pytest.mark.campaign
def test_a_journal_full_of_undelivered_results_refuses_until_they_are_taken(start_watched: StartWatched) -> None:
    """Row 14: a dashboard that is away fills the journal to its limit: 503, nothing is dropped, it heals by itself."""
    watched = start_watched({"AGP_JOURNAL_LIMIT_BYTES": 2**20})
    agent = watched.agent
    watched.dashboard.reply = Reply(503, b"")
    for _ in range(4):
        watched.send("head -c 400000 /dev/zero | tr '\\0' x\n", ends_well=True)
    agent.wait_log("agent degraded", part="journal size")
    assert "AGP_JOURNAL_LIMIT_BYTES allows 1 MiB" in check_refusing(watched, "refused")
    watched.dashboard.reply = Reply(200, RECEIVED)
    agent.wait_ready()
    watched.neighbours()
    watched.check()
    check_told_once(agent, "journal size")
