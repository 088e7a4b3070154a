"""Stands before every route: nothing of a request's body is read before its token was found right."""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agp_agent.audit import Audit, AuditEvent
from agp_agent.errors import Unauthorized

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered without a token; they reveal nothing but a status."""

FAILURES_A_MINUTE: Final = 10
_MINUTE_S: Final = 60.0
_PEERS_MAX: Final = 1024
_UNAUTHORIZED: Final = "The bearer token is missing or invalid."


class AuthFailures:
    """Counts wrong tokens by peer, so that neither a guesser nor the audit trail gets out of hand."""

    def __init__(self, audit: Audit, now_s: Callable[[], float] = time.monotonic) -> None:
        """Failures are recorded in ``audit``: one by one up to ten a minute and peer, then one event a minute."""
        self._audit = audit
        self._now_s = now_s
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, peer: str, path: str) -> bool:
        """Count one; True where this peer has failed too often, and its connection is to be closed."""
        now_s = self._now_s()
        since_s, count = self._peers.pop(peer, (now_s, 0))
        if now_s - since_s >= _MINUTE_S:
            self._summarise(peer, count)
            since_s, count = now_s, 0
        self._peers[peer] = (since_s, count + 1)
        if count < FAILURES_A_MINUTE:
            self._audit.record(AuditEvent.AUTH_FAILED, peer=peer, path=path, count=1)
        if len(self._peers) > _PEERS_MAX:
            oldest, (_, missed) = self._peers.popitem(last=False)
            self._summarise(oldest, missed)
        return count >= FAILURES_A_MINUTE

    async def run(self) -> None:
        """Record what was only counted, every minute."""
        while True:
            await asyncio.sleep(_MINUTE_S)
            self.flush()

    def flush(self) -> None:
        """Record what was only counted until now, and begin to count anew."""
        while self._peers:
            peer, (_, count) = self._peers.popitem(last=False)
            self._summarise(peer, count)

    def _summarise(self, peer: str, count: int) -> None:
        if count > FAILURES_A_MINUTE:
            self._audit.record(AuditEvent.AUTH_FAILED, peer=peer, count=count - FAILURES_A_MINUTE)


class Guard:
    """ASGI middleware that lets only requests with a right token through."""

    def __init__(self, app: ASGIApp, tokens: Callable[[], tuple[bytes, ...]], failures: AuthFailures) -> None:
        """``tokens`` returns the tokens that are right now."""
        self._app = app
        self._tokens = tokens
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_right(_token_of(scope)):
            await self._app(scope, receive, send)
            return
        close = self._failures.add(peer_of(scope), scope["path"][:256])
        headers = Unauthorized.headers | ({"Connection": "close"} if close else {})
        await JSONResponse({"detail": _UNAUTHORIZED}, Unauthorized.status, headers)(scope, receive, send)

    def _is_right(self, presented: bytes) -> bool:
        """Compare with every token, in a time that does not tell which one came near."""
        right = False
        for token in self._tokens():
            right |= hmac.compare_digest(token, presented)
        return right


def peer_of(scope: Scope) -> str:
    """The address the request came from."""
    client = scope.get("client")
    return client[0] if client else "unknown"


def _token_of(scope: Scope) -> bytes:
    """The bearer token as bytes; empty where there is none, or more than one header."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return b""
    scheme, _, token = values[0].partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""
