"""Clocks that tests set."""

from agp_agent.clock import BootTime


class SetClock:
    """Milliseconds since 1970, as far as the test is concerned."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        """Begin somewhere in 2025."""
        self.now_ms = now_ms
        self.boot_s = 1000.0

    def __call__(self) -> int:
        """Return the time it is set to."""
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Let time pass; or set the clock back where ``seconds`` is negative."""
        self.now_ms += round(seconds * 1000)
        self.boot_s += max(0.0, seconds)

    def boot_time(self) -> BootTime:
        """Return the time that has passed since the boot, which no setting back changes."""
        return BootTime("boot", self.boot_s)
