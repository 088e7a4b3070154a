"""What happens to a tailnet, happens: its daemon restarts, its key expires, its control server is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.asking import asked_by
from support.cli import command_line
from support.dashboard_stub import DashboardStub
from support.network_thread import in_network
from support.waiting import eventually
from tailnet.conftest import RealTailnet
from tailnet.daemons import ControlServer
from tailnet.nodes import AgentNode, kernel_node, userspace_node

pytestmark = pytest.mark.tailnet

LOGGED_OUT = "nobody can be let in: tailscaled is not there, or not in the tailnet"
_SEND = """
import http.client, sys
host, token, body = sys.argv[1:]
connection = http.client.HTTPConnection(host, 8470, timeout=30)
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
connection.request("POST", "/execute_task", body, headers)
print(connection.getresponse().status)
"""


@pytest.fixture
def dashboard(tailnet: RealTailnet) -> Iterator[DashboardStub]:
    """On its own machine, at its address in the tailnet."""
    namespace = Path("/run/netns") / tailnet.dashboard.name
    with in_network(namespace, lambda: DashboardStub(host=tailnet.dashboard_ip)) as stub:
        yield stub


@pytest.fixture(params=[kernel_node, userspace_node], ids=["kernel", "userspace"])
def node(request: pytest.FixtureRequest, tailnet: RealTailnet) -> Iterator[AgentNode]:
    """The agent's: what happens to one kind happens to the other."""
    with request.param(tailnet) as made:
        yield made


@contextmanager
def agent_on(node: AgentNode, dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent on a node, that asks its tailscaled who a peer is; made but not started."""
    settings: dict[str, object] = {
        "AGP_PORT": 8470,
        "AGP_TAILSCALE_SOCKET": node.socket,
        "AGP_TAILSCALE_ALLOW": "tag:dashboard",
    }
    settings |= node.settings
    agent = AgentProcess(folder, dashboard.url, dashboard.token, settings, wrapper=node.wrapper, ready=False)
    try:
        yield agent
    finally:
        ended = agent.close()
    assert ended == (0, [])


@dataclass(frozen=True, slots=True)
class Journey:
    """From the dashboard's machine to the agent, and back."""

    tailnet: RealTailnet
    node: AgentNode
    agent: AgentProcess
    dashboard: DashboardStub

    def asked(self) -> str:
        """What the dashboard's machine gets."""
        return asked_by(self.tailnet.dashboard, self.agent, self.node.address)

    def wait_let_in(self) -> None:
        """Return once the dashboard's machine gets in."""
        eventually(lambda: self.asked() == "200", "the dashboard gets in")

    def do_a_task(self, task_id: str) -> None:
        """The main job over the tailnet, there and back."""
        body = f'{{"task_id": "{task_id}", "playbook": {{"name": "a.sh", "content": "echo {task_id}"}}}}'
        assert self.tailnet.dashboard.python(_SEND, self.node.address, self.agent.token, body) == "202"
        assert self.dashboard.result(task_id)["output"] == f"{task_id}\n"


@pytest.fixture
def journey(tailnet: RealTailnet, node: AgentNode, dashboard: DashboardStub, tmp_path: Path) -> Iterator[Journey]:
    """With an agent that is not started yet."""
    with agent_on(node, dashboard, tmp_path) as agent:
        yield Journey(tailnet, node, agent, dashboard)


def test_tailscaled_comes_later_and_is_restarted(journey: Journey) -> None:
    """Not there at the agent's start, then there, then another process with another device: the agent follows."""
    agent, daemon = journey.agent, journey.node.daemon
    says = journey.node.says_without_daemon
    daemon.stop()
    agent.launch()
    eventually(lambda: agent.log_lines(says), "it says that it waits")
    daemon.start()
    agent.connect(ready=False)
    journey.wait_let_in()
    journey.do_a_task("first")
    daemon.stop()
    eventually(lambda: len(agent.log_lines(says)) > 1, "it says that it waits again")
    daemon.start()
    journey.wait_let_in()
    journey.do_a_task("second")


def test_a_key_that_expires_is_said_and_a_new_one_mends_it(journey: Journey) -> None:
    """The node is out of the tailnet until somebody logs it in again; what ran meanwhile is reported then."""
    control, agent, node = ControlServer(), journey.agent, journey.node
    agent.start(ready=False)
    journey.wait_let_in()
    control.ask("nodes", "expire", "--identifier", control.node_id(node.address))
    eventually(lambda: journey.asked() != "200", "nobody gets in any more")
    said = eventually(lambda: agent.log_lines(LOGGED_OUT), "it says so")
    assert "its key has expired; log it in" in said[0]["why"]
    control.ask("nodes", "expire", "--disable", "--identifier", control.node_id(node.address))
    node.log_in()
    journey.wait_let_in()
    journey.do_a_task("afterwards")


def test_a_control_server_that_is_away_stops_nothing(journey: Journey) -> None:
    """What is connected stays connected: tasks come in and results go out, before, meanwhile and after."""
    journey.agent.start(ready=False)
    journey.wait_let_in()
    journey.do_a_task("before")
    with ControlServer().frozen():
        journey.do_a_task("meanwhile")
    journey.do_a_task("after")


def test_a_node_that_the_policy_lets_in_is_refused_by_the_agent(journey: Journey) -> None:
    """The policy keeps it out; with the policy opened the agent does, as if the token were wrong, and names it."""
    rule = {"action": "accept", "src": ["tag:other"], "dst": ["tag:agent:8470"]}
    agent, intruder = journey.agent, journey.tailnet.intruder
    agent.start(ready=False)
    journey.wait_let_in()
    assert asked_by(intruder, agent, journey.node.address) in {"TimeoutError", "OSError"}
    with ControlServer().policy_with(rule):
        eventually(lambda: asked_by(intruder, agent, journey.node.address) == "401", "the agent refuses it")
        refused = agent.wait_audited("auth failed", tags=["tag:other"])
        assert refused["node"].startswith("intruder.")
        assert journey.asked() == "200"


def test_on_a_userspace_nodes_machine_nobody_is_a_peer(
    tailnet: RealTailnet, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """The agent is on loopback there: whoever knocks by themselves is not let in; its own commands are."""
    with userspace_node(tailnet) as node, agent_on(node, dashboard, tmp_path) as agent:
        agent.start(ready=False)
        Journey(tailnet, node, agent, dashboard).wait_let_in()
        agent.http.base_url = "http://127.0.0.1:8470"
        assert agent.request("POST", "/heartbeat").status_code == 401
        status = command_line(agent.environment)("status")  # by the socket in its state directory
        assert (status.returncode, status.stderr) == (0, "")
