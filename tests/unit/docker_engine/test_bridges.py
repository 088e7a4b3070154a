"""What counts as the agent's own bridge, in the words of a real engine."""

import copy
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from agp_agent.docker_engine import DockerEngine
from agp_agent.docker_engine.bridges import checked
from agp_agent.docker_engine.translate import Json
from agp_agent.engine import Bridge
from agp_agent.errors import LockdownRefused
from fakes.docker_api import Answer, DockerApi, answer

NAME = "agp-0123456789ab"
LABELS = {"agp.agent_id": "a", "agp.instance": "0123456789ab"}
ICC = "com.docker.network.bridge.enable_icc"
INSPECTED: Json = {
    "Name": NAME,
    "Id": "4e6210d719da1efbdbb38b49aa7688758d20a2c80f1efb066975dc39d6b5bd91",
    "Scope": "local",
    "Driver": "bridge",
    "EnableIPv6": False,
    "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]},
    "Internal": False,
    "Attachable": False,
    "Ingress": False,
    "ConfigOnly": False,
    "Containers": {},
    "Options": {ICC: "false", "com.docker.network.bridge.enable_ip_masquerade": "true"},
    "Labels": LABELS,
}
BRIDGE = Bridge(NAME, IPv4Network("172.20.0.0/16"), IPv4Address("172.20.0.1"))


def inspected(**changes: Any) -> Json:
    """The bridge as it should be, but for this; an option is named by its last part."""
    made = copy.deepcopy(INSPECTED)
    for field, value in changes.items():
        if field in made:
            made[field] = value
        else:
            made["Options"][f"com.docker.network.bridge.{field}"] = value
    return made


def test_the_bridge_as_it_was_made_is_the_agent_s() -> None:
    """With its addresses; a larger MTU from the engine's own defaults and more labels make no difference."""
    assert checked(NAME, LABELS, INSPECTED) == BRIDGE
    more = inspected(Labels=LABELS | {"com.example": "x"})
    more["Options"]["com.docker.network.driver.mtu"] = "1450"
    assert checked(NAME, LABELS, more) == BRIDGE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"Driver": "macvlan"}, "Driver"),
        ({"EnableIPv6": True}, "EnableIPv6"),
        ({"Attachable": True}, "Attachable"),
        ({"Labels": None}, "Labels"),
        ({"Labels": LABELS | {"agp.instance": "another"}}, "Labels"),
        ({"enable_icc": "true"}, "enable_icc"),
        ({"Options": None}, "enable_icc"),
        ({"name": "br0"}, "bridge.name"),
        ({"gateway_mode_ipv4": "routed"}, "gateway_mode_ipv4"),
        ({"IPAM": {"Config": []}}, "IPAM"),
        ({"IPAM": {"Config": [{"Subnet": "fd00::/64", "Gateway": "fd00::1"}]}}, "IPAM"),
        ({"IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}]}}, "IPAM"),
        ({"IPAM": {"Config": 2 * INSPECTED["IPAM"]["Config"]}}, "IPAM"),
    ],
)
def test_what_is_weaker_or_another_s_is_named(changes: dict[str, Any], field: str) -> None:
    """And the operator is told how to go on."""
    with pytest.raises(LockdownRefused, match=rf"differs in .*{field}.*; remove it \(docker network rm {NAME}\)"):
        checked(NAME, LABELS, inspected(**changes))


async def test_a_bridge_is_compared_after_it_was_made_too(api: DockerApi) -> None:
    """An engine that ignores an option is noticed at once."""
    made = inspected(enable_icc="true")
    missing = answer({"message": f"network {NAME} not found"}, 404)
    found = iter((missing, answer(made)))

    def look() -> Answer:
        return next(found)()

    api.routes[f"GET /networks/{NAME}"] = look
    api.routes["POST /networks/create"] = answer({"Id": made["Id"], "Warning": ""}, 201)
    engine = DockerEngine(api.url, timeout_s=5)
    with pytest.raises(LockdownRefused, match="enable_icc"):
        await engine.ensure_bridge(NAME, LABELS)
    await engine.aclose()
    assert "POST /networks/create" in api.requests
