"""What is left of the machine's memory."""

from pathlib import Path

import pytest

from agp_agent import free_memory


def test_this_machine_has_some_left() -> None:
    """A share, as its kernel tells it."""
    share = free_memory.available_share()
    assert share is not None
    assert 0 < share < 1


def test_it_is_what_programs_could_still_get(tmp_path: Path) -> None:
    """Caches that give way count as left; free pages alone do not say it."""
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  250 kB\n")
    assert free_memory.available_share(tmp_path / "meminfo") == 0.25


@pytest.mark.parametrize(
    "text", [None, "", "MemTotal: 1000 kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "x\n", "a: b"]
)
def test_a_kernel_that_does_not_tell_is_no_reason_to_fear(tmp_path: Path, text: str | None) -> None:
    """Nobody knows: None."""
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    assert free_memory.available_share(tmp_path / "meminfo") is None
