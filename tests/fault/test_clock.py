"""Row 19: the clock jumps by a day, to and fro, while tasks wait, run and are delivered, and while no agent runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from agp_agent import __version__
from fault.conftest import StartWatched
from support.dashboard_stub import Reply
from support.ledger import Ledger

WAITING: Final = "echo before\nuntil [ -e /work/go ]; do sleep 0.05; done\necho after\nexit 7\n"
REFUSED: Final = Reply(500, b'{"detail":"try again"}')
SHORT_S: Final = 2
CATALOG: Final = f"""
runners:
  short:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.short]}}
    command: [agp-shell, "{{playbook}}"]
    timeout_s: {SHORT_S}
"""


class Clock:
    """The wall clock of an agent, which a test sets; that of the machine stays as it is."""

    def __init__(self, file: Path) -> None:
        """It is right at first."""
        self._file = file
        self.jump("+0")

    @property
    def environment(self) -> dict[str, object]:
        """What puts it into a process. The monotonic clocks are the kernel's own."""
        return {
            "LD_PRELOAD": "/usr/$LIB/faketime/libfaketimeMT.so.1",
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }

    def jump(self, offset: str) -> None:
        """Let it differ from the machine's by so much from now on; at once, for the file is never half written."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.rename(self._file)


def days_off(line: dict[str, Any]) -> int:
    """By how many days the time of a line of the log is wrong."""
    written = datetime.fromisoformat(line["time"])
    return round((written - datetime.now(UTC)) / timedelta(days=1))


def send_short(watched: Ledger, task_id: str) -> str:
    """Send a task that sleeps for ever, under a short deadline."""
    watched.agent.accept_task(task_id, "sleep 3600\n", name="playbook.short")
    watched.note(task_id)
    return task_id


def send_refused(watched: Ledger, times: int) -> str:
    """Send a task whose result the dashboard does not take at first; return its id when it waits in back-off."""
    task_id = f"refused-{len(watched.accepted)}"
    watched.dashboard.script(task_id, *[REFUSED] * times)
    watched.send("echo done\n", task_id, ends_well=True)
    watched.dashboard.wait_deliveries(task_id, 1)
    return task_id


def jump_beside_work(watched: Ledger, clock: Clock, offset: str, days: int) -> None:
    """Jump while a result waits in back-off and a deadline runs: both go on as if nothing had happened."""
    agent = watched.agent
    refused, short = send_refused(watched, 2), send_short(watched, f"short-{days}")
    agent.container_of(short)
    clock.jump(offset)
    seen = watched.send("echo seen\n", ends_well=True)
    assert days_off(agent.wait_log("task accepted", task_id=seen)) == days
    watched.dashboard.result(refused)
    assert watched.dashboard.result(short)["error"] == f"timed out after {SHORT_S} s"
    watched.neighbours(5)


def test_a_clock_that_jumps_by_a_day_changes_nothing(start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 19: deadlines and back-off go by the boot clock; no healthy task is ended, nothing waits for a day."""
    clock = Clock(tmp_path / "clock")
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = {"AGP_CATALOG": tmp_path / "catalog.yaml", "AGP_TASK_TIMEOUT_S": 600, "AGP_MAX_RUNNING": 3}
    watched = start_watched(settings | clock.environment)
    agent = watched.agent
    healthy = watched.send(WAITING)
    container = agent.container_of(healthy)
    agent.engine.wait_printed(container, b"before")
    jump_beside_work(watched, clock, "+1d", 1)
    jump_beside_work(watched, clock, "-1d", -1)
    short = send_short(watched, "short-over-death")
    ended = agent.container_of(short)
    queued = [watched.send("echo queued\n", ends_well=True) for _ in range(3)]
    agent.kill()
    clock.jump("+1d")
    agent.start()
    assert days_off(agent.wait_log("task adopted", task_id=healthy)) == 1
    assert watched.dashboard.result(short)["error"] == f"timed out after {SHORT_S} s"
    agent.engine.wait_removed(ended)
    for task_id in queued:
        watched.dashboard.result(task_id)
    assert agent.engine.inspect(container)["State"]["Running"]
    agent.engine.let_go(container)
    results = watched.check()
    assert results[healthy]["error"] == "exit code 7"
    assert results[healthy]["output"].endswith("before\nafter\n")
