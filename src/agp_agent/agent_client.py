"""Asks a running agent, by its own endpoints: for the commands of whoever operates it."""

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from agp_agent.errors import AgentError, ConfigurationError
from agp_agent.settings import Settings
from agp_agent.tokens import TokenSource

_TIMEOUT_S: Final = 30.0
_SILENCE_S: Final = 45.0
"""A followed output has a comment every 15 s."""
_COME_BACK_S: Final = 60.0


class NoAgent(AgentError):
    """No agent answers where the settings say."""


class AgentRefused(AgentError):
    """The agent answered with an error; the message is its own sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        """``status`` is HTTP's."""
        self.status = status
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of a followed output: ``output``, ``gap`` or ``end``, with its data."""

    kind: str
    data: dict[str, Any]


class AgentClient:
    """The agent of these settings."""

    def __init__(self, settings: Settings) -> None:
        """Find its address and a token. Raises ``ConfigurationError`` where there is no token to show."""
        tokens = TokenSource("AGP_TOKEN", settings.token, settings.token_file)
        if not tokens.configured:
            raise ConfigurationError("AGP_TOKEN (not set): expected the agent's token, or AGP_TOKEN_FILE.")
        host = f"[{settings.local_host}]" if ":" in settings.local_host else settings.local_host
        self.address = f"{'https' if settings.tls_cert_file else 'http'}://{host}:{settings.port}"
        self._client = httpx.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {tokens.current()[0].decode(errors='replace')}"},
            verify=ssl.create_default_context(cafile=settings.tls_cert_file),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def ask(self, method: str, path: str, **query: object) -> Any:
        """What an endpoint answers, as JSON.

        Raises:
            NoAgent: nobody answers.
            AgentRefused: it says no.
        """
        given = {name: str(value) for name, value in query.items() if value is not None}
        with self._reached():
            answer = self._client.request(method, path, params=given)
        _check(answer)
        return answer.json()

    def text(self, path: str) -> str:
        """The same for text."""
        with self._reached():
            answer = self._client.get(path)
        _check(answer)
        return answer.text

    def follow(self, path: str) -> Iterator[LogEvent]:
        """The events of a task's output up to its end. An agent that goes away is waited for, and nothing comes twice.

        Raises:
            NoAgent: it did not come back within a minute.
        """
        position, lost_s = 0, 0.0
        while True:
            try:
                for reached, event in self._events(path, position):
                    position, lost_s = reached, 0.0
                    yield event
                    if event.kind == "end":
                        return
            except NoAgent:
                lost_s = lost_s or time.monotonic()
                if time.monotonic() - lost_s > _COME_BACK_S:
                    raise
            time.sleep(1)

    def _events(self, path: str, position: int) -> Iterator[tuple[int, LogEvent]]:
        headers = {"Last-Event-ID": str(position)}
        with (
            self._reached(),
            self._client.stream("GET", path, params={"follow": "true"}, headers=headers, timeout=_SILENCE_S) as answer,
        ):
            if answer.is_error:
                answer.read()
            _check(answer)
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "event" in fields:
                    yield int(fields["id"]), LogEvent(fields["event"], json.loads(fields["data"]))
                    fields = {}

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            raise NoAgent(f"no agent answers at {self.address} ({why}); `agp-agent serve` starts one.") from None


def task_path(task_id: str, *more: str) -> str:
    """The path of a task's endpoint."""
    return "/".join(("/tasks", quote(task_id, safe=""), *more))


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        sentence = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        sentence = f"it answered {answer.status_code}"
    raise AgentRefused(answer.status_code, sentence)
