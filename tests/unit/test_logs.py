"""The log stream: JSON for machines, lines for terminals, secrets for nobody."""

import errno
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from agp_agent import logs
from agp_agent.redaction import Masker

TOKEN = "t0ken-of-the-tests-1"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class Full(io.StringIO):
    """A stream on a disk that is full."""

    def flush(self) -> None:
        """Fail."""
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Give the process its logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    quiet = {name: logging.getLogger(name).level for name in logs._QUIET}
    yield
    root.handlers, root.level = handlers, level
    for name, old in quiet.items():
        logging.getLogger(name).setLevel(old)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    """Where the log goes, configured at the level info."""
    target = io.StringIO()
    logs.configure("info", Masker(lambda: [TOKEN.encode()]).tree, target)
    return target


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return all lines, each of which must be a JSON object."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(token: str) -> None:
    """Raise an error with the token in a local variable and in its message."""
    local_secret = token
    raise ValueError(f"could not send {local_secret}")


def test_every_line_is_one_json_object(stream: io.StringIO) -> None:
    """With time, level, logger, event and fields."""
    structlog.get_logger("agp").info("task\naccepted", task_id="a\nb", number=3)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "task\naccepted", "task_id": "a\nb", "number": 3, "level": "info", "logger": "agp"}


def test_foreign_loggers_speak_the_same_way(stream: io.StringIO) -> None:
    """Libraries that use the standard library's logging, their extra fields included."""
    logging.getLogger("some.library").warning("retry %d of %s", 2, TOKEN, extra={"peer": f"Bearer {TOKEN}"})
    (line,) = lines(stream)
    assert (line["logger"], line["level"]) == ("some.library", "warning")
    assert line["event"] == "retry 2 of [redacted]"
    assert line["peer"] == "Bearer [redacted]"


def test_tokens_never_appear(stream: io.StringIO) -> None:
    """Not in the event, in a field, in a nested one, in an error, and not in a traceback."""
    log = structlog.get_logger("agp")
    event = f"event {TOKEN}"
    log.info(event, field=TOKEN, nested={"a": [TOKEN]}, error=ValueError(TOKEN), raw=TOKEN.encode())
    try:
        fail(TOKEN)
    except ValueError:
        log.exception("failed")
        logging.getLogger("some.library").exception("failed")
    assert len(lines(stream)) == 3
    assert TOKEN not in stream.getvalue()


def test_tracebacks_tell_where_but_not_the_values_of_variables(stream: io.StringIO) -> None:
    """Locals would print playbooks."""
    try:
        fail("any value of a variable")
    except ValueError:
        structlog.get_logger("agp").exception("failed")
    (line,) = lines(stream)
    (error,) = line["exception"]
    assert error["exc_type"] == "ValueError"
    assert [frame["name"] for frame in error["frames"]][-1] == "fail"
    assert "local_secret" not in stream.getvalue()
    assert stream.getvalue().count("any value of a variable") == 1  # in the message, which the code chose to print


def test_what_is_below_the_level_is_not_logged(stream: io.StringIO) -> None:
    """Neither from the agent nor from libraries."""
    structlog.get_logger("agp").debug("quiet")
    logging.getLogger("some.library").debug("quiet")
    assert lines(stream) == []


def test_talkative_libraries_are_only_heard_when_they_warn(stream: io.StringIO) -> None:
    """The HTTP client would log every URL."""
    logging.getLogger("httpx").info("HTTP Request: POST https://dashboard.example")
    logging.getLogger("httpx").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


@pytest.mark.parametrize(
    "name",
    ["uvicorn.error", "httpx", "httpcore", "urllib3.connectionpool", "docker", "asyncio", "x.y"],
)
def test_no_logger_of_a_library_shows_a_token(stream: io.StringIO, name: str) -> None:
    """Not in the message, in its arguments, in extra fields by their names, nor in a traceback with its causes."""
    logger = logging.getLogger(name)
    try:
        try:
            fail(TOKEN)
        except ValueError as cause:
            raise ConnectionError(f"Authorization: Bearer {TOKEN}") from cause
    except ConnectionError:
        logger.exception("failed with %s and %r", TOKEN, {"Authorization": f"Bearer {TOKEN}"})
    logger.error("headers", extra={"headers": {"Authorization": "Basic unknown"}, "password": "unknown"})
    logger.warning("url https://user:unknown@host/?token=%s", TOKEN)
    assert len(lines(stream)) == 3
    assert TOKEN not in stream.getvalue()
    assert "unknown" not in stream.getvalue()


def test_lines_of_many_threads_stay_whole(stream: io.StringIO) -> None:
    """Of the agent's own loggers and of libraries, in one stream."""

    def talk(number: int) -> None:
        for _ in range(50):
            structlog.get_logger("agp").warning("a line", number=number)
            logging.getLogger("some.library").warning("a line", extra={"number": number})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(talk, range(4)))
    assert Counter(line["number"] for line in lines(stream)) == dict.fromkeys(range(4), 100)


def test_a_stream_that_takes_nothing_hurts_nobody() -> None:
    """What is logged to a full disk or a closed pipe is lost, and the agent goes on."""
    closed = io.StringIO()
    logs.configure("info", Masker(tuple).tree, closed)
    closed.close()
    structlog.get_logger("agp").info("unheard")
    logs.configure("info", Masker(tuple).tree, Full())
    structlog.get_logger("agp").info("unheard")


def test_configuring_again_replaces_the_old_way() -> None:
    """No line comes twice."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", Masker(tuple).tree, first)
    logs.configure("debug", Masker(tuple).tree, second)
    structlog.get_logger("agp").debug("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


def test_a_terminal_gets_lines_for_people_without_secrets() -> None:
    """No JSON; tracebacks are masked there too."""
    terminal = Terminal()
    logs.configure("info", Masker(lambda: [TOKEN.encode()]).tree, terminal)
    try:
        fail(TOKEN)
    except ValueError:
        structlog.get_logger("agp").exception("it failed", token=TOKEN)
    text = terminal.getvalue()
    assert "it failed" in text
    assert "ValueError" in text
    assert "[redacted]" in text
    assert TOKEN not in text


def test_without_a_stream_stdout_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    """As containers expect it."""
    logs.configure("info", Masker(tuple).tree)
    structlog.get_logger("agp").info("hello")
    assert json.loads(capsys.readouterr().out)["event"] == "hello"
