"""What happens to a tailnet, happens: its daemon restarts, its key expires, its control server is away."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.asking import asked_by
from support.dashboard_stub import DashboardStub
from support.network_thread import in_network
from support.waiting import eventually
from tailnet.conftest import RealTailnet
from tailnet.daemons import BIN, ControlServer, Daemon, tailscale

pytestmark = pytest.mark.tailnet

LOGGED_OUT = "nobody can be let in: tailscaled is not there, or not in the tailnet"
WAITS = "nobody can come in: the network device or its address is not there; waiting for it"
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


@contextmanager
def agent_on(tailnet: RealTailnet, dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent on the tailnet's device that asks tailscaled who a peer is, made but not started."""
    settings: dict[str, object] = {
        "AGP_HOST": tailnet.agent_ip,
        "AGP_INTERFACE": "tailscale0",
        "AGP_PORT": 8470,
        "AGP_TAILSCALE_SOCKET": tailnet.socket,
        "AGP_TAILSCALE_ALLOW": "tag:dashboard",
    }
    agent = AgentProcess(folder, dashboard.url, dashboard.token, settings, wrapper=tailnet.agent.inside, ready=False)
    try:
        yield agent
    finally:
        ended = agent.close()
    assert ended == (0, [])


def wait_let_in(tailnet: RealTailnet, agent: AgentProcess) -> None:
    """Return once the dashboard's machine gets in."""
    eventually(lambda: asked_by(tailnet.dashboard, agent, tailnet.agent_ip) == "200", "the dashboard gets in")


def do_a_task(tailnet: RealTailnet, agent: AgentProcess, dashboard: DashboardStub, task_id: str) -> None:
    """The main job over the tailnet, there and back."""
    body = f'{{"task_id": "{task_id}", "playbook": {{"name": "a.sh", "content": "echo {task_id}"}}}}'
    assert tailnet.dashboard.python(_SEND, tailnet.agent_ip, agent.token, body) == "202"
    assert dashboard.result(task_id)["output"] == f"{task_id}\n"


def test_tailscaled_comes_later_and_is_restarted(
    tailnet: RealTailnet, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """Not there at the agent's start, then there, then another process with another device: the agent follows."""
    daemon = Daemon("tailscaled", str(tailnet.socket))
    daemon.stop()
    with agent_on(tailnet, dashboard, tmp_path) as agent:
        agent.launch()
        eventually(lambda: agent.log_lines(WAITS), "it says that it waits")
        daemon.start()
        agent.connect(ready=False)
        wait_let_in(tailnet, agent)
        do_a_task(tailnet, agent, dashboard, "first")
        daemon.stop()
        eventually(lambda: len(agent.log_lines(WAITS)) > 1, "it says that it waits again")
        daemon.start()
        wait_let_in(tailnet, agent)
        do_a_task(tailnet, agent, dashboard, "second")


def test_a_key_that_expires_is_said_and_a_new_one_mends_it(
    tailnet: RealTailnet, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """The node is out of the tailnet until somebody logs it in again; what ran meanwhile is reported then."""
    control = ControlServer()
    with agent_on(tailnet, dashboard, tmp_path) as agent:
        agent.start(ready=False)
        wait_let_in(tailnet, agent)
        control.ask("nodes", "expire", "--identifier", control.node_id("agent"))
        eventually(lambda: asked_by(tailnet.dashboard, agent, tailnet.agent_ip) != "200", "nobody gets in any more")
        said = eventually(lambda: agent.log_lines(LOGGED_OUT), "it says so")
        assert "its key has expired; log it in" in said[0]["why"]
        control.ask("nodes", "expire", "--disable", "--identifier", control.node_id("agent"))
        login = ("up", "--force-reauth", f"--auth-key={os.environ['TAILNET_AUTHKEY']}", "--hostname=agent")
        server = f"--login-server={os.environ['TAILNET_LOGIN_SERVER']}"
        tailscale(tailnet.socket, *login, server, "--accept-dns=false", "--timeout=30s")
        assert tailscale(tailnet.socket, "ip", "-4").strip() == tailnet.agent_ip
        wait_let_in(tailnet, agent)
        do_a_task(tailnet, agent, dashboard, "afterwards")


def test_a_control_server_that_is_away_stops_nothing(
    tailnet: RealTailnet, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """What is connected stays connected: tasks come in and results go out, before, meanwhile and after."""
    control = ControlServer()
    with agent_on(tailnet, dashboard, tmp_path) as agent:
        agent.start(ready=False)
        do_a_task(tailnet, agent, dashboard, "before")
        with control.frozen():
            do_a_task(tailnet, agent, dashboard, "meanwhile")
        do_a_task(tailnet, agent, dashboard, "after")


def test_a_node_that_the_policy_lets_in_is_refused_by_the_agent(
    tailnet: RealTailnet, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """The policy keeps it out; with the policy opened the agent does, as if the token were wrong, and names it."""
    rule = {"action": "accept", "src": ["tag:other"], "dst": ["tag:agent:8470"]}
    with agent_on(tailnet, dashboard, tmp_path) as agent:
        agent.start(ready=False)
        assert asked_by(tailnet.intruder, agent, tailnet.agent_ip) in {"TimeoutError", "OSError"}
        with ControlServer().policy_with(rule):
            eventually(lambda: asked_by(tailnet.intruder, agent, tailnet.agent_ip) == "401", "the agent refuses it")
            refused = agent.wait_audited("auth failed", tags=["tag:other"])
            assert refused["node"].startswith("intruder.")
            assert asked_by(tailnet.dashboard, agent, tailnet.agent_ip) == "200"


def test_a_userspace_node_lets_in_the_tailnet_alone(
    tailnet: RealTailnet, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """No device at all: the agent is on loopback, tailscaled hands over, and its proxy is the way out."""
    with userspace_node() as (address, socket):
        settings: dict[str, object] = {
            "AGP_HOST": "127.0.0.1",
            "AGP_PORT": 8470,
            "AGP_TAILSCALE_SOCKET": socket,
            "AGP_TAILSCALE_ALLOW": "tag:dashboard",
            "AGP_DASHBOARD_PROXY": "http://127.0.0.1:18055",
        }
        with AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
            eventually(lambda: asked_by(tailnet.dashboard, agent, address) == "200", "the dashboard gets in")
            assert asked_by(tailnet.intruder, agent, address) in {"TimeoutError", "OSError"}
            agent.http.base_url = "http://127.0.0.1:8470"
            assert agent.request("POST", "/heartbeat").status_code == 401, "whoever is on this machine is no peer"
            do_a_task(replace(tailnet, agent_ip=address), agent, dashboard, "userspace")


@contextmanager
def userspace_node() -> Iterator[tuple[str, Path]]:
    """A further node of the tailnet on this machine, without a device: its address and its socket."""
    with tempfile.TemporaryDirectory(prefix="agp-tailscaled-") as name:
        folder, socket = Path(name), Path(name) / "sock"
        command = (
            *(BIN / "tailscaled", "--tun=userspace-networking", f"--statedir={folder}", f"--socket={socket}"),
            *("--port=0", "--outbound-http-proxy-listen=127.0.0.1:18055", "--no-logs-no-support"),
        )
        environment = os.environ | {"SSL_CERT_FILE": os.environ["TAILNET_CA"]}
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            eventually(socket.exists, "tailscaled answers")
            login = ("up", f"--auth-key={os.environ['TAILNET_AUTHKEY']}", "--hostname=userspace", "--timeout=30s")
            tailscale(socket, *login, f"--login-server={os.environ['TAILNET_LOGIN_SERVER']}", "--accept-dns=false")
            yield tailscale(socket, "ip", "-4").strip(), socket
        finally:
            daemon.terminate()
            daemon.wait(20)
