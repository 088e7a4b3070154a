"""The guard before every route."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from agp_agent.api.guard import Guard, peer_of
from agp_agent.audit import Audit, AuditEvent
from agp_agent.tally import Tally

TOKENS = (b"t0ken-of-the-tests-1", "t0ken-öf-the-tests".encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the audit trail is."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def audit(path: Path) -> AsyncIterator[Audit]:
    """An audit trail."""
    opened = Audit(path)
    yield opened
    await opened.aclose()


# --- the middleware ----------------------------------------------------------------------------------------------


class App:
    """The application behind the guard: it notes that it was reached."""

    def __init__(self) -> None:
        """Nobody came yet."""
        self.reached = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200."""
        del scope, receive
        self.reached += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def no_body() -> Any:
    """Refuse to give the body: nothing may ask for it before the token was found right."""
    pytest.fail("the body was read")


async def ask(
    audit: Audit, *authorization: bytes, route: str = "/execute_task", kind: str = "http"
) -> tuple[int, dict[str, str], bytes, int]:
    """Send one request through a guard; return status, headers, body, and how often the application was reached."""
    sent: list[dict[str, Any]] = []
    app = App()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "path": route,
        "method": "POST",
        "headers": [(b"authorization", value) for value in authorization],
        "client": ("10.0.0.1", 1234),
    }
    await Guard(app, lambda: TOKENS, Tally(audit, AuditEvent.AUTH_FAILED))(scope, no_body, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent), app.reached


@pytest.mark.parametrize(
    "authorization",
    [
        b"Bearer t0ken-of-the-tests-1",
        b"bearer t0ken-of-the-tests-1",
        b"BEARER   t0ken-of-the-tests-1 ",
        "Bearer t0ken-öf-the-tests".encode(),
    ],
)
async def test_a_right_token_passes(audit: Audit, authorization: bytes) -> None:
    """Each of the valid ones; the scheme in any case."""
    assert (await ask(audit, authorization))[0] == 200


@pytest.mark.parametrize(
    "authorization",
    [
        (),
        (b"",),
        (b"Bearer",),
        (b"Bearer ",),
        (b"Bearer wrong",),
        (b"Bearer t0ken-of-the-tests-",),
        (b"Bearer t0ken-of-the-tests-11",),
        (b"Basic t0ken-of-the-tests-1",),
        (b"t0ken-of-the-tests-1",),
        (b"Bearer \xff\xfe",),
        (b"Bearer " + b"x" * 2**20,),
        (b"Bearer t0ken-of-the-tests-1", b"Bearer t0ken-of-the-tests-1"),
    ],
)
async def test_every_wrong_token_gets_the_same_401(audit: Audit, authorization: tuple[bytes, ...]) -> None:
    """Missing, malformed, wrong or twice; nothing behind the guard is reached, and the body stays unread."""
    status, headers, body, reached = await ask(audit, *authorization)
    assert (status, reached) == (401, 0)
    assert headers["www-authenticate"] == "Bearer"
    assert json.loads(body) == {"detail": "The bearer token is missing or invalid."}


@pytest.mark.parametrize("route", ["/healthz", "/readyz"])
async def test_the_probes_need_no_token(audit: Audit, route: str) -> None:
    """Kubernetes has none."""
    assert (await ask(audit, route=route))[0] == 200


@pytest.mark.parametrize("route", ["/healthz/", "//healthz", "/healthz/../execute_task", "/HEALTHZ", "/metrics", "/"])
async def test_everything_else_does(audit: Audit, route: str) -> None:
    """Also what only looks like a probe, and what does not exist."""
    assert (await ask(audit, route=route))[0] == 401


async def test_a_browser_shows_the_token_as_a_password_and_only_for_the_page(audit: Audit) -> None:
    """Of any user; what is no base64, or has no right password, is asked for it again."""
    right = b"Basic " + base64.b64encode(b"me:" + TOKENS[0])
    assert (await ask(audit, right, route="/docs"))[3] == 1
    assert (await ask(audit, b"Bearer " + TOKENS[0], route="/docs"))[3] == 1
    assert (await ask(audit, right, route="/status"))[0] == 401
    for wrong in (
        b"Basic " + base64.b64encode(b"me:wrong"),
        b"Basic " + base64.b64encode(TOKENS[0]),
        b"Basic ~~~",
        b"Basic",
    ):
        status, headers, body, reached = await ask(audit, wrong, route="/docs")
        assert (status, reached, headers["www-authenticate"].startswith("Basic ")) == (401, 0, True)
        assert TOKENS[0] not in body


async def test_what_is_no_request_passes(audit: Audit) -> None:
    """The server's start and end go through the guard too."""
    assert (await ask(audit, kind="lifespan"))[3] == 1


async def test_too_many_failures_close_the_connection(audit: Audit) -> None:
    """With the same answer."""
    app, failures, closed = App(), Tally(audit, AuditEvent.AUTH_FAILED), list[bool]()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            closed.append((b"connection", b"close") in message["headers"])

    guard = Guard(app, lambda: TOKENS, failures)
    for _ in range(12):
        await guard({"type": "http", "path": "/x", "headers": [], "client": ("10.0.0.1", 1)}, no_body, send)
    assert closed == [False] * 10 + [True] * 2


def test_a_peer_without_an_address_is_unknown() -> None:
    """Behind a Unix socket."""
    assert peer_of({"type": "http", "client": None}) == "unknown"
    assert peer_of({"type": "http"}) == "unknown"
    assert peer_of({"type": "http", "client": ("::1", 5)}) == "::1"
