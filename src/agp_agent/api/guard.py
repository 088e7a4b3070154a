"""Stands before every route: nothing of a request's body is read before its token was found right."""

import base64
import hmac
import time
from collections.abc import Callable
from typing import Final

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agp_agent.api.visitor import CALLER, VISITOR, Visitor
from agp_agent.caller import Caller
from agp_agent.errors import Unauthorized
from agp_agent.tailnet import Tailnet, Whois
from agp_agent.tally import Tally
from agp_agent.tokens import fingerprint

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered without a token; they reveal nothing but a status."""

DOCS_PATH: Final = "/docs"
"""A page for browsers, which cannot send a bearer token by themselves: it may be a password there, of any user."""

_WHOIS_KEPT_S: Final = 30.0
_LOCAL: Final = "local"
_FOR_BROWSERS: Final = {"WWW-Authenticate": 'Basic realm="agp-agent: the token is the password"'}
_UNAUTHORIZED: Final = "The bearer token is missing or invalid."


class Guard:
    """ASGI middleware that lets only requests with a right token through, where a tailnet is asked, of right peers."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Callable[[], tuple[bytes, ...]],
        failures: Tally,
        tailnet: Tailnet | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``tokens`` returns the tokens that are right now; without ``tailnet`` a right token is enough.

        Whoever failed too often has its connection closed.
        """
        self._app = app
        self._tokens = tokens
        self._failures = failures
        self._tailnet = tailnet
        self._now_s = now_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        caller = Caller(peer_of(scope))
        wrong: str | None = "token"
        visitor: Visitor = scope.get(VISITOR) or Visitor()
        if (token := self._right_token(_token_of(scope))) is not None:
            caller, wrong = await self._identify(visitor, scope, token)
        visitor.trusted = wrong is None
        if wrong is None:
            await self._app({**scope, CALLER: caller}, receive, send)
        else:
            await self._refuse(scope, receive, send, caller, wrong)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, caller: Caller, wrong: str) -> None:
        """One answer, whatever was wrong."""
        more = {name: value for name, value in caller.facts.items() if name != "peer"}
        close = self._failures.add(caller.peer, path=scope["path"][:256], wrong=wrong, **more)
        challenge = _FOR_BROWSERS if scope["path"] == DOCS_PATH else Unauthorized.headers
        headers = challenge | ({"Connection": "close"} if close else {})
        await JSONResponse({"detail": _UNAUTHORIZED}, Unauthorized.status, headers)(scope, receive, send)

    async def _identify(self, visitor: Visitor, scope: Scope, token: bytes) -> tuple[Caller, str | None]:
        """Who showed a right token, and why it may not come in all the same."""
        peer, shown = peer_of(scope), fingerprint(token)
        if visitor.is_local:  # no peer of the tailnet: only who may read the agent's state comes by that way
            return Caller(_LOCAL, shown), None
        if self._tailnet is None:
            return Caller(peer, shown), None
        found = await self._whois(self._tailnet, visitor, scope)
        if found.node is None:
            return Caller(peer, shown), f"peer: {found.refused}"
        caller = Caller(peer, shown, found.node.name, found.node.tags)
        return caller, found.refused and f"peer: {found.refused}"

    async def _whois(self, tailnet: Tailnet, visitor: Visitor, scope: Scope) -> Whois:
        now_s = self._now_s()
        if visitor.whois is not None and visitor.whois.refused is None and now_s - visitor.asked_s < _WHOIS_KEPT_S:
            return visitor.whois
        visitor.whois = await tailnet.whois(*(scope.get("client") or ("unknown", 0)))
        visitor.asked_s = now_s
        return visitor.whois

    def _right_token(self, presented: bytes) -> bytes | None:
        """Compare with every token, in a time that does not tell which one came near."""
        right = None
        for token in self._tokens():
            if hmac.compare_digest(token, presented):
                right = token
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
    if scheme.lower() == b"basic" and scope["path"] == DOCS_PATH:
        return _password_of(token.strip())
    return token.strip() if scheme.lower() == b"bearer" else b""


def _password_of(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""
