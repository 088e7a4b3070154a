"""The world behind a ``FakeEngine``: containers, images, volumes and memory of events, in one process, without I/O."""

import asyncio
import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePosixPath

from agp_agent.engine import Bridge, ContainerSpec, ContainerState, Helped, Mount, Signal, Stream
from agp_agent.errors import EngineError, LockdownRefused
from agp_agent.secret_files import SECRETS_DIR
from fakes.fake_process import Exit, Process, Stdin

_REMEMBERED_EVENTS = 256
_STALL_BYTES = 2**20
"""A container stalls when so much of its output waits for an attachment that nobody reads."""


class Pipe:
    """One attachment's side of a container: frames wait in it until they are read."""

    def __init__(self) -> None:
        self._frames: deque[tuple[Stream, bytes]] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """No more frames come; those that wait can still be read."""
        self.closed = True
        self._changed.set()

    async def put(self, stream: Stream, data: bytes) -> None:
        """Add a frame; waits while nobody reads."""
        while self._waiting_bytes >= _STALL_BYTES and not self.closed:
            await self._change()
        if not self.closed:
            self._frames.append((stream, data))
            self._waiting_bytes += len(data)
            self._changed.set()

    async def get(self) -> tuple[Stream, bytes] | None:
        """Take the next frame; None at the end of the stream."""
        while not self._frames and not self.closed:
            await self._change()
        if not self._frames:
            return None
        stream, data = self._frames.popleft()
        self._waiting_bytes -= len(data)
        self._changed.set()
        return stream, data

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


@dataclass(slots=True)
class Container:
    """A container and everything that is known of it."""

    container_id: str
    name: str
    labels: dict[str, str]
    mounts: tuple[Mount, ...]
    created_at_s: float
    command: tuple[str, ...] = ()
    log_limit_bytes: int = 2**22
    spec: ContainerSpec | None = None
    """What was asked for; None for one that was planted."""
    running: bool = False
    ended: Exit | None = None
    error: str = ""
    killed: bool = False
    paused: bool = False
    ran_s: float | None = None
    """How long inspect says that it ran; tests set it, and the next three."""
    ended_s: float | None = None
    """When inspect says that it ended."""
    died_s: float | None = None
    """When the engine told of its end, if it did that late."""
    told_code: int | None = None
    """The exit code that the engine told of, if that was another one."""
    stdin: Stdin = field(default_factory=Stdin)
    pipes: list[Pipe] = field(default_factory=list)
    log: dict[Stream, bytearray] = field(default_factory=lambda: {stream: bytearray() for stream in Stream})
    log_rotated: bool = False
    process: Process | None = None
    life: asyncio.Task[None] | None = None
    rules: list[str] = field(default_factory=list)
    """What helpers put in force in its network namespace."""

    @property
    def state(self) -> ContainerState:
        """What inspect says."""
        ended = self.ended or Exit(0)
        return ContainerState(
            self.container_id,
            self.running,
            self.ended is not None,
            ended.code,
            ended.oom_killed,
            self.error,
            ran_s=self.ran_s,
            ended_s=self.ended_s,
            killed=self.killed,
            paused=self.paused,
        )

    async def write(self, stream: Stream, data: bytes) -> None:
        """Print: into the engine's log, and to everyone who is attached."""
        log = self.log[stream]
        log += data
        if len(log) > 2 * self.log_limit_bytes:
            del log[: self.log_limit_bytes]
            self.log_rotated = True
        for pipe in tuple(self.pipes):
            await pipe.put(stream, data)


class FakeHost:
    """One engine process and the machine it runs on. Several ``FakeEngine`` may be connected to it, one after another.

    Attributes that tests set: ``images`` (name → digest, present), ``registry`` (name → digest, can be pulled),
    ``silent`` (images whose registry takes the connection and says nothing),
    ``weaken`` (fields in which the next containers differ from what was asked), ``start_error`` (why no container can
    be started), ``runtimes`` (their names), ``helper_answer`` (what a helper prints and ends with, whatever it was
    asked), ``answering`` (addresses and ports that a probe finds somebody at, fence or not), ``neighbour`` (what
    the canary's neighbour says in the place of its address).
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.images: dict[str, str] = {}
        self.image_listeners: list[asyncio.Event] = []
        self.registry: dict[str, str] = {}
        self.pulls: list[str] = []
        self.silent: set[str] = set()
        self.weaken: tuple[str, ...] = ()
        self.start_error = ""
        self.runtimes = {"runc"}
        self.containers: dict[str, Container] = {}
        self.volumes: dict[str, tuple[dict[str, str], dict[str, bytes]]] = {}
        self.bridges: dict[str, tuple[dict[str, str], Bridge]] = {}
        self.helper_answer: Helped | None = None
        self.answering: set[str] = set()
        self.neighbour = ""
        self.events: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED_EVENTS)
        self.changed = asyncio.Event()
        self._clock = clock
        self._ids = itertools.count(1)

    def tag(self, name: str, digest: str) -> None:
        """Let a name lead to this image, and tell of it as the engine does."""
        self.images[name] = digest
        for listener in self.image_listeners:
            listener.set()

    def find(self, id_or_name: str) -> Container | None:
        """A container by its id or name."""
        named = (one for one in self.containers.values() if one.name == id_or_name)
        return self.containers.get(id_or_name) or next(named, None)

    def add(self, spec: ContainerSpec) -> Container:
        """Create a container; volumes that it mounts come into being, folders that it binds must be there."""
        self.check_mounts(spec.mounts)
        if spec.runtime is not None and spec.runtime not in self.runtimes:
            known = ", ".join(sorted(self.runtimes))
            raise EngineError(f"the engine has no runtime {spec.runtime}; it has {known}")
        if spec.network is not None and spec.network not in self.bridges:
            raise EngineError(f"the engine refused (404): network {spec.network} not found")
        container = self.plant(
            spec.name, spec.labels, spec.mounts, command=spec.command, log_limit_bytes=spec.log_limit_bytes
        )
        container.spec = spec
        return container

    def pause(self, container: Container) -> None:
        """Freeze it, as an operator may."""
        container.paused = True
        self.wake()

    def ensure_bridge(self, name: str, labels: Mapping[str, str]) -> Bridge:
        """Make a bridge where it is missing; refuse one with other labels."""
        subnet = IPv4Network((int(IPv4Address("172.30.0.0")) + (len(self.bridges) << 8), 24))
        made = self.bridges.setdefault(name, (dict(labels), Bridge(name, subnet, subnet[1])))
        if not labels.items() <= made[0].items():
            raise LockdownRefused(f"the engine's network {name} is not the agent's own: it differs in Labels")
        return made[1]

    def help(self, beside: Container, command: tuple[str, ...]) -> Helped:
        """Run a helper: rules are put in force, and listed, if they are any."""
        if self.helper_answer is not None:
            return self.helper_answer
        _, *lines = command
        if "".join(lines).count("{") != "".join(lines).count("}"):
            return Helped(1, "Error: syntax error, unexpected end of file")
        beside.rules += lines
        return Helped(0, "\n".join(beside.rules))

    def plant(
        self,
        name: str,
        labels: Mapping[str, str],
        mounts: tuple[Mount, ...] = (),
        *,
        command: tuple[str, ...] = (),
        log_limit_bytes: int = 2**22,
    ) -> Container:
        """Put a container into the world, as somebody else could have made it."""
        container_id = f"{next(self._ids):064x}"
        container = Container(
            container_id, name, dict(labels), mounts, self._clock(), command, log_limit_bytes=log_limit_bytes
        )
        self.containers[container_id] = container
        self.happened(container, "create")
        return container

    def start(self, container: Container) -> None:
        """Begin its life."""
        takes_secrets = container.spec is not None and SECRETS_DIR in container.spec.tmpfs
        load = functools.partial(self._playbook, container)
        process = Process(container.stdin, container.write, load, takes_secrets=takes_secrets)
        container.process = process
        container.running = True
        container.life = asyncio.create_task(self._live(container, process), name=f"fake container {container.name}")
        self.happened(container, "start")

    def signal(self, container: Container, signal: Signal) -> bool:
        """Deliver a signal, from whoever. False: it does not run."""
        if not container.running or container.process is None:
            return False
        container.killed = True
        self.happened(container, "kill")
        container.process.receive(signal)
        return True

    async def remove(self, container: Container) -> None:
        """Kill it if it runs, wait for its end, and remove it."""
        self.signal(container, Signal.KILL)
        if container.life is not None:
            await asyncio.wait({container.life})
        if self.containers.pop(container.container_id, None) is not None:
            self.happened(container, "destroy")

    async def forget(self, *, kill_running: bool) -> None:
        """The engine's process is replaced: its memory is gone, and without live-restore what ran is killed."""
        if kill_running:
            lives = []
            for container in self.containers.values():
                if container.running and container.process and container.life:
                    container.process.receive(Signal.KILL)
                    lives.append(container.life)
            await asyncio.gather(*lives)
        self.events.clear()

    async def stop(self) -> None:
        """Switch the machine off: nothing runs any more."""
        lives = [container.life for container in self.containers.values() if container.life is not None]
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    def happened(self, container: Container, action: str) -> None:
        """Remember an event, and wake everybody who waits."""
        self.events.append((container.container_id, action))
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def check_mounts(self, mounts: tuple[Mount, ...]) -> None:
        """Refuse a bind of a folder that is missing; create a volume that is."""
        for mount in mounts:
            if mount.kind == "volume":
                self.volumes.setdefault(mount.source, ({}, {}))
            elif not Path(mount.source).exists():
                raise EngineError(f"the engine refused (400): bind source path does not exist: {mount.source}")

    def read(self, mount: Mount, path: str) -> bytes | None:
        """A file of a mount; None where there is none."""
        if mount.kind == "volume":
            return self.volumes[mount.source][1].get(path)
        file = Path(mount.source, path)
        return file.read_bytes() if file.is_file() else None

    def write(self, mount: Mount, path: str, data: bytes) -> None:
        """Write a file into a mount, as the engine would."""
        if mount.kind == "volume":
            self.volumes[mount.source][1][path] = data
            return
        file = Path(mount.source, path)
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(0o444)

    def _playbook(self, container: Container) -> bytes | None:
        """What the container finds at its command's last argument; the fence's own image needs none."""
        if container.command[0] in {"agp-listen", "agp-probe"}:
            return self._of_the_fence(*container.command)
        path = PurePosixPath(container.command[-1])
        for mount in container.mounts:
            if path.is_relative_to(mount.target):
                return self.read(mount, str(path.relative_to(mount.target)))
        return None

    def _of_the_fence(self, program: str, *words: str) -> bytes:
        """What the canary's two programs do: one listens, the other tries."""
        if program == "agp-listen":
            return f"print {self.neighbour or f'172.30.0.99 {words[0]}'}\nforever\n".encode()
        targets = [f"{address} {port}" for address, port in zip(words[::2], words[1::2], strict=True)]
        found = [f"{one} {'answered' if one in self.answering else 'fenced'}" for one in targets]
        return "".join(f"print {line}\n" for line in ("127.0.0.1 8471 answered", *found)).encode()

    async def _live(self, container: Container, process: Process) -> None:
        ended = await process.run()
        for pipe in container.pipes:
            pipe.close()
        await asyncio.sleep(0)  # as in the real one, the end of the stream is seen before the exit
        container.running = False
        container.ended = ended
        self.happened(container, "die")
