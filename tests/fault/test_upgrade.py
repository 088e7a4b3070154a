"""Row 36: another version of the agent is started on the state directory of the one before."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from agp_agent import __version__
from fault.conftest import StartWatched
from support.agent_process import AgentProcess

LIVE: Final = 20
CATALOG: Final = f"""
runners:
  shell:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.sh]}}
    command: [agp-shell, "{{playbook}}"]
    memory: 16MiB
    pids: 16
"""
"""So small that 20 of them fit into any machine."""
WAITING: Final = 5
HELD: Final = "echo before\nuntil [ -e /work/go ]; do sleep 1; done\necho after\n"
FREE: Final = "echo before\necho after\n"
NEWER: Final = 1000
CONFIGURATION: Final = 78
ENDS: Final[dict[str, Callable[[AgentProcess], object]]] = {"stopped": AgentProcess.stop, "killed": AgentProcess.kill}


def test_an_upgrade_with_20_live_tasks(start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 36: the old agent stops, the new one takes over 20 that run and 5 that wait: none is lost or runs twice."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = {"AGP_CATALOG": tmp_path / "catalog.yaml", "AGP_MAX_RUNNING": LIVE, "AGP_DRAIN_TIMEOUT_S": 0}
    watched = start_watched(settings)
    agent = watched.agent
    running = [watched.send(HELD, ends_well=True) for _ in range(LIVE)]
    containers = [agent.container_of(task_id) for task_id in running]
    for container in containers:
        agent.engine.wait_printed(container, b"before")
    waiting = [watched.send(FREE, ends_well=True) for _ in range(WAITING)]
    assert agent.stop() == 0
    assert watched.dashboard.deliveries() == []
    assert len(agent.engine.containers(agent.instance, running=True)) == LIVE
    agent.start()
    for task_id, container in zip(running, containers, strict=True):
        agent.wait_audited("task adopted", task_id=task_id)
        agent.engine.let_go(container)
    results = watched.check()
    assert len(results) == LIVE + WAITING
    assert [task_id for task_id in [*running, *waiting] if not results[task_id]["output"].endswith("after\n")] == []


@pytest.mark.parametrize("end", ["killed", pytest.param("stopped", marks=pytest.mark.campaign)])
def test_a_journal_of_a_newer_schema_is_refused(start_watched: StartWatched, end: str) -> None:
    """Row 36: the older agent says what to do and ends; not a byte of the state directory has changed, all goes on."""
    watched = start_watched({"AGP_DRAIN_TIMEOUT_S": 0})
    agent = watched.agent
    task_id = watched.send(HELD, ends_well=True)
    container = agent.container_of(task_id)
    agent.engine.wait_printed(container, b"before")
    ENDS[end](agent)
    older = _set_version(agent.state / "journal.db", NEWER, leave_log=end == "killed")
    before = _content(agent.state)
    refused = subprocess.run(agent.command, env=agent.environment, capture_output=True, text=True, check=False)
    assert refused.returncode == CONFIGURATION
    assert f"the journal is of a newer agent (schema {NEWER}" in refused.stderr
    assert "install that agent again, or give this one another state directory" in refused.stderr
    assert _content(agent.state) == before
    assert agent.engine.inspect(container)["State"]["Running"]
    assert _set_version(agent.state / "journal.db", older, leave_log=False) == NEWER
    agent.start()
    agent.engine.let_go(container)
    watched.neighbours()
    watched.check()


def _set_version(journal: Path, version: int, *, leave_log: bool) -> int:
    """Make it a journal of this schema, and return its version before; ``leave_log``: as one that was killed does."""
    program = f"""
import os, sqlite3
db = sqlite3.connect({str(journal)!r})
print(db.execute("PRAGMA user_version").fetchone()[0], flush=True)
db.execute("PRAGMA user_version = {version}")
{"os._exit(0)" if leave_log else "db.close()"}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _content(folder: Path) -> dict[str, str]:
    """The hash of every file that is not empty; SQLite's index of its log holds nothing that is not in the log."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.stat().st_size}
