"""A machine that is configured over SSH: in a network of its own behind this one, or this very node."""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import docker
from docker.errors import NotFound

from support.waiting import eventually

IMAGE: Final = "agp-test/ssh-host:1"
"""Built by .ci/test-tools out of tests/support/ssh_host."""


class SshHost:
    """sshd and a small API on one address. Needs root. As a context manager it leaves nothing behind."""

    def __init__(
        self, address: str, public_key: str, api_token: str, *, port: int = 22, api_port: int = 8080, **network: Any
    ) -> None:
        """Start it. ``public_key`` may log in as ``deploy``, who may become root; the API wants ``api_token``."""
        self.address, self.port, self.api_port = address, port, api_port
        self._client = docker.from_env()
        self._container = self._client.containers.run(
            IMAGE,
            detach=True,
            name=f"agp-ssh-host-{secrets.token_hex(6)}",
            init=True,
            environment={
                "AUTHORIZED_KEY": public_key,
                "ADDRESS": address,
                "PORT": str(port),
                "API_PORT": str(api_port),
                "API_TOKEN": api_token,
            },
            **network,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(NotFound):
            self._container.remove(force=True, v=True)
        self._client.close()

    @property
    def pid(self) -> int:
        """Its first process, on this machine."""
        self._container.reload()
        return int(self._container.attrs["State"]["Pid"])

    def wait_ready(self) -> None:
        """Return once sshd listens."""
        eventually(lambda: b"Server listening on" in self._container.logs(), f"sshd on {self.address}")

    def run(self, command: str) -> str:
        """What a command prints that root runs on it, beside all SSH: the truth about its state."""
        exit_code, output = self._container.exec_run(["sh", "-c", command])
        assert exit_code == 0, output
        assert isinstance(output, bytes)
        return output.decode()

    def host_key(self) -> str:
        """Its ed25519 key as it is known to itself: kind and key."""
        return " ".join(self.run("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])


@contextlib.contextmanager
def machine_behind(address: str, here: str, **known: Any) -> Iterator[SshHost]:
    """Another machine: in its own network, on ``address``, with this one (as ``here``) as its way out."""
    with SshHost(address, network_mode="none", **known) as host, _wire(host.pid, address, here):
        host.wait_ready()
        yield host


@contextlib.contextmanager
def this_node(address: str, folder: Path, **known: Any) -> Iterator[SshHost]:
    """This very machine: sshd in its own network, on ``address``, which it gets for this; it sees ``folder``."""
    device = f"agp{secrets.token_hex(4)}d"
    _ip("link", "add", device, "type", "bridge")
    try:
        _ip("address", "add", f"{address}/32", "dev", device)
        _ip("link", "set", device, "up")
        volumes: Mapping[str, Mapping[str, str]] = {str(folder): {"bind": "/srv/node", "mode": "rw"}}
        with SshHost(address, network_mode="host", volumes=volumes, **known) as host:
            host.wait_ready()
            yield host
    finally:
        _ip("link", "delete", device)


@contextlib.contextmanager
def _wire(pid: int, address: str, here: str) -> Iterator[None]:
    """A pair of devices, one end of which is in the network of a process."""
    outer, inner = f"agp{(token := secrets.token_hex(4))}o", f"agp{token}i"
    inside = ("nsenter", "--target", str(pid), "--net", "ip")
    _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", str(pid))
    try:
        for command in (
            ("ip", "address", "add", here, "peer", address, "dev", outer),
            ("ip", "link", "set", outer, "up"),
            (*inside, "address", "add", address, "peer", here, "dev", inner),
            (*inside, "link", "set", inner, "up"),
            (*inside, "route", "add", "default", "via", here),
        ):
            subprocess.run(command, check=True, capture_output=True)
        yield
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", outer)  # with the other end; gone already where its machine is


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)
