"""What the kernel says of a process: processor time, memory, threads, open files."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds right now."""

    resident_mb: float
    """Resident memory in megabytes of 10^6 bytes."""
    threads: int
    files: int
    """Open file descriptors."""


def footprint(pid: int) -> Footprint:
    """Look at a running process."""
    folder = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    resident_kib = int(status["VmRSS"].split()[0])
    return Footprint(resident_kib * 1024 / 1e6, int(status["Threads"]), len(list((folder / "fd").iterdir())))


def cpu_s(pid: int) -> float:
    """Processor time that a process has used so far, all its threads together, in seconds."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def reset_peak(pid: int) -> None:
    """Let ``peak_mb`` count from now on."""
    (Path("/proc") / str(pid) / "clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The most resident memory that a process had since the reset, in megabytes of 10^6 bytes."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1024 / 1e6
