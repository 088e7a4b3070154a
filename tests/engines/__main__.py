"""``make test-engines``: the engine's contract and the integration suites, against Docker of three releases of Debian.

Each is a second daemon in a network namespace of its own, with the runner images of the machine's engine. A rootless
Docker and Podman's Docker socket, which cannot do what the suites ask for, are tried by tests of their own. Exit code 0
where all passed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from rich.console import Console
from rich.table import Table

from engines.suites import ON_ANY_ENGINE, ROOT, engine_for_suites
from support.own_engine import OwnEngine

RELEASES: Final = {"bookworm": None, "trixie": ROOT / "build/engines/trixie", "sid": ROOT / "build/engines/sid"}
console = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the suites on one engine: pytest's closing line, and how long it took."""

    engine: str
    closing: str
    passed: bool
    seconds: float


def main(releases: list[str]) -> int:
    """Run the suites on each engine; the exit code."""
    verdicts = [OTHERS[name]() if name in OTHERS else run(name) for name in releases or [*RELEASES, *OTHERS]]
    table = Table("engine", "passed", "s")
    for one in verdicts:
        table.add_row(one.engine, one.closing, f"{one.seconds:.0f}", style="" if one.passed else "red")
    console.print(table)
    return not all(one.passed for one in verdicts)


def run(release: str) -> Verdict:
    """Start the engine of a release, and run the suites on it."""
    begin = time.monotonic()
    with engine_for_suites(RELEASES[release]) as engine:
        name = f"Docker {version_of(engine)} (Debian {release})"
        verdict = tried(name, *ON_ANY_ENGINE, environment=os.environ | {"DOCKER_HOST": engine.docker_host})
    return replace(verdict, seconds=time.monotonic() - begin)


def tried(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Verdict:
    """Run pytest, and say what failed."""
    console.print(f"{name} …")
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        command = (sys.executable, "-m", "pytest", "--quiet", "--color=no", *arguments)
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
        log.seek(0)
        lines = log.read().splitlines()
    for line in lines if done.returncode else ():
        if line.startswith(("FAILED", "ERROR")):
            console.print(f"  {line}", markup=False)
    closing = next((line for line in reversed(lines) if re.search(r" in [0-9.]+s", line)), "pytest did not end")
    said = re.sub(r" in [0-9.]+s.*", "", closing).strip("= ")
    return Verdict(name, said, done.returncode == 0, time.monotonic() - begin)


def version_of(engine: OwnEngine) -> str:
    """What it says of itself."""
    command = ("docker", "--host", engine.docker_host, "version", "--format", "{{.Server.Version}}")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


OTHERS: Final[Mapping[str, Callable[[], Verdict]]] = {
    "rootless": lambda: tried("Docker of this machine, rootless", "-m", "engines", "tests/engines/test_rootless.py"),
    "podman": lambda: tried("Podman of this machine", "-m", "engines", "tests/engines/test_podman.py"),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
