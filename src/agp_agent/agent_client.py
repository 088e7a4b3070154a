"""Asks a running agent, by its own endpoints: for the commands of whoever operates it."""

import contextlib
import json
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from agp_agent.errors import AgentError, ConfigurationError
from agp_agent.local_socket import SOCKET_NAME, short_path
from agp_agent.settings import Settings
from agp_agent.tokens import TokenSource

_TIMEOUT_S: Final = 30.0
_SILENCE_S: Final = 45.0
"""A followed output has a comment every 15 s."""
_COME_BACK_S: Final = 60.0
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


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
    """One event of a followed output: ``output``, ``gap`` or ``end``, with its data; or one of this client's own.

    ``reached``: the agent answers (again). ``lost``: it does not any more, and is waited for.
    """

    kind: str
    data: dict[str, Any]


class _Patience:
    """How long an agent that went away is waited for."""

    def __init__(self) -> None:
        self._was_reached = False
        self._lost_s: float | None = None

    def reached(self) -> None:
        """It answers."""
        self._was_reached, self._lost_s = True, None

    def lost(self, error: NoAgent) -> bool:
        """It does not: whether that is new. Raises where it was never there, and after a minute."""
        if not self._was_reached:
            raise error
        if self._lost_s is None:
            self._lost_s = time.monotonic()
            return True
        if time.monotonic() - self._lost_s > _COME_BACK_S:
            raise AgentError(str(error))  # not NoAgent: part of the output was told already
        return False


class AgentClient:
    """The agent of these settings."""

    def __init__(self, settings: Settings) -> None:
        """Find the way to it and a token.

        An agent that listens on a device alone, or lets in peers of the tailnet alone, is asked by the socket in its
        state directory, for nothing comes to it from its own machine otherwise.

        Raises:
            ConfigurationError: there is no token to show, or the certificate of the settings cannot be read.
            NoAgent: that socket's directory is not there, or not for this user.
        """
        tokens = TokenSource("AGP_TOKEN", settings.token, settings.token_file)
        if not tokens.configured:
            raise ConfigurationError("AGP_TOKEN (not set): expected the agent's token, or AGP_TOKEN_FILE.")
        host = f"[{settings.local_host}]" if ":" in settings.local_host else settings.local_host
        url = f"{'https' if settings.tls_cert_file else 'http'}://{host}:{settings.port}"
        self._open = contextlib.ExitStack()
        by = self._socket_of(settings.state_dir) if settings.is_asked_by_socket else None
        self.address = str(settings.state_dir / SOCKET_NAME) if by else url
        verify = _trusting(settings.tls_cert_file) if settings.tls_cert_file else True
        self._client = httpx.Client(
            base_url=url,
            headers={b"Authorization": b"Bearer " + tokens.current()[0]},
            transport=httpx.HTTPTransport(verify=verify, trust_env=False, uds=by),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def _socket_of(self, state_dir: Path) -> str:
        try:
            return self._open.enter_context(short_path(state_dir))
        except OSError as error:
            raise NoAgent(f"{state_dir}: {error.strerror}; the agent's socket is in there.") from None

    def close(self) -> None:
        """Close its connections."""
        self._client.close()
        self._open.close()

    def ask(self, method: str, path: str, **query: object) -> Any:
        """What an endpoint answers, as JSON.

        Raises:
            NoAgent: nobody answers.
            AgentRefused: it says no.
            AgentError: it is no agent that answers.
        """
        given = {name: str(value) for name, value in query.items() if value is not None}
        with self._reached():
            answer = self._client.request(method, path, params=given)
        _check(answer)
        try:
            return answer.json()
        except ValueError:
            raise AgentError(f"what answers at {self.address} is no agent: its answer is not JSON.") from None

    def text(self, path: str) -> str:
        """The same for text."""
        with self._reached():
            answer = self._client.get(path)
        _check(answer)
        return answer.text

    def follow(self, path: str) -> Iterator[LogEvent]:
        """The events of a task's output up to its end. An agent that goes away is waited for, and nothing comes twice.

        Raises:
            NoAgent: it was not there at the beginning.
            AgentError: it did not come back within a minute.
        """
        position, patience = "0", _Patience()
        while True:
            try:
                for reached, event in self._events(path, position):
                    position = reached
                    patience.reached()
                    yield event
                    if event.kind == "end":
                        return
            except NoAgent as error:
                if patience.lost(error):
                    yield LogEvent("lost", {})
            time.sleep(1)

    def _events(self, path: str, position: str) -> Iterator[tuple[str, LogEvent]]:
        """Each with the position behind it."""
        headers = {"Last-Event-ID": position}
        with (
            self._reached(),
            self._client.stream("GET", path, params={"follow": "true"}, headers=headers, timeout=_SILENCE_S) as answer,
        ):
            if answer.is_error:
                answer.read()
            _check(answer)
            yield position, LogEvent("reached", {})
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "event" in fields:
                    yield fields["id"], LogEvent(fields["event"], json.loads(fields["data"]))
                    fields = {}

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in why:
                raise AgentError(
                    f"what answers at {self.address} has another certificate than the first one in AGP_TLS_CERT_FILE "
                    "(an agent that runs on shows the one that it started with)."
                ) from None
            raise NoAgent(f"no agent answers at {self.address} ({why}); `agp-agent serve` starts one.") from None


def task_path(task_id: str, *more: str) -> str:
    """The path of a task's endpoint."""
    name = quote(task_id, safe="", errors="surrogateescape").replace(".", "%2E")  # ".." would be a step up
    return "/".join(("/tasks", name, *more))


def _trusting(cert_file: Path) -> ssl.SSLContext:
    """Trust the agent's own certificate, whoever issued it and for whatever names: it is asked by a local address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        leaf = _CERTIFICATE.search(cert_file.read_text("ascii", "replace"))
        context.load_verify_locations(cadata=leaf[0] if leaf else "")
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigurationError(f"AGP_TLS_CERT_FILE: {cert_file}: cannot be used: {error}.") from None
    return context


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        sentence = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        sentence = f"it answered {answer.status_code}"
    raise AgentRefused(answer.status_code, sentence)
