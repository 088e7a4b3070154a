"""Who may see the page: whoever opened the link that the terminal shows, once, and has the cookie that it left."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from fastapi import Request
from fastapi.responses import Response

from agp_agent.errors import Unauthorized

_SESSIONS_MAX: Final = 100


class Access:
    """One link at a time, and the cookies of those that were used."""

    def __init__(self, key: str, on_used: Callable[[str], object]) -> None:
        """``key`` is the first link's; ``on_used`` is told the next one's whenever one was used."""
        self._key = key
        self._on_used = on_used
        self._sessions: list[bytes] = []  # their hashes: how soon one differs tells nothing of it
        # Browsers send cookies to every port of a host: two dashboards must not take each other's name.
        self._cookie = f"agp_dashboard_{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def enter(self, request: Request, response: Response) -> bool:
        """Let in who comes by the link, with a cookie; the link works no second time."""
        given = request.query_params.get("key")
        if given is None or not hmac.compare_digest(given.encode(), self._key.encode()):
            return False
        session, self._key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._sessions = [*self._sessions[1 - _SESSIONS_MAX :], _hash(session)]
        response.set_cookie(self._cookie, session, path="/", httponly=True, samesite="strict")
        self._on_used(self._key)
        return True

    def has_entered(self, request: Request) -> bool:
        """Whether it comes with the cookie of a link."""
        return _hash(request.cookies.get(self._cookie, "")) in self._sessions

    def check(self, request: Request) -> None:
        """Raise ``Unauthorized`` where it does not, or where another page of this machine sends it along.

        To a browser that other page is of the same site, whatever its port: the cookie alone would not tell.
        """
        is_ours = request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
        if not (is_ours and self.has_entered(request)):
            raise Unauthorized("Open the link that the dashboard printed in its terminal when it started.")


def _hash(session: str) -> bytes:
    return hashlib.sha256(session.encode()).digest()
