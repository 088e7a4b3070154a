"""Playbooks and exactly what becomes of them: the walk of a task as data."""

from dataclasses import dataclass
from typing import Final

from agp_agent import __version__

CATALOG: Final = f"""\
runners:
  quick:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.quick]}}
    command: [agp-shell, "{{playbook}}"]
    timeout_s: 1
  small:
    image: agp/runner-python:{__version__}
    match: {{suffixes: [.small]}}
    command: [python3, "{{playbook}}"]
    memory: 64MiB
    env: {{FROM_THE_CATALOG: "yes"}}
  broken:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.broken]}}
    command: [/no/such/program, "{{playbook}}"]
  single:
    image: agp/runner-shell:{__version__}
    match: {{suffixes: [.single]}}
    command: [agp-shell, "{{playbook}}"]
    max_running: 1
  gone:
    image: agp/no-such-image:1
    pull: never
    match: {{suffixes: [.gone]}}
    command: ["{{playbook}}"]
"""
"""An operator's catalog with a runner for each way to end."""

KNOWN_RUNNERS: Final = "shell, python, ansible, quick, small, broken, single, gone"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A playbook, and the result that must reach the dashboard."""

    about: str
    content: str
    output: str = ""
    error: str | None = None
    name: str = "playbook.sh"

    @property
    def status(self) -> str:
        """Only a success is completed."""
        return "failed" if self.error else "completed"


_MEMORY_HOG: Final = "print('begin', flush=True)\nx = b'x' * 10**9\nprint('never')\n"

SCENARIOS: Final = (
    Scenario("success", "echo one\necho two\n", "one\ntwo\n"),
    Scenario("no output", "true"),
    Scenario("no newline at the end", "printf one", "one"),
    Scenario("exit code 1", "echo no\nexit 1\n", "no\n", "exit code 1"),
    Scenario("exit code 2", "exit 2", "", "exit code 2"),
    Scenario("exit code 125", "exit 125", "", "exit code 125"),
    Scenario("exit code 255", "exit -1", "", "exit code 255"),
    Scenario("the exit code of a signal", "exit 130", "", "exit code 130 (SIGINT)"),
    Scenario("its own KILL", "echo on\nkill -9 $$\n", "on\n", "exit code 137 (SIGKILL)"),
    Scenario("its own TERM", "kill $$", "", "exit code 143 (SIGTERM)"),
    Scenario("its own SEGV", "kill -SEGV $$", "", "exit code 139 (SIGSEGV)"),
    Scenario(
        "stderr in true order",
        "echo a; echo b >&2; echo c; echo d >&2; ls /none 2>&1 >/dev/null | wc -l",
        "a\nb\nc\nd\n1\n",
    ),
    Scenario("stdin is empty", "if read -r x; then echo $x; else echo end; fi", "end\n"),
    Scenario("a child that stays behind", "(sleep 600; echo late) & echo done", "done\n"),
    Scenario(
        "forged lines of the protocol",
        "echo 'agp1 started 00'; echo 'agp1 error no' >&2",
        "agp1 started 00\nagp1 error no\n",
    ),
    Scenario("a bash that is named", "#!/bin/bash\necho ${BASH_VERSION%%.*} | wc -l\n", "1\n", name="no-suffix"),
    Scenario("a suffix in capitals", "echo ok", "ok\n", name="PLAYBOOK.SH"),
    Scenario("a name that looks like a path", "echo ok", "ok\n", name="../../etc/passwd; rm -rf /x.sh"),
    Scenario(
        "python",
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(4)\n",
        "out\nerr\n",
        "exit code 4",
        "p.py",
    ),
    Scenario("python that says why", "raise SystemExit('no')", "no\n", "exit code 1", "p.py"),
    Scenario("python by its first line", "#!/usr/bin/env python3\nprint(6 * 7)\n", "42\n", name="answer"),
    Scenario("python that is killed", "import os\nos.abort()", "", "exit code 134 (SIGABRT)", "p.py"),
    Scenario("the catalog's environment", "import os\nprint(os.environ['FROM_THE_CATALOG'])", "yes\n", name="p.small"),
    Scenario("out of memory", _MEMORY_HOG, "begin\n", "killed: out of memory (limit 64 MiB)", "p.small"),
    Scenario("out of time", "echo begin\nsleep 600\n", "begin\n", "timed out after 1 s", "p.quick"),
    Scenario(
        "out of time, and cleaning up",
        "trap 'echo bye; exit 0' TERM\necho begin\nsleep 600 & wait\n",
        "begin\nbye\n",
        "timed out after 1 s",
        "p.quick",
    ),
    Scenario(
        "out of time, and deaf to TERM",
        "trap '' TERM\necho begin\nwhile :; do sleep 0.1; done\n",
        "begin\n",
        "timed out after 1 s",
        "p.quick",
    ),
    Scenario("no runner", "hello", "", f"no runner for 'notes.txt'; known runners: {KNOWN_RUNNERS}", "notes.txt"),
    Scenario("no runner by its shape", "a: 1\n", "", f"no runner for 'x'; known runners: {KNOWN_RUNNERS}", "x"),
    Scenario(
        "an image that is not there",
        "x",
        "",
        "image agp/no-such-image:1 is not available: it is not on the engine, and its pull policy is never",
        "p.gone",
    ),
)
