"""The clocks."""

import time
import uuid

from agp_agent import clock


def test_the_boot_clock_never_goes_back() -> None:
    """Deadlines are counted by it."""
    readings = [clock.boot_s() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[0] > 0


def test_the_boot_has_an_id() -> None:
    """The same at every look; the kernel writes it as a UUID."""
    assert clock.boot_id() == clock.boot_id()
    assert str(uuid.UUID(clock.boot_id())) == clock.boot_id()


def test_wall_time_is_in_milliseconds_since_1970() -> None:
    """It lies between two readings of the standard library."""
    before_s = time.time()
    now_ms = clock.wall_ms()
    assert int(before_s * 1000) - 1 <= now_ms <= time.time() * 1000 + 1
