"""The dashboard's side of the contract: posts one result and says what the answer means. The only importer of httpx."""

import asyncio
import email.utils
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Final, Protocol

import httpx

from agp_agent.backoff import RETRY_AFTER_MAX_S
from agp_agent.errors import ConfigurationError
from agp_agent.models import TaskResult
from agp_agent.tokens import TokenSource

REPORT_PATH: Final = "/api/v1/agents/report_result"
AUDIT_HEAD_HEADER: Final = "AGP-Audit-Head"

_DEADLINE_S: Final = 60.0
_ANSWER_MAX_BYTES: Final = 64 * 1024
_HOLD: Final = frozenset({401, 403})
_RETRY: Final = frozenset({404, 405, 408, 409, 425, 429})
_SERVER_ERROR: Final = 500
_AWAY: Final = frozenset({429, 502, 503, 504})
"""Answers about the dashboard, not about the result."""


class Meaning(Enum):
    """What an answer means for the result."""

    ACKNOWLEDGED = auto()
    RETRY = auto()
    HOLD = auto()
    """The token is not accepted: try with whatever the token file says then, at least once a minute."""
    TOO_LARGE = auto()
    """It may be taken with less output."""
    REFUSED = auto()
    """It will never be taken as it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a delivery went. ``why`` is a sentence for people; empty where it was acknowledged."""

    meaning: Meaning
    why: str = ""
    retry_after_s: float | None = None
    away: bool = False
    """The dashboard as a whole did not take it, whatever the result: no other would be taken now either."""
    status: int | None = field(default=None, compare=False)
    """HTTP's; None where no answer came."""


@dataclass(frozen=True, slots=True)
class Headers:
    """What goes along with a result, beside the contract. ``traceparent``: None where nothing is traced."""

    idempotency_key: str
    audit_head: str
    traceparent: str | None = None


class Dashboard(Protocol):
    """Where results go."""

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Deliver one result; never raises for anything the dashboard or the network does."""

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""


class HttpDashboard:
    """The real one, over HTTP."""

    def __init__(
        self, base_url: str, token: TokenSource, *, ca_file: Path | None = None, proxy: str | None = None
    ) -> None:
        """Prepare the client; nothing is sent yet.

        Raises:
            ConfigurationError: the CA file cannot be used.
        """
        self._url = base_url + REPORT_PATH
        self._token = token
        try:
            verify = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"AGP_DASHBOARD_CA_FILE: {ca_file} cannot be used: {error}.") from None
        self._client = httpx.AsyncClient(
            verify=verify,
            proxy=proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(30.0, connect=10.0),
        )

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Deliver one result."""
        try:
            token = self._token.current()[0]
            async with asyncio.timeout(_DEADLINE_S):
                return await self._post(result, token, headers)
        except TimeoutError:
            return Answer(Meaning.RETRY, f"the dashboard did not answer within {_DEADLINE_S:g} s", away=True)
        except httpx.HTTPError as error:
            return Answer(Meaning.RETRY, f"the dashboard was not reached: {type(error).__name__}: {error}", away=True)
        except ConfigurationError as error:
            return Answer(Meaning.HOLD, str(error), away=True)

    async def _post(self, result: TaskResult, token: bytes, more: Headers) -> Answer:
        headers = {
            b"Authorization": b"Bearer " + token,
            b"Content-Type": b"application/json",
            b"Content-Length": str(sum(map(len, result.json_pieces()))).encode(),
            b"Accept-Encoding": b"identity",  # what is bounded below is what came over the wire
            b"Idempotency-Key": more.idempotency_key.encode(),
            AUDIT_HEAD_HEADER.encode(): more.audit_head.encode(),
        }
        if more.traceparent:
            headers[b"traceparent"] = more.traceparent.encode()
        async with self._client.stream("POST", self._url, content=_body(result), headers=headers) as response:
            body = b""
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _ANSWER_MAX_BYTES:
                    break
            answer = interpret(response.status_code, body, response.headers.get("Retry-After"))
            return replace(answer, status=response.status_code)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _body(result: TaskResult) -> AsyncIterator[bytes]:
    for piece in result.json_pieces():
        yield piece


def interpret(status: int, body: bytes, retry_after: str | None) -> Answer:
    """What an answer of the dashboard means. Pure but for the clock that a date in Retry-After is held against."""
    if status == httpx.codes.OK:
        if _is_acknowledgement(body):
            return Answer(Meaning.ACKNOWLEDGED)
        return Answer(Meaning.RETRY, 'the dashboard answered 200 without {"message": "…"}: not an acknowledgement')
    why = f"the dashboard answered {status}"
    if status in _HOLD:
        return Answer(Meaning.HOLD, f"{why}: it does not accept the agent's token", away=True)
    if status in _RETRY or status >= _SERVER_ERROR:
        return Answer(Meaning.RETRY, why, _seconds(retry_after), away=status in _AWAY or retry_after is not None)
    if httpx.codes.is_redirect(status) or httpx.codes.is_success(status) or httpx.codes.is_informational(status):
        return Answer(Meaning.RETRY, f"{why}, which is no acknowledgement; redirects are not followed")
    return Answer(Meaning.TOO_LARGE if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE else Meaning.REFUSED, why)


def _is_acknowledgement(body: bytes) -> bool:
    if len(body) > _ANSWER_MAX_BYTES:
        return False
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("message"), str)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds, as a number or a date, within its cap."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if seconds == seconds else None  # noqa: PLR0124  NaN
