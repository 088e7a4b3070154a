"""A wall clock that tests set."""


class SetClock:
    """Milliseconds since 1970, as far as the test is concerned."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        """Begin somewhere in 2025."""
        self.now_ms = now_ms

    def __call__(self) -> int:
        """Return the time it is set to."""
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Set it forward, or back where ``seconds`` is negative."""
        self.now_ms += round(seconds * 1000)
