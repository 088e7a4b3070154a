"""Tries to get out of a container, the same few lines in both arms: in a task of the agent, and without a fence."""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import docker
from docker.models.containers import Container

from agp_agent import __version__
from agp_agent.catalog import Catalog
from support.agent_process import AgentProcess

FENCE_IMAGE: Final = f"agp/fence:{__version__}"
SHELL: Final = "agp/runner-shell:0.2.0"
OPEN: Final = 8080
"""A port that every address elsewhere answers on."""
OTHER: Final = 8081
"""And another one."""
REACHED: Final = "reached"
FENCED: Final = "No route to host"

Target = tuple[str, int]
StartAgent = Callable[..., AgentProcess]


def trying(targets: Mapping[str, Target], more: str = "") -> str:
    """Shell that prints ``name verdict`` for each target: reached, or what netcat said."""
    lines = [
        "try() {",
        '    said=$(nc -n -z -v -w 3 "$2" "$3" 2>&1) && said=reached',
        '    echo "$1 ${said##*: }"',
        "}",
        *(f"try {name} {address} {port} &" for name, (address, port) in targets.items()),
        "wait",
    ]
    return "\n".join([*lines, more, "exit 0", ""])


def verdicts(output: str) -> dict[str, str]:
    """What ``trying`` printed."""
    return {name: said for name, _, said in (line.partition(" ") for line in output.splitlines())}


def runners(**fields: Mapping[str, object]) -> str:
    """A catalog: runners of the shell image for the suffix of their own name."""
    base: dict[str, object] = {"image": SHELL, "command": ["agp-shell", "{playbook}"], "network": "outbound"}
    return json.dumps(
        {"runners": {name: base | {"match": {"suffixes": [f".{name}"]}} | dict(one) for name, one in fields.items()}}
    )


def catalog_of(**fields: Mapping[str, object]) -> Catalog:
    """The same, read."""
    return Catalog.model_validate(json.loads(runners(**fields)))


class Plain:
    """Containers as anybody starts them: on the engine's default network, with nothing fenced."""

    def __init__(self, client: docker.DockerClient) -> None:
        """Nothing is started yet."""
        self._client = client
        self._made: list[Container] = []

    def start(
        self, script: str, *, image: str = SHELL, entrypoint: tuple[str, ...] = ("bash", "-c"), **options: Any
    ) -> Container:
        """Start one that runs a script."""
        name = f"plain-{secrets.token_hex(6)}"
        made = self._client.containers.run(
            image, [script], entrypoint=list(entrypoint), detach=True, name=name, **options
        )
        self._made.append(made)
        return made

    def run(self, script: str, **options: Any) -> str:
        """Run one to its end; what it printed."""
        made = self.start(script, **options)
        made.wait(timeout=120)
        return bytes(made.logs()).decode()

    def close(self) -> None:
        """Remove them all."""
        for made in self._made:
            made.remove(force=True)


def address_of(client: docker.DockerClient, container_id: str) -> str:
    """A container's address in the one network it is in."""
    (network,) = client.api.inspect_container(container_id)["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def gateway_of(client: docker.DockerClient, container_id: str) -> str:
    """The gateway of the one network that a container is in: an address of the engine's host."""
    (network,) = client.api.inspect_container(container_id)["NetworkSettings"]["Networks"].values()
    return str(network["Gateway"])


def bridge_of(agent: AgentProcess) -> str:
    """The name of an agent's bridge."""
    return f"agp-{agent.instance}"
