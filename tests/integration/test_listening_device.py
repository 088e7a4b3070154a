"""An agent listens on its device alone: a host on another wire with a route to its address does not reach it.

Linux answers for an address on every device. So binding to the tailnet's address keeps nobody out who is on the wire
that the tailnet's packets travel over, and has a route.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support.agent_process import AgentProcess
from support.asking import asked_by
from support.wires import Machine, connect, machines

TAILNET_IP: Final = "100.77.0.1"


@pytest.fixture
def wired() -> Iterator[tuple[Machine, Machine, Machine]]:
    """The agent's machine, one on its tailnet, and one outside that is on its wire and has a route to that address."""
    with machines("agent", "dashboard", "outside") as (agent, dashboard, outside):
        connect(agent, "tailnet0", f"{TAILNET_IP}/24", dashboard, "100.77.0.2/24")
        connect(agent, "eth0", "10.77.0.1/24", outside, "10.77.0.2/24")
        outside.run("ip", "route", "add", TAILNET_IP, "via", "10.77.0.1")
        yield agent, dashboard, outside


@contextmanager
def listening(folder: Path, machine: Machine, settings: dict[str, object]) -> Iterator[AgentProcess]:
    """An agent on this machine; whether its engine is there does not matter."""
    agent = AgentProcess(
        folder, "http://dashboard.invalid", "a-token-of-the-dashboard", settings, wrapper=machine.inside, ready=False
    )
    with agent:
        yield agent


def test_the_device_decides_and_not_the_address(wired: tuple[Machine, Machine, Machine], tmp_path: Path) -> None:
    """Control: by the address alone the outsider comes in. With AGP_INTERFACE only the tailnet does."""
    machine, dashboard, outside = wired
    with listening(tmp_path / "address", machine, {"AGP_HOST": TAILNET_IP}) as agent:
        assert asked_by(dashboard, agent, TAILNET_IP) == "200"
        assert asked_by(outside, agent, TAILNET_IP) == "200"
    device: dict[str, object] = {"AGP_HOST": TAILNET_IP, "AGP_INTERFACE": "tailnet0"}
    with listening(tmp_path / "device", machine, device) as agent:
        assert asked_by(dashboard, agent, TAILNET_IP) == "200"
        assert asked_by(outside, agent, TAILNET_IP) == "ConnectionRefusedError"
    everywhere: dict[str, object] = {"AGP_HOST": "0.0.0.0", "AGP_INTERFACE": "tailnet0"}  # noqa: S104
    with listening(tmp_path / "everywhere", machine, everywhere) as agent:
        assert asked_by(dashboard, agent, TAILNET_IP) == "200"
        assert asked_by(outside, agent, TAILNET_IP) == "ConnectionRefusedError"
        assert asked_by(outside, agent, "10.77.0.1") == "ConnectionRefusedError"
        assert asked_by(machine, agent, "127.0.0.1") == "ConnectionRefusedError"
