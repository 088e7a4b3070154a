"""What systemd is told (sd_notify(3)): that the agent is up, what it does, that it lives, that it stops.

Nothing is told where nobody asked: without ``NOTIFY_SOCKET`` every call returns at once.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

_PINGS_A_PERIOD: Final = 3
_ABSTRACT: Final = "@"


class ServiceManager:
    """The one that started this process and asked to be told."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read who asked, and for how often."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith(_ABSTRACT) else address
        wanted = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if wanted else 0.0
        """It ends a process that has not been heard of for so long; 0 is never."""

    def ready(self, status: str) -> None:
        """The agent is up; ``status`` is a sentence for ``systemctl status``."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """What the agent does now."""
        self._tell(f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """The agent ends in good order, which may take a while."""
        self._tell("STOPPING=1", f"STATUS={status}")

    async def run(self) -> None:
        """Tell again and again that the event loop turns: an agent that hangs is ended and started again."""
        while self.watchdog_s > 0:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / _PINGS_A_PERIOD)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # noqa: FBT003  a manager that does not read holds nothing up
            sender.sendto("\n".join(lines).encode(), self._address)
