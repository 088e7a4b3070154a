"""Row 23: playbooks that do not want to end, and what they leave behind."""

import sys
from pathlib import Path
from typing import Final

from agp_agent import __version__
from fault.conftest import StartWatched
from support.engine_events import EngineEvents
from support.memory import host_processes
from support.waiting import eventually

DEADLINE_S: Final = 3.0
GRACE_S: Final = 1.0
SLACK_S: Final = 2.0
"""The requirement's own: a task ends within deadline, grace and this."""
BUSY_S: Final = 10.0
"""What a machine that does other things too adds: engine and agent have to be given their turns."""
MARK: Final = "86399.0017"
"""Seconds that nobody else sleeps."""
CATALOG: Final = f"""\
runners:
  stubborn:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.stubborn]}}
    command: [agp-shell, "{{playbook}}"]
    timeout_s: {DEADLINE_S}
"""

FOR_EVER: Final = {
    "deaf to TERM": "trap '' TERM INT HUP QUIT\nwhile :; do sleep 0.1; done\n",
    "asleep": f"exec sleep {MARK}\n",
    "stopped": "kill -STOP $$\n",
    "zombies": f"(for i in $(seq 200); do sleep 0.2 & done; exec sleep {MARK}) & sleep {MARK}\n",
    "daemons": f"trap '' TERM\nfor i in 1 2 3; do setsid sh -c 'trap \"\" TERM; sleep {MARK}' & done\nwait\n",
}
"""Nothing but the agent ends these."""

LEAVES_DAEMONS: Final = f"for i in 1 2 3; do setsid nohup sleep {MARK} >/dev/null 2>&1 & done\necho left\nexit 5\n"
LEAVES_ORPHANS: Final = """\
for i in $(seq 1000); do (true &) ; done
sleep 0.5
ls -d /proc/[0-9]* | wc -l
exit 6
"""


def test_whatever_does_not_want_to_end_is_ended(start_watched: StartWatched, tmp_path: Path) -> None:
    """Row 23: what is deaf, asleep, stopped or full of zombies ends within deadline, grace and 2 s; none survives."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = {"AGP_CATALOG": tmp_path / "catalog.yaml", "AGP_STOP_GRACE_S": GRACE_S, "AGP_MAX_RUNNING": 8}
    settings |= {"AGP_WARM": 0}  # the engine tells how long a container ran, be it that it only waited
    watched = start_watched(settings)
    agent = watched.agent
    with EngineEvents(agent.instance) as events:
        for about, script in FOR_EVER.items():
            agent.accept_task(about, script, "p.stubborn")
            watched.note(about)
        leaver, orphans = watched.send(LEAVES_DAEMONS), watched.send(LEAVES_ORPHANS)
        sleeping = agent.container_of("asleep")
        eventually(lambda: host_processes(MARK) or events.seen("die"), "processes that will not end")
        watched.neighbours()
        results = watched.check()
        containers = {about: agent.container_of(about) for about in FOR_EVER}
        assert containers["asleep"] == sleeping  # ended, and not started again
        seconds = {about: events.seconds_run(container) for about, container in containers.items()}
        assert {events.wait("die", agent.container_of(one)).exit_code for one in (leaver, orphans)} == {5, 6}
    assert {about: results[about]["error"] for about in FOR_EVER} == dict.fromkeys(FOR_EVER, "timed out after 3 s")
    sys.stdout.write(f"seconds run: {seconds}\n")
    assert all(DEADLINE_S <= ran < DEADLINE_S + GRACE_S + SLACK_S + BUSY_S for ran in seconds.values()), seconds
    assert (results[leaver]["error"], _behind_start(results[leaver]["output"])) == ("exit code 5", "left\n")
    assert results[orphans]["error"] == "exit code 6"
    assert int(_behind_start(results[orphans]["output"])) < 20  # the first process of the container buried them
    assert host_processes(MARK) == []


def _behind_start(output: str) -> str:
    """The output without the line by which starts are counted."""
    return output.partition("\n")[2]
