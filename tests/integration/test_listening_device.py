"""An agent listens on its device alone: a host on another wire with a route to its address does not reach it.

Linux answers for an address on every device. So binding to the tailnet's address keeps nobody out who is on the wire
that the tailnet's packets travel over, and has a route.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support.agent_process import COMMAND, AgentProcess
from support.asking import asked_by
from support.cli import command_line
from support.waiting import eventually
from support.wires import Machine, connect, machines

TAILNET_IP: Final = "100.77.0.1"
WAITS: Final = "nobody can come in: the network device or its address is not there; waiting for it"


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
        status = command_line(agent.environment)("status")  # by the socket in its state directory, from any network
        assert (status.returncode, status.stderr) == (0, "")
        wrong = command_line(agent.environment)("status", AGP_TOKEN="another-token-than-that")
        assert (wrong.returncode, wrong.stderr) == (1, "agp-agent: The bearer token is missing or invalid.\n")
    everywhere: dict[str, object] = {"AGP_HOST": "0.0.0.0", "AGP_INTERFACE": "tailnet0"}  # noqa: S104
    with listening(tmp_path / "everywhere", machine, everywhere) as agent:
        assert asked_by(dashboard, agent, TAILNET_IP) == "200"
        assert asked_by(outside, agent, TAILNET_IP) == "ConnectionRefusedError"
        assert asked_by(outside, agent, "10.77.0.1") == "ConnectionRefusedError"
        assert asked_by(machine, agent, "127.0.0.1") == "ConnectionRefusedError"


def test_a_device_that_comes_later_is_waited_for_and_followed(
    wired: tuple[Machine, Machine, Machine], tmp_path: Path
) -> None:
    """Not there at the start, there, gone, there again under another number: it says so, and listens each time."""
    machine, dashboard, _ = wired
    machine.run("ip", "link", "delete", "tailnet0")
    settings: dict[str, object] = {"AGP_HOST": TAILNET_IP, "AGP_INTERFACE": "tailnet0", "AGP_PORT": "8470"}
    agent = AgentProcess(
        tmp_path, "http://dashboard.invalid", "a-token-of-the-dashboard", settings, wrapper=machine.inside, ready=False
    )
    agent.launch()
    try:
        for times in (1, 2):
            eventually(lambda times=times: len(agent.log_lines(WAITS)) >= times, "it says that it waits")  # type: ignore[misc]
            connect(machine, "tailnet0", f"{TAILNET_IP}/24", dashboard, "100.77.0.2/24")
            agent.connect(ready=False)
            eventually(lambda: asked_by(dashboard, agent, TAILNET_IP) == "200", "the dashboard is let in")
            dashboard.run("ip", "link", "delete", "wire0")
        eventually(lambda: len(agent.log_lines(WAITS)) > times, "it says that it waits")
    finally:
        assert agent.close() == (0, [])


def test_the_health_check_reaches_an_agent_that_listens_on_a_device_alone(
    wired: tuple[Machine, Machine, Machine], tmp_path: Path
) -> None:
    """From its own machine nothing comes over the device: the check has a socket of its own, however deep."""
    machine, _, _ = wired
    device: dict[str, object] = {"AGP_HOST": TAILNET_IP, "AGP_INTERFACE": "tailnet0", "AGP_PORT": "8470"}
    with listening(tmp_path / ("deep" * 30), machine, device) as agent:
        check = [*machine.inside, COMMAND, "healthcheck"]

        def asked() -> tuple[int, str]:
            ended = subprocess.run(check, env=agent.environment, capture_output=True, text=True, check=False)
            return ended.returncode, ended.stdout + ended.stderr

        assert asked() == (0, "healthy\n")
        agent.kill()
        code, why = asked()
        assert (code, "health.sock: [Errno 111] Connection refused" in why) == (1, True)
        agent.start(ready=False)
        assert asked()[0] == 0
