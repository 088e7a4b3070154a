"""What the tailnet suite needs: a real tailnet whose nodes are in network namespaces, named in the environment."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.wires import Machine


@dataclass(frozen=True, slots=True)
class RealTailnet:
    """Four machines: the agent's, an allowed dashboard, a node that the policy lets nobody reach, and one outside."""

    agent: Machine
    dashboard: Machine
    intruder: Machine
    outside: Machine
    agent_ip: str
    dashboard_ip: str
    agent_wire_ip: str
    socket: Path


@pytest.fixture(scope="session")
def tailnet() -> RealTailnet:
    """The one that ``make test-tailnet`` names in the environment."""
    named = {name: value for name, value in os.environ.items() if name.startswith("TAILNET_")}
    assert "TAILNET_AGENT_NETNS" in named, "there is no tailnet: run `make test-tailnet`"
    return RealTailnet(
        agent=Machine(named["TAILNET_AGENT_NETNS"]),
        dashboard=Machine(named["TAILNET_DASHBOARD_NETNS"]),
        intruder=Machine(named["TAILNET_INTRUDER_NETNS"]),
        outside=Machine(named["TAILNET_OUTSIDE_NETNS"]),
        agent_ip=named["TAILNET_AGENT_IP"],
        dashboard_ip=named["TAILNET_DASHBOARD_IP"],
        agent_wire_ip=named["TAILNET_AGENT_WIRE_IP"],
        socket=Path(named["TAILNET_AGENT_SOCK"]),
    )
