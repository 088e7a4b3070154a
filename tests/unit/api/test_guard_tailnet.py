"""The guard where a tailscaled is asked: the token first, then the peer, and one answer for both."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent.api.guard import Guard
from agp_agent.api.visitor import CALLER, VISITOR, Visitor
from agp_agent.audit import Audit, AuditEvent
from agp_agent.caller import Caller
from agp_agent.tailnet import Tailnet
from agp_agent.tally import Tally
from agp_agent.tokens import fingerprint
from support.tailscaled_stub import TailscaledStub, node

TOKEN = b"t0ken-of-the-tests-1"
PEER = ("100.64.0.5", 40000)


class Clock:
    """A monotonic clock that tests set."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Return the time it is set to."""
        return self.now_s


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[TailscaledStub]:
    """A tailscaled that knows the dashboard's node."""
    made = TailscaledStub(tmp_path / "tailscaled.sock")
    made.peers[PEER[0]] = node("dash.example.ts.net", "tag:dashboard")
    with made.serving():
        yield made


class Guarded:
    """A guard, what came through it, and what it answered."""

    def __init__(self, audit: Audit, tailnet: Tailnet) -> None:
        """Nobody came yet."""
        self.clock = Clock()
        self.callers: list[Caller] = []
        self._guard = Guard(
            self._app, lambda: (TOKEN,), Tally(audit, AuditEvent.AUTH_FAILED, self.clock), tailnet, self.clock
        )

    async def _app(self, scope: Any, _receive: Any, send: Any) -> None:
        self.callers.append(scope[CALLER])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, token: bytes = TOKEN, visitor: Visitor | None = None) -> tuple[int, list[Any]]:
        """Send one request over a connection; return status and headers."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"authorization", b"Bearer " + token)]
        scope = {"type": "http", "path": "/x", "headers": headers, "client": PEER, VISITOR: visitor or Visitor()}
        await self._guard(scope, None, send)  # type: ignore[arg-type]
        return sent[0]["status"], sent[0]["headers"]


@pytest.fixture
async def guarded(stub: TailscaledStub, tmp_path: Path) -> AsyncIterator[Guarded]:
    """What is tested; the audit trail is beside it."""
    audit, tailnet = Audit(tmp_path / "audit.jsonl"), Tailnet(stub.path, ["tag:dashboard"])
    yield Guarded(audit, tailnet)
    await tailnet.aclose()
    await audit.aclose()


async def audited(guarded: Guarded, tmp_path: Path) -> list[dict[str, Any]]:
    """Return what the guard has recorded."""
    await guarded._guard._failures._audit.flush()
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


async def test_a_right_token_of_a_right_node_comes_in_with_its_name(guarded: Guarded) -> None:
    """Whoever is let in is known by token, node and tags from then on."""
    visitor = Visitor()
    assert (await guarded.ask(visitor=visitor))[0] == 200
    assert guarded.callers == [Caller(PEER[0], fingerprint(TOKEN), "dash.example.ts.net", ("tag:dashboard",))]
    assert visitor.trusted


@pytest.mark.parametrize("known", [False, True], ids=["no node", "another node"])
async def test_a_right_token_of_a_wrong_peer_gets_the_answer_of_a_wrong_token(
    guarded: Guarded, stub: TailscaledStub, tmp_path: Path, *, known: bool
) -> None:
    """The trail says what was wrong, and who it was."""
    stub.peers = {PEER[0]: node("laptop.example.ts.net", "tag:laptop")} if known else {}
    visitor = Visitor()
    refused = await guarded.ask(visitor=visitor)
    assert refused == await guarded.ask(b"wrong")
    assert refused[0] == 401
    assert (guarded.callers, visitor.trusted) == ([], False)
    peer, token = await audited(guarded, tmp_path)
    assert (token["wrong"], "token_fingerprint" in token) == ("token", False)
    assert (peer["event"], peer["peer"], peer["token_fingerprint"]) == ("auth failed", PEER[0], fingerprint(TOKEN))
    if known:
        assert peer["wrong"] == "peer: its node is not among AGP_TAILSCALE_ALLOW"
        assert (peer["node"], peer["tags"]) == ("laptop.example.ts.net", ["tag:laptop"])
    else:
        assert peer["wrong"] == "peer: it is no node of the tailnet"


async def test_a_right_node_needs_the_token_all_the_same(guarded: Guarded, stub: TailscaledStub) -> None:
    """Nobody is asked about who has none."""
    assert (await guarded.ask(b"wrong"))[0] == 401
    assert stub.asked == []


async def test_who_comes_by_the_socket_in_the_state_directory_is_no_peer(
    guarded: Guarded, stub: TailscaledStub
) -> None:
    """Only who may read the agent's state can; the token is needed all the same, and tailscaled is not asked."""
    stub.peers = {}
    assert (await guarded.ask(visitor=Visitor(is_local=True)))[0] == 200
    assert (await guarded.ask(b"wrong", visitor=Visitor(is_local=True)))[0] == 401
    assert guarded.callers == [Caller("local", fingerprint(TOKEN))]
    assert stub.asked == []


async def test_of_one_connection_tailscaled_is_asked_every_30_seconds(guarded: Guarded, stub: TailscaledStub) -> None:
    """And of each connection by itself: its port may have been another peer's a moment ago."""
    visitor = Visitor()
    for _ in range(3):
        await guarded.ask(visitor=visitor)
        guarded.clock.now_s += 9.9
    assert stub.asked == ["100.64.0.5:40000"]
    guarded.clock.now_s += 0.4
    stub.peers = {}
    assert (await guarded.ask(visitor=visitor))[0] == 401
    assert len(stub.asked) == 2
    await guarded.ask(visitor=Visitor())
    assert len(stub.asked) == 3


async def test_who_shows_a_wrong_token_later_is_a_stranger_again(guarded: Guarded) -> None:
    """Its connection is one of those that give way first."""
    visitor = Visitor()
    await guarded.ask(visitor=visitor)
    assert visitor.trusted
    await guarded.ask(b"wrong", visitor)
    assert not visitor.trusted


async def test_a_refusal_is_not_kept(guarded: Guarded, stub: TailscaledStub) -> None:
    """A tailscaled that was away lets its nodes in as soon as it is back."""
    visitor = Visitor()
    stub.raw = 500, b""
    assert (await guarded.ask(visitor=visitor))[0] == 401
    stub.raw = None
    assert (await guarded.ask(visitor=visitor))[0] == 200
