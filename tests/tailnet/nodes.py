"""The two ways a machine of the agent's can be in a tailnet: with a device of the kernel's, or without any."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.waiting import eventually
from tailnet.conftest import RealTailnet
from tailnet.daemons import BIN, ControlServer, Daemon, start_detached, tailscale

_PROXY: Final = "127.0.0.1:18055"


@dataclass(frozen=True, slots=True)
class AgentNode:
    """A node that an agent is on, and what the agent is told about it."""

    name: str
    address: str
    socket: Path
    settings: Mapping[str, object]
    says_without_daemon: str
    wrapper: tuple[str, ...] = ()
    daemon: Daemon = field(init=False)

    def __post_init__(self) -> None:
        """Find its daemon."""
        object.__setattr__(self, "daemon", Daemon("tailscaled", str(self.socket)))

    def log_in(self) -> None:
        """Bring it into the tailnet, also where it was there before; it keeps its address."""
        key, server = os.environ["TAILNET_AUTHKEY"], os.environ["TAILNET_LOGIN_SERVER"]
        who = (f"--auth-key={key}", f"--hostname={self.name}", f"--login-server={server}")
        tailscale(self.socket, "up", "--force-reauth", *who, "--accept-dns=false", "--timeout=30s")
        assert tailscale(self.socket, "ip", "-4").strip() == self.address


@contextmanager
def kernel_node(tailnet: RealTailnet) -> Iterator[AgentNode]:
    """The tailnet's own node for agents: the agent is bound to its device."""
    yield AgentNode(
        name="agent",
        address=tailnet.agent_ip,
        socket=tailnet.socket,
        settings={"AGP_HOST": tailnet.agent_ip, "AGP_INTERFACE": "tailscale0"},
        says_without_daemon="nobody can come in: the network device or its address is not there; waiting for it",
        wrapper=tailnet.agent.inside,
    )


@contextmanager
def userspace_node(_: RealTailnet) -> Iterator[AgentNode]:
    """A further node on this machine: the agent is on loopback, tailscaled hands over, its proxy is the way out."""
    with tempfile.TemporaryDirectory(prefix="agp-tailscaled-") as name:
        folder, socket = Path(name), Path(name) / "sock"
        command = (
            *(str(BIN / "tailscaled"), "--tun=userspace-networking", f"--statedir={folder}", f"--socket={socket}"),
            *("--port=0", f"--outbound-http-proxy-listen={_PROXY}", "--no-logs-no-support"),
        )
        start_detached(command, os.environ | {"SSL_CERT_FILE": os.environ["TAILNET_CA"]})
        try:
            eventually(socket.exists, "tailscaled answers")
            login = ("up", f"--auth-key={os.environ['TAILNET_AUTHKEY']}", "--hostname=userspace", "--timeout=30s")
            tailscale(socket, *login, f"--login-server={os.environ['TAILNET_LOGIN_SERVER']}", "--accept-dns=false")
            address = tailscale(socket, "ip", "-4").strip()
            yield AgentNode(
                name="userspace",
                address=address,
                socket=socket,
                settings={"AGP_HOST": "127.0.0.1", "AGP_DASHBOARD_PROXY": f"http://{_PROXY}"},
                says_without_daemon="nobody can be let in: tailscaled is not there, or not in the tailnet",
            )
        finally:
            Daemon("tailscaled", str(socket)).stop()
        ControlServer().forget(address)
