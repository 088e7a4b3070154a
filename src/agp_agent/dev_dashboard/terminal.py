"""What the dashboard says in its terminal: the link at start, then each result as it arrives.

Plain lines when piped, colours on a terminal, none with NO_COLOR. Foreign text never steers the terminal: control
characters are spelled out, and each line of an output is indented, so that none can pose as a line of the dashboard.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.text import Text

from agp_agent.dev_dashboard.store import ReceivedResult
from agp_agent.models import TaskStatus
from agp_agent.visible import visible_line, visible_text

_LINES_SHOWN: Final = 80
_LINE_CHARS: Final = 1000
# Colours only, no bold or dim: with NO_COLOR not one escape sequence is left.
_STYLES: Final = {
    TaskStatus.PENDING: "yellow",
    TaskStatus.RUNNING: "yellow",
    TaskStatus.COMPLETED: "green",
    TaskStatus.FAILED: "red",
}


class PatientConsole(Console):
    """A rich console whose reader may go away: the dashboard then goes on without it."""

    def on_broken_pipe(self) -> None:
        """Say nothing more; rich itself would end the process here."""
        self.quiet = True


class Terminal:
    """Prints to one console. Calls must come from one thread at a time; they wait for a terminal that is paused."""

    def __init__(self, console: Console | None = None) -> None:
        """Print to the given console, or to standard output."""
        self._console = PatientConsole() if console is None else console

    def started(self, base_url: str, page_key: str, kept_in: str) -> None:
        """Say where the page is and where an agent sends its results."""
        self._print(Text(f"Development dashboard (not for production). Results are kept in {visible_line(kept_in)}."))
        self._print(Text(f"Page:   {base_url}/?key={page_key}"))
        self._print(Text(f"Agent:  AGP_DASHBOARD_URL={base_url}"))
        self._print(Text("Stop:   Ctrl-C"))

    def link_used(self, base_url: str, page_key: str) -> None:
        """Say what the next browser opens: a link works once."""
        self._print(Text("The link was opened. For another browser:"))
        self._print(Text(f"Page:   {base_url}/?key={page_key}"))

    def received(self, received: ReceivedResult) -> None:
        """Show one delivery: a result with its output, or that it came again."""
        for line in _lines(received):
            self._print(line)

    def _print(self, line: Text) -> None:
        encoding = self._console.encoding
        line.plain = line.plain.encode(encoding, "backslashreplace").decode(encoding)
        with suppress(OSError):  # a full disk behind a redirected output must not cost the agent its acknowledgement
            self._console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)


def _lines(received: ReceivedResult) -> Iterator[Text]:
    """The lines for one delivery; pure."""
    head = Text(f"{received.last_received_at:%Y-%m-%dT%H:%M:%SZ} ")
    head.append(received.status, _STYLES[received.status])
    head.append(f" {visible_line(received.task_id)}")
    if received.duplicates:
        yield head.append(f" (again: received {received.times_received} times, kept once)")
        return
    yield head
    if received.error is not None:
        yield Text("  error: ").append(visible_line(received.error), _STYLES[received.status])
    for line in _shorten(visible_text(received.output)):
        yield Text(f"  | {line}")


def _shorten(output: str) -> list[str]:
    """First and last lines of a long output, and the beginning of a long line."""
    lines = output.removesuffix("\n").split("\n") if output else []
    omitted = len(lines) - _LINES_SHOWN
    if omitted > 0:
        half = _LINES_SHOWN // 2
        lines = [*lines[:half], f"[dashboard: {omitted} lines not shown here; the page has them]", *lines[-half:]]
    return [_shorten_line(line) for line in lines]


def _shorten_line(line: str) -> str:
    omitted = len(line) - _LINE_CHARS
    return line if omitted <= 0 else f"{line[:_LINE_CHARS]} [dashboard: {omitted} characters not shown here]"
