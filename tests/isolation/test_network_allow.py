"""What a runner's ``allow`` opens, and what stays shut beside it."""

import docker
import pytest

from isolation.network_tries import (
    FENCED,
    OPEN,
    OTHER,
    REACHED,
    Plain,
    StartAgent,
    address_of,
    runners,
    trying,
    verdicts,
)
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.elsewhere import HERE, METADATA, PRIVATE, PRIVATE_TOO, PUBLIC, SHARED, Elsewhere, listening_here

pytest_plugins = ("isolation.network_world",)

TARGETS = {
    "private": (PRIVATE, OPEN),
    "private-other": (PRIVATE, OTHER),
    "private-too": (PRIVATE_TOO, OPEN),
    "private-too-other": (PRIVATE_TOO, OTHER),
    "shared": (SHARED, OPEN),
    "metadata": (METADATA, OPEN),
}
HOST_PORT = 8091
EVERYTHING = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]


@pytest.fixture(scope="module")
def agent(start_agent: StartAgent, elsewhere: Elsewhere) -> AgentProcess:
    """An agent with a runner for every kind of destination."""
    del elsewhere
    return start_agent(
        runners(
            port={"allow": [f"{PRIVATE}:{OPEN}"]},
            address={"allow": [PRIVATE]},
            network={"allow": ["10.213.7.0/24"]},
            both={"allow": [f"10.213.7.0/24:{OTHER}", SHARED]},
            host={"allow": [f"{HERE}:{HOST_PORT}"]},
            wide={"allow": EVERYTHING},
        )
    )


@pytest.mark.parametrize(
    ("runner", "opened"),
    [
        ("port", {"private"}),
        ("address", {"private", "private-other"}),
        ("network", {"private", "private-other", "private-too", "private-too-other"}),
        ("both", {"private-other", "private-too-other", "shared"}),
    ],
)
def test_what_is_named_is_open_and_nothing_beside_it(
    agent: AgentProcess, dashboard: DashboardStub, runner: str, opened: set[str]
) -> None:
    """The right port is open and the other one closed; an address is open and its neighbour closed."""
    agent.accept_task(f"try {runner}", trying(TARGETS), f"try.{runner}")
    result = dashboard.result(f"try {runner}")
    assert verdicts(result["output"]) == {name: REACHED if name in opened else FENCED for name in TARGETS}, result


def test_the_very_node_can_be_opened_by_name(agent: AgentProcess, dashboard: DashboardStub, plain: Plain) -> None:
    """On one port of one of its addresses: how a playbook manages the machine that the agent runs on, by SSH."""
    targets = {"named": (HERE, HOST_PORT), "other": (HERE, HOST_PORT + 1)}
    with listening_here(HERE, HOST_PORT), listening_here(HERE, HOST_PORT + 1):
        agent.accept_task("node", trying(targets), "node.host")
        assert verdicts(dashboard.result("node")["output"]) == {"named": REACHED, "other": FENCED}
        assert verdicts(plain.run(trying(targets))) == dict.fromkeys(targets, REACHED)


def test_datagrams_to_what_is_named_arrive_and_are_answered(
    agent: AgentProcess, dashboard: DashboardStub, elsewhere: Elsewhere
) -> None:
    """UDP is opened as TCP is."""
    elsewhere.receive(PRIVATE, OPEN, lambda data: b"echo " + data)
    agent.accept_task("udp", f"echo hello | nc -n -u -w 2 {PRIVATE} {OPEN}\n", "udp.port")
    assert dashboard.result("udp")["output"] == "echo hello\n"


def test_no_allow_opens_the_way_to_another_task(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient
) -> None:
    """Not even one that names every private network; what it names is open all the same, metadata included."""
    agent.accept_task("neighbour", "nc -n -l -k 0.0.0.0 8099 & echo listening; sleep 120\n", "listen.wide")
    neighbour = agent.container_of("neighbour")
    agent.engine.wait_printed(neighbour, b"listening")
    targets = {"neighbour": (address_of(client, neighbour), 8099), "metadata": (METADATA, OPEN)}
    agent.accept_task("wide", trying(targets), "try.wide")
    assert verdicts(dashboard.result("wide")["output"]) == {"neighbour": FENCED, "metadata": REACHED}
    agent.cancel("neighbour")
    dashboard.result("neighbour")


def test_public_addresses_can_be_shut_by_the_settings(start_agent: StartAgent, dashboard: DashboardStub) -> None:
    """For addresses of the host that the agent cannot see; a runner's allow opens them again."""
    catalog = runners(denied={}, named={"allow": [f"{PUBLIC}:{OPEN}"]})
    agent = start_agent(catalog, {"AGP_OUTBOUND_DENY": f"192.0.2.99, {PUBLIC}/32"})
    targets = {"port": (PUBLIC, OPEN), "other": (PUBLIC, OTHER)}
    agent.accept_task("denied", trying(targets), "try.denied")
    agent.accept_task("named", trying(targets), "try.named")
    assert verdicts(dashboard.result("denied")["output"]) == {"port": FENCED, "other": FENCED}
    assert verdicts(dashboard.result("named")["output"]) == {"port": REACHED, "other": FENCED}
