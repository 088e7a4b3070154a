"""What the doctor knows: gathered at the walls, judged by the checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agp_agent.engine import EngineInfo
from agp_agent.lacks import Lack


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the agent would listen, and whether this machine has that."""

    host: str
    interface: str | None
    tls: bool
    problem: str | None = None
    """Why the address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """One runner of the catalog, tried for real."""

    image: str
    digest: str | None = None
    """What the image is now; None: it is not on the engine."""
    outbound: bool = False
    """Whether it has a network."""
    pulls: bool = True
    """Whether a task would fetch a missing image."""
    problem: str | None = None
    """Why no container of it can be had, or what of its fence does not hold; None: the whole lockdown was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the checks look at. What could not be found out is None, and no check guesses."""

    configuration: tuple[str, ...] = ()
    """Problems of the settings, as ``config check`` tells them."""
    endpoint: str = ""
    """The engine's address, as DOCKER_HOST has it."""
    socket_mode: int | None = None
    """Permissions of the engine's socket file, where it is one."""
    engine: EngineInfo | None = None
    accepted: frozenset[Lack] = frozenset()
    """What of the lockdown the operator accepts to be missing."""
    engine_problem: str = ""
    """Why it does not answer."""
    clock_offset_s: float | None = None
    """How far the clock of the engine's host is ahead of this one."""
    clock_synchronised: bool | None = None
    """What the kernel of this machine says."""
    state_dir: Path = Path()
    free_bytes: int | None = None
    """What is free for the state directory, with what an agent keeps in reserve there."""
    listening: Listening | None = None
    dashboard_url: str | None = None
    dashboard_problem: str | None = None
    """Why nothing answers there, or at the proxy; None: something does."""
    dashboard_proxy: str | None = None
    """The proxy on the way, without its password; where there is one, it alone was asked."""
    agent_id: str | None = None
    """Of the state directory; None: no agent has used it yet."""
    strangers: tuple[str, ...] | None = ()
    """Containers of an agent with the same name and another state directory; None: the engine was not asked."""
    runners: Mapping[str, RunnerFacts] = field(default_factory=dict)
