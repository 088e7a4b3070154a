"""Who reaches the agent on a real tailnet, and whom its real tailscaled vouches for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agp_agent.tailnet import Tailnet
from support.agent_process import AgentProcess
from support.asking import asked_by
from support.tailscaled_stub import TailscaledStub, node
from tailnet.conftest import RealTailnet

pytestmark = pytest.mark.tailnet


@pytest.fixture(autouse=True)
def _route_from_outside(tailnet: RealTailnet) -> Iterator[None]:
    """The machine outside sends what is for the agent's tailnet address over the wire."""
    tailnet.outside.run("ip", "route", "add", tailnet.agent_ip, "via", tailnet.agent_wire_ip)
    yield
    tailnet.outside.run("ip", "route", "delete", tailnet.agent_ip)


@contextmanager
def agent_on(tailnet: RealTailnet, folder: Path, **settings: object) -> Iterator[AgentProcess]:
    """An agent on its machine, at its tailnet address; whether its engine is there does not matter."""
    made = AgentProcess(
        folder,
        "http://dashboard.invalid",
        "a-token-of-the-dashboard",
        {"AGP_HOST": tailnet.agent_ip, "AGP_PORT": 8470, **settings},  # the port that the tailnet's policy opens
        wrapper=tailnet.agent.inside,
        ready=False,
    )
    with made:
        yield made


def test_the_address_alone_lets_in_who_has_a_route(tailnet: RealTailnet, tmp_path: Path) -> None:
    """Control for what follows: a right token comes in from outside the tailnet, over the wire."""
    with agent_on(tailnet, tmp_path) as agent:
        assert asked_by(tailnet.dashboard, agent, tailnet.agent_ip) == "200"
        assert asked_by(tailnet.outside, agent, tailnet.agent_ip) == "200"


def test_the_device_keeps_out_who_is_not_on_the_tailnet(tailnet: RealTailnet, tmp_path: Path) -> None:
    """The dashboard still comes in."""
    with agent_on(tailnet, tmp_path, AGP_INTERFACE="tailscale0") as agent:
        assert asked_by(tailnet.dashboard, agent, tailnet.agent_ip) == "200"
        assert asked_by(tailnet.outside, agent, tailnet.agent_ip) == "ConnectionRefusedError"


def test_whom_tailscaled_does_not_vouch_for_is_kept_out(tailnet: RealTailnet, tmp_path: Path) -> None:
    """Also without the device; the intruder does not even get through the tailnet's own policy."""
    peers = {"AGP_TAILSCALE_SOCKET": tailnet.socket, "AGP_TAILSCALE_ALLOW": "tag:dashboard"}
    with agent_on(tailnet, tmp_path, **peers) as agent:
        assert asked_by(tailnet.dashboard, agent, tailnet.agent_ip) == "200"
        assert asked_by(tailnet.outside, agent, tailnet.agent_ip) == "401"
        assert asked_by(tailnet.intruder, agent, tailnet.agent_ip) in {"TimeoutError", "OSError"}
        refused = agent.wait_audited("auth failed")
        assert refused["wrong"] == "peer: it is no node of the tailnet"


def test_a_node_with_another_tag_is_kept_out_by_name(tailnet: RealTailnet, tmp_path: Path) -> None:
    """The trail names it."""
    peers = {"AGP_TAILSCALE_SOCKET": tailnet.socket, "AGP_TAILSCALE_ALLOW": "tag:somebody-else"}
    with agent_on(tailnet, tmp_path, **peers) as agent:
        assert asked_by(tailnet.dashboard, agent, tailnet.agent_ip) == "401"
        refused = agent.wait_audited("auth failed", peer=tailnet.dashboard_ip)
        assert refused["tags"] == ["tag:dashboard"]
        assert refused["node"].startswith("dashboard.")


async def test_the_stub_of_the_other_suites_answers_like_the_real_one(tailnet: RealTailnet, tmp_path: Path) -> None:
    """Statuses and sentences to right and wrong questions, and the fields of a node that anybody here looks at."""
    stub = TailscaledStub(tmp_path / "stub.sock")
    stub.peers[tailnet.dashboard_ip] = node("dashboard.tailnet.test", "tag:dashboard", stable_id="2")
    whois, host = "/localapi/v0/whois", "local-tailscaled.sock"
    questions = [
        (host, f"{whois}?addr=192.0.2.1:1&proto=tcp"),
        ("localhost", f"{whois}?addr={tailnet.dashboard_ip}:1&proto=tcp"),
        (host, f"{whois}?proto=tcp"),
        (host, "/localapi/v0/nothing"),
    ]
    with stub.serving():
        for name, target in questions:
            real, faked = [await _ask(path, name, target) for path in (tailnet.socket, stub.path)]
            assert (real.status_code, real.text) == (faked.status_code, faked.text), target
        target = f"{whois}?addr={tailnet.dashboard_ip}:1&proto=tcp"
        real, faked = [await _ask(path, host, target) for path in (tailnet.socket, stub.path)]
        assert set(json.loads(faked.text)) <= set(json.loads(real.text))
        assert set(json.loads(faked.text)["Node"]) <= set(json.loads(real.text)["Node"])
        for path in (tailnet.socket, stub.path):
            asked = Tailnet(path, ["tag:dashboard"])
            found = await asked.whois(tailnet.dashboard_ip, 1)
            assert (found.refused, found.node and found.node.tags) == (None, ("tag:dashboard",))
            await asked.aclose()


async def _ask(path: Path, host: str, target: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
        return await client.get(f"http://{host}{target}")
