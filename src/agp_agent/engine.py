"""The port to a container engine. Nothing above it knows Docker.

Order of calls for one container: ``image`` → ``create`` → ``attach`` → ``start`` → ``Attachment.send`` → ``wait`` →
(``signal``) → ``remove``. Every output byte is seen only by an attachment that was opened between create and start.

Idempotence: ``create`` is not (a name is an atomic mutex: the second call raises ``NameTaken``); ``start`` and
``remove`` are; ``signal`` to a container that does not run returns False.

Ownership: whoever attaches closes the attachment. Whoever creates removes. The engine's adapter owns its connections,
threads and its event stream until ``aclose``.

Errors: every call may raise ``EngineUnavailable`` (then what was asked may or may not have happened) and, where it
names a container, ``ContainerMissing``. Any other refusal is an ``EngineError`` with the engine's own sentence.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal, Protocol

from agp_agent.errors import EngineError
from agp_agent.lacks import Lack


class NameTaken(EngineError):
    """A container with this name exists already."""


class PullPolicy(StrEnum):
    """When an image is fetched from its registry."""

    NEVER = "never"
    MISSING = "missing"
    ALWAYS = "always"


OWN_IMAGES: Final = "agp/"
"""How the names of the images begin that are built with the agent. On a public registry it is of whoever takes it."""


class Stream(StrEnum):
    """Which of a container's two streams a chunk came from."""

    OUTPUT = "output"
    """stdout: what the playbook printed, its stderr included."""
    CONTROL = "control"
    """stderr: the entry's control channel. Never trusted, for the playbook can reach it."""


class Signal(StrEnum):
    """What a container is stopped with."""

    TERM = "SIGTERM"
    KILL = "SIGKILL"


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A writable folder in memory, owned by the container's user, mode 0700, nosuid and nodev."""

    size_bytes: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount. ``source`` is a path on the engine's host, or the name of a volume."""

    kind: Literal["bind", "volume"]
    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """All that is asked of the engine for one container. The planner fills it; adapters only translate it.

    What is not a field is not negotiable, and every adapter gives it: no capabilities, no new privileges, the engine's
    seccomp (or a stricter one) and AppArmor defaults, never privileged, no devices, no ports, private namespaces,
    read-only root, memory+swap limited to the memory, no core files, an init process, no restart, no automatic
    removal, no health check, stdin that closes with its first client.
    """

    name: str
    image: str
    command: tuple[str, ...]
    uid: int
    labels: Mapping[str, str]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    tmpfs: Mapping[str, Tmpfs]
    memory_bytes: int
    cpus: float
    pids: int
    log_limit_bytes: int
    """The engine's own log of the output must hold at least so much; it is read only for recovery."""
    hostname: str = "runner"
    working_dir: str = "/work"
    nofile: int = 1024
    file_size_bytes: int = 2**30
    shm_bytes: int = 2**20
    stop_timeout_s: int = 10
    network: str | None = None
    """Name of the agent's own bridge that it is connected to; None: no network at all."""
    dns: tuple[str, ...] = ()
    """Addresses of its resolvers, where it has a network; none: those that the engine chooses."""
    runtime: str | None = None
    """Name of the engine's runtime that runs it, such as runsc; None: the engine's default."""
    seccomp: str | None = None
    """A seccomp profile, as JSON; None: the engine's default."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine says of itself and its host."""

    name: str
    version: str
    cores: int
    memory_bytes: int
    runtimes: tuple[str, ...] = ()
    """What a runner may name as its ``runtime``."""
    security: tuple[str, ...] = ()
    """What it says of its own security: seccomp, apparmor, rootless, userns, selinux."""
    lacks: frozenset[Lack] = frozenset()
    """What of the lockdown it cannot do."""
    api_version: str = ""
    operating_system: str = ""
    kernel: str = ""
    clock_s: float | None = None
    """Wall clock of its host when it was asked, seconds since 1970."""
    default_runtime: str = ""
    runtime_version: str = ""
    """Of the program that makes containers, as it was built: a version, with what a distribution adds to it."""
    cgroup_version: str = ""
    live_restore: bool = False
    """Whether containers outlive the engine's own restart."""
    kind: Literal["Docker", "Podman"] = "Docker"
    """Whose it is: others speak Docker's API too, with differences of their own."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on the engine.

    Containers are created from ``image_id``, so that a tag which moves meanwhile changes nothing. ``digest`` is the
    registry's for that content, where it came from one; for people and for the audit trail.
    """

    name: str
    digest: str
    image_id: str


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What inspect says. ``exit_code`` means something only when ``ended``."""

    container_id: str
    running: bool
    ended: bool
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    """Why the engine could not start it, in the engine's words."""
    ran_s: float | None = None
    """From its start to its end, by the clock of the engine's host."""
    ended_s: float | None = None
    """When it ended, by that clock."""
    seen_ending: bool = False
    """It was seen running over the contact to the engine that told of its end: an engine was there all the while."""
    killed: bool = False
    """The engine told of a signal to it, whoever sent that. Known by its events, so False proves nothing."""
    paused: bool = False
    """It runs, and somebody froze it."""


@dataclass(frozen=True, slots=True)
class OwnedContainer:
    """A container that carries this agent's labels."""

    container_id: str
    name: str
    labels: Mapping[str, str]
    created_at_s: float
    """Wall clock of the engine's host, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class History:
    """What the engine's running process remembers of a container.

    Engines keep their latest events in memory only. So ``created`` proves that the process that answers now is the one
    that created the container; its absence proves nothing.
    """

    created: bool = False
    kills: int = 0
    died: bool = False
    died_s: float | None = None
    """When the engine told of its end, by the clock of its host."""
    exit_code: int | None = None
    """What it died with, as far as the engine told. Another one than inspect's: its end was not seen, but assumed."""
    remembers_from_s: float = 0.0
    """Before this, by the clock of its host, the engine has forgotten everything; 0: nothing since it began."""

    def missed(self, ended_s: float | None) -> bool:
        """Whether it would remember an end at that time, had its process been there, and does not."""
        return not self.died and (ended_s is None or ended_s >= self.remembers_from_s)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network of the agent's own on the engine's host, as the engine made it. It has no IPv6."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address


@dataclass(frozen=True, slots=True)
class Helped:
    """How a helper ended, and all that it printed, on either stream."""

    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """The engine's own record of a container's streams, for recovery. ``rotated``: its beginning is missing."""

    output: bytes = b""
    control: bytes = b""
    rotated: bool = False


class Attachment(Protocol):
    """A container's stdin, stdout and stderr, opened before it starts."""

    async def send(self, data: bytes) -> None:
        """Write to the entry's stdin. Raises ``EngineUnavailable`` where the connection is gone."""

    def frames(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Chunks as they arrive; they end anywhere, also inside a character. The end of the stream is not the exit.

        Raises ``EngineUnavailable`` where the connection is seen to have broken; a break need not be seen.
        """

    async def aclose(self) -> None:
        """Close the connection; the container's stdin closes with it. Idempotent."""


class ContainerEngine(Protocol):
    """A container engine on this or another host."""

    @property
    def epoch(self) -> int:
        """Grows whenever contact with the engine was interrupted: equal numbers mean the same engine process."""

    def image_news(self) -> asyncio.Event:
        """An event of the caller's own that is set whenever the engine tells that some image came, moved or went.

        It is a reason to look again, not a promise: what happens while contact is broken is not told.
        """

    async def open(self) -> None:
        """Start listening to the engine's events. Never fails: an absent engine is waited for."""

    async def aclose(self) -> None:
        """Close all connections and end all threads. Idempotent."""

    async def describe(self) -> EngineInfo:
        """Ask the engine who it is; also the health check."""

    async def image(self, name: str, pull: PullPolicy) -> Image:
        """Find the image, or fetch it as ``pull`` allows. Raises ``ImageUnavailable`` with the reason.

        A name with a digest (``name@sha256:…``) is never answered with any other content.
        """

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container, not started, and return its id.

        What the engine made is read back and compared with what was asked for. What the engine says it cannot do, and
        its operator has accepted to be missing, is not asked for.

        Raises:
            NameTaken: a container with this name exists.
            ImageUnavailable: the image is gone.
            LockdownRefused: the engine made something weaker; it was removed again.
        """

    async def attach(self, container_id: str) -> Attachment:
        """Open the container's streams. Call between create and start."""

    async def start(self, container_id: str) -> None:
        """Start it. A container that has ended is never started again: that raises ``EngineError``."""

    async def inspect(self, container_id: str) -> ContainerState:
        """The truth about the container now."""

    async def wait(self, container_id: str) -> ContainerState:
        """Return once the container has ended, as inspect confirms. Does not poll.

        Outlives interruptions of the engine: it asks again when the engine is back, and never raises
        ``EngineUnavailable``.
        """

    async def spoiled(self, container_id: str) -> None:
        """Return once a container that runs and waits is of no use: it has ended, was paused, or cannot be asked.

        Does not poll, and raises nothing. Where contact to the engine breaks it need not return: see ``epoch``.
        """

    async def signal(self, container_id: str, signal: Signal) -> bool:
        """Send a signal to its first process. False: it does not run."""

    async def history(self, container_id: str) -> History:
        """What the engine's running process remembers of the container; one that is stopping does not answer this."""

    async def log(self, container_id: str) -> ContainerLog:
        """The engine's own record of the output so far, for recovery."""

    async def remove(self, container_id: str) -> None:
        """Kill it if it runs, and remove it with its anonymous volumes. A missing one is success. Id or name."""

    async def owned(self, labels: Mapping[str, str]) -> list[OwnedContainer]:
        """All containers that carry every one of these labels, whatever their state."""

    async def mounts(self, container_id: str) -> list[Mount]:
        """The bind mounts and volumes of any container, by id or name, volumes as their folder on the engine's host."""

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a named volume; one that exists is success."""

    async def remove_volume(self, name: str) -> None:
        """Remove a named volume; a missing one is success."""

    async def owned_volumes(self, labels: Mapping[str, str]) -> list[str]:
        """Names of all volumes that carry every one of these labels."""

    async def put_file(self, mount: Mount, image: str, path: str, data: bytes, labels: Mapping[str, str]) -> None:
        """Write a file (0444, in a folder 0755) into ``mount``, through a container that is never started.

        ``path`` is relative to the mount. The container uses ``image``, carries ``labels``, and is removed again.
        """

    async def get_file(self, mount: Mount, image: str, path: str, labels: Mapping[str, str]) -> bytes:
        """Read a small file of ``mount`` as a container would see it, in the same way.

        Raises:
            EngineError: the mount or the file is not there.
        """

    async def ensure_bridge(self, name: str, labels: Mapping[str, str]) -> Bridge:
        """Make the agent's own bridge where it is missing; containers on it cannot speak to each other.

        It is read back in any case, also when it was there before.

        Raises:
            LockdownRefused: a network of this name is there that lacks these labels, or is weaker. It was not touched.
        """

    async def remove_bridge(self, name: str) -> None:
        """Remove a bridge; a missing one is success. Raises ``EngineError`` while a container uses it."""

    async def run_beside(
        self, container_id: str, image: str, command: tuple[str, ...], labels: Mapping[str, str]
    ) -> Helped:
        """Run a helper to its end that shares the network namespace of a running container, and nothing else of it.

        The helper is root in that namespace with NET_ADMIN as its only capability, so that it can set rules there; no
        new privileges, read-only root, no mounts, small limits. It carries ``labels`` and is removed in any case, also
        when the caller is cancelled. The first word of ``command`` takes the place of the image's entry.

        Raises:
            ContainerMissing: there is no such container.
            ImageUnavailable: the helper's image is gone.
            LockdownRefused: the engine made a helper with other rights; it was removed without being started.
        """
