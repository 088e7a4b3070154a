"""All clocks of one process, set forward while it runs, by libfaketime."""

from pathlib import Path
from typing import Final

_LIBRARY: Final = "/usr/$LIB/faketime/libfaketime.so.1"


class Leaps:
    """Give ``environment`` to a process; each ``leap`` then sets its clocks further ahead.

    Who sleeps by a clock that leapt does not notice before something else wakes it.
    """

    def __init__(self, file: Path) -> None:
        """``file`` tells the process how far its clocks are ahead."""
        self._file = file
        self._minutes = 0
        self._write()
        self.environment: dict[str, object] = {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": file,
            "FAKETIME_NO_CACHE": 1,
        }

    def leap(self, minutes: int) -> None:
        """Set all clocks ahead by so much more."""
        self._minutes += minutes
        self._write()

    def _write(self) -> None:
        self._file.write_text(f"+{self._minutes}m\n")
