"""Stands before every route: nothing of a request's body is read before its token was found right."""

import hmac
from collections.abc import Callable
from typing import Final

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agp_agent.errors import Unauthorized
from agp_agent.tally import Tally

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered without a token; they reveal nothing but a status."""

_UNAUTHORIZED: Final = "The bearer token is missing or invalid."


class Guard:
    """ASGI middleware that lets only requests with a right token through."""

    def __init__(self, app: ASGIApp, tokens: Callable[[], tuple[bytes, ...]], failures: Tally) -> None:
        """``tokens`` returns the tokens that are right now; whoever failed too often has its connection closed."""
        self._app = app
        self._tokens = tokens
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_right(_token_of(scope)):
            await self._app(scope, receive, send)
            return
        close = self._failures.add(peer_of(scope), path=scope["path"][:256])
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
