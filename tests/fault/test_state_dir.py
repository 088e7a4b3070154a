"""Row 16 and directories that an agent must not use (row 36 too): a clear error, and not a byte is changed."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from agp_agent import __version__
from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.engine_side import EngineSide
from support.waiting import PATIENCE_S

WAITING: Final = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\n"
NOBODY: Final = 65534
IMAGE: Final = f"agp/runner-shell:{__version__}"
CONFIGURATION: Final = 78
WITHOUT_LOCKS: Final = (
    *("strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull),
    *("-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"),
)
"""What a network file system answers that was mounted without locks."""


def refused(agent: AgentProcess, state: Path, wrapper: Sequence[str] = (), **settings: str) -> str:
    """Start another agent with the same settings on a state directory; it must end, with a sentence on stderr."""
    environment = agent.environment | {"AGP_STATE_DIR": str(state)} | settings
    command = [*wrapper, *agent.command]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == CONFIGURATION, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def contents(state: Path) -> dict[str, tuple[int, int, str]]:
    """Owner, mode and hash of every file of a state directory; SQLite's index of its log is made anew by any reader."""
    return {
        str(path.relative_to(state)): (path.stat().st_uid, path.stat().st_mode, _hash(path))
        for path in sorted(state.rglob("*"))
        if path.suffix != ".db-shm"
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def give_to(engine: EngineSide, state: Path, user: int) -> None:
    """Make a directory another user's, as only root can: by a container."""
    engine.client.containers.run(
        IMAGE,
        ["-R", str(user), "/state"],
        entrypoint="chown",
        user="0",
        remove=True,
        network_disabled=True,
        volumes={str(state): {"bind": "/state", "mode": "rw"}},
    )


def test_a_second_agent_on_the_same_state_directory_ends(start_watched: StartWatched) -> None:
    """Row 16: it ends at once and says what to do; the first one and what it runs do not notice."""
    watched = start_watched()
    agent = watched.agent
    task_id = watched.send(WAITING, ends_well=True)
    watched.neighbours()
    container = agent.container_of(task_id)
    told = refused(agent, agent.state)
    assert "another agent is running on this state directory; stop it, or give this one another AGP_STATE_DIR" in told
    assert agent.http.get("/readyz").status_code == 200
    agent.engine.let_go(container)
    watched.check()
    assert len(agent.audit("agent started")) == 1
    assert agent.audit_heads()


def test_two_agents_on_one_engine_leave_each_other_alone(start_watched: StartWatched) -> None:
    """Row 16: one dies, and comes back to left-overs of its own; what runs for the other of the same name runs on."""
    one, other = start_watched({"AGP_AGENT_ID": "twin"}), start_watched({"AGP_AGENT_ID": "twin"})
    assert one.agent.instance != other.agent.instance
    mine, others = one.send(WAITING), other.send(WAITING)
    left, kept = one.agent.container_of(mine), other.agent.container_of(others)
    other.agent.engine.wait_printed(kept, b"before")
    other.neighbours(5)
    one.agent.kill()
    (one.agent.state / "journal.db").unlink()  # so that even what runs for it is a left-over
    one.agent.start()
    one.agent.engine.wait_removed(left)
    assert other.agent.engine.inspect(kept)["State"]["Running"]
    one.neighbours(5)
    other.agent.engine.let_go(kept)
    other.accepted |= one.accepted  # the dashboard is one for both
    results = other.check()
    assert (results[others]["error"], results[others]["output"].endswith("before\nafter\n")) == (None, True)
    assert results[mine]["error"].startswith("lost: ")


def test_a_directory_that_is_not_for_this_agent_is_refused_untouched(
    start_watched: StartWatched, tmp_path: Path
) -> None:
    """Rows 16 and 36: of a newer schema, another agent, another user, or without locks; no byte changes."""
    watched = start_watched()
    agent, copy = watched.agent, tmp_path / "copy"
    watched.neighbours()
    watched.check()
    agent.kill()
    with (agent.state / "audit.jsonl").open("ab") as trail:
        trail.write(b'{"torn')  # what only an agent may repair that may be here
    with closing(sqlite3.connect(agent.state / "journal.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
        shutil.copytree(agent.state, copy)  # while it is open: the change stands in the write-ahead log
    assert (copy / "journal.db-wal").stat().st_size > 0
    before = contents(copy)
    told = refused(agent, copy)
    assert "the journal is of a newer agent (schema 99, this agent knows" in told
    assert "install that agent again, or give this one another state directory" in told
    told = refused(agent, copy, AGP_AGENT_ID="somebody-else")
    assert "this state directory belongs to agent" in told
    assert "not to 'somebody-else'; give AGP_AGENT_ID that name, or AGP_STATE_DIR another directory" in told
    told = refused(agent, copy, WITHOUT_LOCKS)
    assert "this file system has no locks (No locks available); give AGP_STATE_DIR a local one" in told
    give_to(agent.engine, copy, NOBODY)
    try:
        told = refused(agent, copy)
    finally:
        give_to(agent.engine, copy, os.getuid())
    assert f"belongs to user {NOBODY}" in told or "cannot be used: Permission denied; give AGP_STATE_DIR" in told
    assert contents(copy) == before
