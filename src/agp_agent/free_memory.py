"""How much of this machine's memory is left, as its kernel reckons it."""

from pathlib import Path
from typing import Final

SHORT_BELOW: Final = 0.08
"""Less than this share available is too little to let containers wait that nobody needs yet."""
ENOUGH_ABOVE: Final = 0.12
"""So much is enough again; between the two it stays as it was, so that the pool does not empty and fill in turn."""

MEMINFO: Final = Path("/proc/meminfo")


def available_share(meminfo: Path = MEMINFO) -> float | None:
    """What programs could still get without swapping, as a share of all memory; None: the kernel does not tell."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return sizes["MemAvailable"] / sizes["MemTotal"]
    except (OSError, ValueError, LookupError, ZeroDivisionError):
        return None
