"""The clocks: wall time for people, the boot clock for deadlines."""

import functools
import time
from pathlib import Path
from typing import Final, NamedTuple

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class BootTime(NamedTuple):
    """A moment by the boot clock. Two of different boots cannot be compared."""

    boot_id: str
    boot_s: float


def wall_ms() -> int:
    """Milliseconds since 1970; may jump."""
    return time.time_ns() // 1_000_000


def boot_s() -> float:
    """Seconds since the kernel booted, sleep included; never jumps, and survives the death of this process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def boot_id() -> str:
    """Which boot ``boot_s`` counts from. It outlives every process, so it is read once."""
    return _BOOT_ID.read_text().strip()


def boot_time() -> BootTime:
    """Now, by the boot clock."""
    return BootTime(boot_id(), boot_s())
