"""Who a peer is on the tailnet: what tailscaled says decides, and whatever goes wrong keeps the peer out."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agp_agent.tailnet import Node, Tailnet, Whois
from support.tailscaled_stub import TailscaledStub, node

DASHBOARD = Node("dash.example.ts.net", "nKpbP5gfWJ11CNTRL", ("tag:dashboard", "tag:eu"))


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[TailscaledStub]:
    """A tailscaled that knows one node with two tags, and one with none."""
    made = TailscaledStub(tmp_path / "tailscaled.sock")
    made.peers["100.64.0.5"] = node("dash.example.ts.net", "tag:dashboard", "tag:eu")
    made.peers["100.64.0.6"] = node("laptop.example.ts.net", stable_id="nOtherCNTRL")
    with made.serving():
        yield made


@pytest.fixture
async def tailnet(stub: TailscaledStub) -> AsyncIterator[Tailnet]:
    """What is tested: it lets the tag in."""
    made = Tailnet(stub.path, ["tag:dashboard"])
    yield made
    await made.aclose()
    await made.aclose()


async def asked(stub: TailscaledStub, host: str, *allowed: str) -> Whois:
    """Ask once, with this allowed."""
    made = Tailnet(stub.path, allowed)
    try:
        return await made.whois(host, 40000)
    finally:
        await made.aclose()


@pytest.mark.parametrize(
    "one", ["tag:dashboard", "tag:eu", "dash.example.ts.net", "Dash.Example.TS.net", "nKpbP5gfWJ11CNTRL"]
)
async def test_a_node_comes_in_by_its_tag_its_full_name_or_its_stable_id(stub: TailscaledStub, one: str) -> None:
    """One of several that are allowed is enough."""
    assert await asked(stub, "100.64.0.5", "tag:other", one) == Whois(DASHBOARD, None)


@pytest.mark.parametrize(
    "one", ["tag:dash", "tag:dashboard2", "dash", "told-by-itself", "example.ts.net", "5", "100.64.0.5"]
)
async def test_nothing_else_lets_a_node_in(stub: TailscaledStub, one: str) -> None:
    """Least of all what it tells of itself."""
    assert await asked(stub, "100.64.0.5", one) == Whois(DASHBOARD, "its node is not among AGP_TAILSCALE_ALLOW")


async def test_a_node_without_tags_is_refused_by_name(tailnet: Tailnet) -> None:
    """Who it is, is known all the same."""
    found = await tailnet.whois("100.64.0.6", 1)
    assert found.node == Node("laptop.example.ts.net", "nOtherCNTRL", ())
    assert found.refused == "its node is not among AGP_TAILSCALE_ALLOW"


async def test_a_peer_that_is_no_node_is_refused(tailnet: Tailnet) -> None:
    """A host on the same wire with a route, or this machine itself."""
    assert await tailnet.whois("192.168.1.7", 1) == Whois(None, "it is no node of the tailnet")


async def test_address_and_port_are_asked_for(tailnet: Tailnet, stub: TailscaledStub) -> None:
    """Behind a userspace tailscaled only the port tells peers apart; IPv6 has its brackets."""
    stub.peers["127.0.0.1:41001"] = stub.peers["100.64.0.5"]
    stub.peers["[fd7a:115c:a1e0::5]:7"] = stub.peers["100.64.0.5"]
    assert (await tailnet.whois("127.0.0.1", 41001)).refused is None
    assert (await tailnet.whois("127.0.0.1", 41002)).refused is not None
    assert (await tailnet.whois("fd7a:115c:a1e0::5", 7)).refused is None
    assert stub.asked == ["127.0.0.1:41001", "127.0.0.1:41002", "[fd7a:115c:a1e0::5]:7"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"Node":null}',
        b'{"Node":{"Name":"x."}}',
        b'{"Node":{"Name":"","StableID":"n","Tags":["tag:dashboard"]}}',
        b'{"Node":{"Name":"x.","StableID":"n","Tags":[5]}}',
        b'{"Node":{"Name":"x.","StableID":"n","Tags":{"tag:dashboard":1}}}' * 2,
        b"[" * 100_000,
        json.dumps(node("dash.example.ts.net", "tag:dashboard") | {"CapMap": {"x": "y" * 2**20}}).encode(),
    ],
    ids=range(11),
)
async def test_an_answer_that_cannot_be_read_keeps_the_peer_out(
    tailnet: Tailnet, stub: TailscaledStub, body: bytes
) -> None:
    """Also one that is right, and longer than any should be."""
    stub.raw = 200, body
    assert await tailnet.whois("100.64.0.5", 1) == Whois(None, "tailscaled gave an answer that cannot be read")


@pytest.mark.parametrize("status", [302, 403, 500])
async def test_another_status_keeps_the_peer_out(tailnet: Tailnet, stub: TailscaledStub, status: int) -> None:
    """Whatever its body is."""
    stub.raw = status, json.dumps(stub.peers["100.64.0.5"]).encode()
    why = f"tailscaled cannot be asked at {stub.path}: HTTPError: it answered {status}"
    assert await tailnet.whois("100.64.0.5", 1) == Whois(None, why)


async def test_a_tailscaled_that_hangs_keeps_the_peer_out(
    tailnet: Tailnet, stub: TailscaledStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for longer than a moment."""
    monkeypatch.setattr("agp_agent.tailnet._DEADLINE_S", 0.1)
    stub.hanging.set()
    assert await tailnet.whois("100.64.0.5", 1) == Whois(None, "tailscaled did not answer within 0.1 s")


async def test_a_tailscaled_that_cannot_be_asked_is_news(stub: TailscaledStub) -> None:
    """For it keeps everybody out; one that answers is news too, whoever it answers for."""
    news: list[str | None] = []
    made = Tailnet(stub.path, ["tag:dashboard"], news.append)
    stub.raw = 500, b""
    await made.whois("100.64.0.5", 1)
    stub.raw = None
    for host in ("100.64.0.5", "100.64.0.6", "192.168.1.7"):
        await made.whois(host, 1)
    assert [problem is None for problem in news] == [False, True, True, True]
    await made.aclose()


async def test_a_tailscaled_that_is_not_there_keeps_the_peer_out(tmp_path: Path) -> None:
    """Until it is: it may come later than the agent."""
    made, stub = Tailnet(tmp_path / "later.sock", ["tag:dashboard"]), TailscaledStub(tmp_path / "later.sock")
    stub.peers["100.64.0.5"] = node("dash.example.ts.net", "tag:dashboard")
    found = await made.whois("100.64.0.5", 1)
    assert found.node is None
    assert found.refused is not None
    assert found.refused.startswith(f"tailscaled cannot be asked at {tmp_path}/later.sock: ConnectError")
    with stub.serving():
        assert (await made.whois("100.64.0.5", 1)).refused is None
        await made.aclose()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("Running", None),
        ("NeedsLogin", "its key has expired; log it in with `tailscale up`"),
        ("Stopped", "tailscaled is stopped"),
        ("Starting", "tailscaled is not up: Starting"),
    ],
)
async def test_whether_this_machine_is_in_the_tailnet_is_news(
    stub: TailscaledStub, state: str, said: str | None
) -> None:
    """Without anybody's asking; an answer about a peer does not hide it."""
    stub.state = state
    news: asyncio.Queue[str | None] = asyncio.Queue()
    made = Tailnet(stub.path, ["tag:dashboard"], news.put_nowait)
    looking = asyncio.create_task(made.run())
    first = await news.get()
    assert (first is None) if said is None else (said in (first or ""))
    assert (await made.whois("100.64.0.5", 1)).refused is None
    assert await news.get() == first
    looking.cancel()
    await made.aclose()
