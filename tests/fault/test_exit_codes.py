"""Row 24: the exit code is the playbook's own, whatever it is and however early it comes."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from fault.conftest import StartWatched
from support.ledger import Ledger

AT_ONCE: Final = 8
LONG_S: Final = 1500.0
CODES: Final = (*range(4), 64, 69, 77, 78, 100, *range(124, 131), 137, 143, *range(254, 256))
"""What programs, shells, the engine and signals use; all 256 take a minute."""
SIGNALS: Final = (
    "HUP",
    "INT",
    "ILL",
    "ABRT",
    "BUS",
    "FPE",
    "KILL",
    "USR1",
    "SEGV",
    "PIPE",
    "ALRM",
    "TERM",
    "XCPU",
)
"""Bash ignores QUIT."""


def _expected(code: int) -> str | None:
    """The error of a playbook that ended with this code."""
    if code == 0:
        return None
    number = code - 128
    names = {one.value: one.name for one in signal.Signals}
    return f"exit code {code}" + (f" ({names[number]})" if number in names else "")


def _run(watched: Ledger, scripts: dict[str, tuple[str, str, str | None]], patience_s: float) -> None:
    """Send scripts by task id, each with the output and the error that it must have; eight at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda task_id: watched.send(scripts[task_id][0], task_id), scripts))
    results = watched.check(patience_s=patience_s)
    for task_id, (_, output, error) in scripts.items():
        seen = results[task_id]
        assert (seen["output"].partition("\n")[2], seen["error"]) == (output, error), task_id


def _exits(codes: range | tuple[int, ...]) -> dict[str, tuple[str, str, str | None]]:
    return {f"exit {code}": (f"printf {code}\nexit {code}\n", str(code), _expected(code)) for code in codes}


def _dies() -> dict[str, tuple[str, str, str | None]]:
    return {
        f"dies by {name}": (
            f"printf x\nkill -{name} $$\nexit 99\n",
            "x",
            _expected(128 + signal.Signals[f"SIG{name}"]),
        )
        for name in SIGNALS
    }


def _at_once(number: int) -> dict[str, tuple[str, str, str | None]]:
    """Playbooks that end at once: with nothing, with a byte, with as much as a pipe holds, and with a little more."""
    sizes = (0, 1, 65536, 70000)
    return {
        f"at once {one}": (f"head -c {size} /dev/zero | tr '\\0' x\nexit {code}\n", "x" * size, _expected(code))
        for one in range(number)
        for size, code in [(sizes[one % len(sizes)], one % 200)]
    }


def test_exit_codes_and_signals_are_exact(start_watched: StartWatched) -> None:
    """Row 24: codes at every border and death by each signal; some that end at once; all output is there."""
    watched = start_watched({"AGP_MAX_RUNNING": AT_ONCE})
    watched.neighbours()
    _run(watched, _exits(CODES) | _dies() | _at_once(12), 120)


@pytest.mark.campaign
@pytest.mark.timeout(LONG_S)
def test_all_exit_codes_and_a_thousand_that_end_at_once(start_watched: StartWatched) -> None:
    """Row 24: codes 0 to 255, and a thousand playbooks that end as soon as they begin; all output is there."""
    watched = start_watched({"AGP_MAX_RUNNING": AT_ONCE, "AGP_MAX_QUEUED": 2000})
    _run(watched, _exits(range(256)) | _at_once(1000), LONG_S)
