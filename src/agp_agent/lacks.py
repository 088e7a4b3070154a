"""What of a container's lockdown an engine may be unable to give and its operator may accept to miss, by name."""

from collections.abc import Iterable
from enum import StrEnum


class Lack(StrEnum):
    """One thing that some engines cannot do."""

    SWAP = "swap"
    """Kernels without swap accounting: a container may use swap beyond its memory."""
    MEMORY = "memory"
    """Rootless engines without delegation: no limit of memory, and none of swap."""
    PIDS = "pids"
    """The same: no limit of processes."""
    CPUS = "cpus"
    """The same: no limit of processor time."""
    LOG_DRIVER = "log-driver"
    """Engines without the log driver ``local``, such as Podman: output is recovered less exactly after a crash."""


def parse(text: str) -> frozenset[Lack]:
    """Read names with commas between them.

    Raises:
        ValueError: with what was expected.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(Lack)):
        raise ValueError(
            f"some of {', '.join(Lack)} with commas between them, and {', '.join(unknown)} is none of them"
        )
    return frozenset(Lack(name) for name in names)


def listed(lacks: Iterable[Lack]) -> str:
    """Their names, in the order of the list."""
    found = set(lacks)
    return ", ".join(lack for lack in Lack if lack in found)
