"""Machines and wires between them: network namespaces and pairs of virtual devices, all of them gone in the end."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_PATIENCE_S: Final = 60


def run(*command: object) -> str:
    """Run a command that must succeed; return what it printed."""
    ended = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=_PATIENCE_S
    )
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout


@dataclass(frozen=True, slots=True)
class Machine:
    """A network of its own."""

    name: str

    @property
    def inside(self) -> tuple[str, ...]:
        """Put before a command, it is executed there."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: object) -> str:
        """Run a command there that must succeed."""
        return run(*self.inside, *command)

    def python(self, script: str, *arguments: object) -> str:
        """Run a script there; return what it printed, without the end of the line."""
        return self.run(sys.executable, "-c", script, *arguments).rstrip("\n")


@contextmanager
def machines(*roles: str) -> Iterator[Sequence[Machine]]:
    """Networks that reach nothing but themselves, named after their roles and this process."""
    made = [Machine(f"agp-{os.getpid()}-{role}") for role in roles]
    try:
        for machine in made:
            run("ip", "netns", "add", machine.name)
            machine.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for machine in made:
            subprocess.run(["ip", "netns", "delete", machine.name], capture_output=True, check=False)


def connect(one: Machine, device: str, address: str, other: Machine, other_address: str) -> None:
    """Lay a wire between two machines: ``device`` with ``address`` on one side, ``wire0`` on the other (CIDR both)."""
    one.run("ip", "link", "add", device, "type", "veth", "peer", "name", "wire0", "netns", other.name)
    for machine, name, its_address in ((one, device, address), (other, "wire0", other_address)):
        machine.run("ip", "address", "add", its_address, "dev", name)
        machine.run("ip", "link", "set", name, "up")
