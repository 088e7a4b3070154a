"""Logging: one stream of JSON on stdout (or readable lines on a terminal), for structlog and foreign loggers alike."""

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

_QUIET: Final = ("httpx", "httpcore", "urllib3", "docker", "asyncio", "uvicorn.access")


def configure(level: str, mask: Callable[[object], object], stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    Args:
        level: the least level that is logged.
        mask: hides secrets in every field of every line, tracebacks included.
        stream: where to; default stdout.
    """
    target = stream or sys.stdout
    terminal = target.isatty()

    def masked(_logger: object, _method: str, event: Any) -> Any:
        return mask(event)

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    # Locals in tracebacks would print tokens and playbooks.
    plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    errors = structlog.processors.ExceptionRenderer(plain) if not terminal else structlog.processors.format_exc_info
    render: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, errors, masked, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # The agent's own lines go straight to the stream: the way through ``logging`` costs as much again as all the rest.
    structlog.configure(
        processors=[*shared, errors, masked, render],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=lambda *names: _Lines(target, *names),
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes each line whole, for the logger called ``name``. A stream that takes nothing hurts nobody."""

    def __init__(self, stream: TextIO, name: str = "root") -> None:
        self._stream = stream
        self.name = name

    def write(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = write
