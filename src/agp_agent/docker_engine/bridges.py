"""The agent's own bridge network: made where it is missing, and read back every time. Calls block."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from docker import APIClient
from docker.errors import NotFound

from agp_agent.docker_engine.translate import Json
from agp_agent.engine import Bridge
from agp_agent.errors import LockdownRefused

_OPTION: Final = "com.docker.network.bridge."
_OPTIONS: Final = {f"{_OPTION}enable_icc": "false", f"{_OPTION}enable_ip_masquerade": "true"}
_ASKED: Final[dict[str, Any]] = {
    "Driver": "bridge",
    "Internal": False,
    "EnableIPv6": False,
    "Attachable": False,
    "Ingress": False,
}
_UNKNOWN_OPTIONS: Final = (f"{_OPTION}name", f"{_OPTION}gateway_mode_ipv4", f"{_OPTION}inhibit_ipv4")
"""Each can make another thing of a bridge, such as the host's own: never asked for, so never there."""


def ensure_bridge(client: APIClient, name: str, labels: Mapping[str, str]) -> Bridge:
    """Find or make it, and compare."""
    try:
        inspected = client.inspect_network(name)
    except NotFound:
        client.create_network(
            name,
            driver=_ASKED["Driver"],
            options=dict(_OPTIONS),
            labels=dict(labels),
            check_duplicate=True,
            internal=_ASKED["Internal"],
            enable_ipv6=_ASKED["EnableIPv6"],
            attachable=_ASKED["Attachable"],
        )
        inspected = client.inspect_network(name)
    return checked(name, labels, inspected)


def remove_bridge(client: APIClient, name: str) -> None:
    """Remove it, if it is there."""
    with suppress(NotFound):
        client.remove_network(name)


def checked(name: str, labels: Mapping[str, str], inspected: Json) -> Bridge:
    """The bridge that inspect tells of. Raises ``LockdownRefused`` where it is not the agent's own, or is weaker."""
    wrong = list(_differences(labels, inspected))
    addresses = _addresses(inspected)
    if wrong or addresses is None:
        fields = ", ".join(wrong or ["IPAM"])
        raise LockdownRefused(
            f"the engine's network {name} is not the agent's own as it should be: it differs in {fields}; "
            f"remove it (docker network rm {name}), and the agent makes it anew"
        )
    return Bridge(name, *addresses)


def _differences(labels: Mapping[str, str], inspected: Json) -> Iterator[str]:
    options: Mapping[str, str] = inspected.get("Options") or {}
    if not labels.items() <= (inspected.get("Labels") or {}).items():
        yield "Labels"
    for field, value in _ASKED.items():
        if inspected.get(field, False) != value:
            yield field
    for option, wanted in {**_OPTIONS, **dict.fromkeys(_UNKNOWN_OPTIONS)}.items():
        if options.get(option) != wanted:
            yield f"Options.{option}"


def _addresses(inspected: Json) -> tuple[IPv4Network, IPv4Address] | None:
    """Its one subnet and its gateway; None where it has others."""
    configs: list[Json] = (inspected.get("IPAM") or {}).get("Config") or []
    if len(configs) != 1:
        return None
    try:
        return IPv4Network(str(configs[0].get("Subnet"))), IPv4Address(str(configs[0].get("Gateway")))
    except ValueError:
        return None
