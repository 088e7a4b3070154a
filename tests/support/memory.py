"""How much memory a process needed at most, by the kernel's own count."""

import os
from pathlib import Path
from typing import Final, Self

_FORGET_PEAK: Final = "5"


class MemoryGrowth:
    """While this is open: by how much the resident memory of a process grew at most, in bytes."""

    def __init__(self, pid: int) -> None:
        """Look at the process with this id, which must run to the end."""
        self._process = Path(f"/proc/{pid}")
        self._before = 0

    def __enter__(self) -> Self:
        (self._process / "clear_refs").write_text(_FORGET_PEAK)
        self._before = self._bytes("VmRSS")
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    @property
    def peak_bytes(self) -> int:
        """The largest growth until now."""
        return self._bytes("VmHWM") - self._before

    def _bytes(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def host_processes(mark: str) -> list[int]:
    """Ids of all processes of this machine, in whatever container, on whose command line ``mark`` stands."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it ended
                continue
            if mark.encode() in command:
                found.append(int(folder.name))
    return found
