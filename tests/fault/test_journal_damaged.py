"""Row 15: the journal is locked, corrupt, truncated, empty or gone: every task that was accepted is reported."""

import contextlib
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pytest

from fault.conftest import StartWatched
from support.dashboard_stub import RECEIVED, Reply
from support.ledger import Ledger
from support.waiting import eventually

WAITING: Final = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\n"
AWAY: Final = Reply(503, b'{"detail":"away"}')
LOST: Final = "lost: the agent's journal was damaged, and its record with it"
RUNNING: Final = 2


# --- damages ---------------------------------------------------------------------------------------------------------


def _settle(journal: Path) -> None:
    """Let SQLite write everything into the file itself: else the log beside it would heal what is done to the file."""
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def overwritten(journal: Path) -> None:
    """Write noise over the middle of the file."""
    _settle(journal)
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.seek(size // 3)
        file.write(b"\xa5" * (size // 3))


def index_flipped(journal: Path) -> None:
    """Flip one bit in the index on live rows: each page of the file is well by itself."""
    _settle(journal)
    with contextlib.closing(sqlite3.connect(journal)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'attempts_live'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray(journal.read_bytes())
    data[data.index(b"queued", (page - 1) * size, page * size)] ^= 2
    journal.write_bytes(data)


def truncated(journal: Path) -> None:
    """Cut off the second half."""
    _settle(journal)
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size // 2 // 4096 * 4096)


def emptied(journal: Path) -> None:
    """Leave a file of no bytes, with its write-ahead log beside it."""
    with journal.open("r+b") as file:
        file.truncate(0)


def removed(journal: Path) -> None:
    """Remove the file alone."""
    journal.unlink()


def log_overwritten(journal: Path) -> None:
    """Write noise over the middle of the write-ahead log: SQLite passes over it and over all that follows."""
    log = journal.with_name(f"{journal.name}-wal")
    with log.open("r+b") as file:
        file.seek(log.stat().st_size // 2)
        file.write(b"\xa5" * 4096)


def log_removed(journal: Path) -> None:
    """Remove the write-ahead log, as a copy of the file alone does."""
    journal.with_name(f"{journal.name}-wal").unlink()


Damaging = Callable[[Path], None]


# --- the tests -------------------------------------------------------------------------------------------------------


def accept_in_every_state(watched: Ledger) -> dict[str, list[str]]:
    """Send tasks, and return their ids by where they stand: delivered, undelivered, running, queued."""
    agent, dashboard = watched.agent, watched.dashboard
    delivered = watched.send("echo delivered\n", ends_well=True)
    agent.wait_audited("task delivered", task_id=delivered)
    dashboard.reply = AWAY
    undelivered = watched.send("echo undelivered\n")
    eventually(lambda: dashboard.deliveries(undelivered), "a delivery that the dashboard did not take")
    running = [watched.send(WAITING) for _ in range(RUNNING)]
    for task_id in running:
        agent.engine.wait_printed(agent.container_of(task_id), b"before")
    queued = [watched.send("echo never\n") for _ in range(RUNNING)]
    return {"delivered": [delivered], "undelivered": [undelivered], "running": running, "queued": queued}


def check_damage(watched: Ledger, damage: Damaging) -> None:
    """Damage the journal under a dead agent: the next one sets it aside, says so, and reports every task."""
    agent, dashboard = watched.agent, watched.dashboard
    tasks = accept_in_every_state(watched)
    agent.kill()
    damage(agent.state / "journal.db")
    kept = set(agent.state.glob("journal.db.damaged-*"))
    dashboard.reply = Reply(200, RECEIVED)
    agent.start()
    rebuilt = agent.wait_log("journal rebuilt")
    assert rebuilt["tasks_lost"] == 1 + 2 * RUNNING, damage.__name__
    counted = 'agp_tasks_finished_total{outcome="lost",reason="journal_lost"} '
    assert f"{counted}{1 + 2 * RUNNING}.0\n" in agent.request("GET", "/metrics").text, damage.__name__
    if damage is not removed:
        assert set(map(str, agent.state.glob("journal.db.damaged-*"))) - set(map(str, kept)) >= {rebuilt["kept_as"]}
    results = watched.check()
    for state in ("undelivered", "running", "queued"):
        assert {results[task_id]["error"] for task_id in tasks[state]} == {LOST}, damage.__name__
    for task_id in tasks["running"]:
        assert "before\n" in results[task_id]["output"]
        assert "[agp-agent: an unknown number of bytes omitted]" in results[task_id]["output"]
    assert len(dashboard.deliveries(tasks["delivered"][0])) == 1
    assert len(agent.audit("journal rebuilt", tasks_lost=rebuilt["tasks_lost"], why=rebuilt["why"])) == 1


@pytest.mark.parametrize(
    "damages",
    [
        pytest.param([overwritten, index_flipped, emptied, log_overwritten], id="quick"),
        pytest.param([truncated, removed, log_removed], id="more", marks=pytest.mark.campaign),
    ],
)
def test_a_damaged_journal_is_rebuilt_and_every_task_reported(
    start_watched: StartWatched, damages: list[Damaging]
) -> None:
    """Row 15: queued, running and undelivered tasks are reported as lost with their output, none is forgotten."""
    watched = start_watched({"AGP_MAX_RUNNING": RUNNING})
    for damage in damages:
        check_damage(watched, damage)
    watched.neighbours()
    watched.check()


def test_a_journal_damaged_under_a_running_agent_ends_it(start_watched: StartWatched) -> None:
    """Row 15: with exit code 1 and its reason; the next start rebuilds the journal and reports every task."""
    watched = start_watched()
    agent = watched.agent
    for _ in range(3):
        watched.send("echo a\n", ends_well=True)
    watched.check()
    overwritten(agent.state / "journal.db")

    def look() -> bool:
        with contextlib.suppress(httpx.TransportError):
            watched.try_send("echo z\n", f"task-{secrets.token_hex(4)}")
        return agent.process.poll() is not None

    eventually(look, "the agent's end")
    assert agent.wait() == 1
    assert "the journal cannot be used any more" in agent.log_text()
    agent.start()
    agent.wait_log("journal rebuilt")
    for line in agent.audit("task accepted"):
        if line["task_id"] not in watched.accepted:  # its answer went with the agent
            watched.note(line["task_id"])
    watched.neighbours()
    watched.check()


def test_a_locked_journal_is_503_until_it_is_free(start_watched: StartWatched) -> None:
    """Row 15: while another process holds the journal new work is refused, and what runs is reported afterwards."""
    watched = start_watched()
    agent = watched.agent
    task_id = watched.send(WAITING, ends_well=True)
    watched.neighbours()
    container = agent.container_of(task_id)
    with contextlib.closing(sqlite3.connect(agent.state / "journal.db", isolation_level=None)) as other:
        eventually(lambda: _taken(other), "the lock")
        agent.engine.let_go(container)
        refused = watched.try_send("echo never\n", "refused")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5"), refused.text
        assert "cannot write durably" in refused.json()["detail"]
        assert agent.http.get("/readyz").status_code == 503
        assert agent.http.get("/healthz").status_code == 200
        agent.engine.wait_ended(container)
        assert watched.dashboard.deliveries(task_id) == []
        other.execute("ROLLBACK")
    agent.wait_ready()
    assert watched.check()[task_id]["output"].endswith("before\nafter\n")
    agent.wait_log("agent recovered", part="journal")
    degraded = [line["part"] for line in agent.log_lines() if line["event"] == "agent degraded"]
    assert degraded == ["journal"]


def _taken(other: sqlite3.Connection) -> bool:
    try:
        other.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:  # the agent is just writing
        return False
    return True
