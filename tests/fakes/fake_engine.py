"""A ``ContainerEngine`` in memory, as strict as the real one: both pass ``tests/contract``.

    host = FakeHost()
    host.images["agp/runner-shell:0.2.0"] = "sha256:…"
    engine = FakeEngine(host)

The playbook steers what a container does (see ``fake_process``): it is read from the bind mount on disk, or from the
host's volumes, at the release. A second ``FakeEngine`` on the same host is an agent that was
started again. ``go_away``, ``freeze`` and ``errors`` steer the engine itself.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from agp_agent.engine import (
    Attachment,
    Bridge,
    ContainerLog,
    ContainerSpec,
    ContainerState,
    EngineInfo,
    Helped,
    History,
    Image,
    Mount,
    NameTaken,
    OwnedContainer,
    PullPolicy,
    Signal,
    Stream,
)
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, ImageUnavailable, LockdownRefused
from fakes.fake_host import Container, FakeHost, Pipe


class FakeAttachment:
    """An ``Attachment``: a pipe out of the container, and its stdin."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._pipe = Pipe()
        self._open = True
        if container.ended is not None:
            self._pipe.close()
        container.pipes.append(self._pipe)

    async def send(self, data: bytes) -> None:
        """Write to the container's stdin."""
        await asyncio.sleep(0)
        if not self._open:
            raise EngineUnavailable("the connection to the container's stdin is closed")
        self._container.stdin.feed(data)

    async def frames(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Chunks until the container ends or the connection breaks."""
        while (frame := await self._pipe.get()) is not None:
            yield frame

    async def aclose(self) -> None:
        """Close the connection, and with it the container's stdin."""
        self.break_off()

    def break_off(self) -> None:
        """The connection is gone, for whatever reason: stdin was opened to close with its first client."""
        self._open = False
        self._pipe.close()
        self._container.stdin.close()
        if self._pipe in self._container.pipes:
            self._container.pipes.remove(self._pipe)


class FakeEngine:
    """One agent's connection to a ``FakeHost``."""

    def __init__(self, host: FakeHost | None = None) -> None:
        self.host = host or FakeHost()
        self.calls = 0
        """How often the engine was asked something."""
        self.errors: dict[str, EngineError] = {}
        """What calls of these names end with, as long as it stands here."""
        self._attachments: list[FakeAttachment] = []
        self._interruptions = 0
        self._is_open = False
        self._away = False
        self._closed = False
        self._going = asyncio.Event()
        self._going.set()

    def freeze(self) -> None:
        """The engine hangs: nothing is answered. Containers live on."""
        self._going.clear()

    def thaw(self) -> None:
        """It goes on, and answers what it was asked meanwhile."""
        self._going.set()

    def go_away(self) -> None:
        """The engine cannot be reached any more: connections break, calls fail. Containers live on."""
        self._away = True
        self._interruptions += 1
        self._break_attachments()
        self.host.wake()

    async def come_back(self, *, restarted: bool, kill_running: bool = False) -> None:
        """It can be reached again; ``restarted``: by another process (``kill_running``: without live-restore)."""
        if restarted:
            await self.host.forget(kill_running=kill_running)
        self._away = False
        self._interruptions += 1
        self.host.wake()

    @property
    def epoch(self) -> int:
        """Grows with every interruption; without contact no two readings are equal."""
        if self._away or not self._is_open:
            self._interruptions += 1
        return self._interruptions

    def image_news(self) -> asyncio.Event:
        """Set whenever the host tells that an image came, moved or went."""
        self.host.image_listeners.append(asyncio.Event())
        return self.host.image_listeners[-1]

    async def open(self) -> None:
        """Start listening to events."""
        self._is_open = True
        self._interruptions += 1

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        self._break_attachments()

    async def describe(self) -> EngineInfo:
        """Ask the engine who it is."""
        await self._call("describe")
        return EngineInfo(name="fake", version="1.0", cores=2, memory_bytes=2**33)

    async def image(self, name: str, pull: PullPolicy) -> Image:
        """Find or fetch an image."""
        await self._call("image")
        present = name in self.host.images and pull is not PullPolicy.ALWAYS
        if not present and pull is not PullPolicy.NEVER and name in self.host.silent:
            await asyncio.Event().wait()
        if not present:
            self._pull(name, pull)
        digest = self.host.images[name]
        return Image(name=name, digest=digest, image_id=digest)

    def _check_image(self, name_or_id: str) -> None:
        if name_or_id not in {*self.host.images, *self.host.images.values()}:
            raise ImageUnavailable(f"the image is not on the engine: {name_or_id}")

    def _pull(self, name: str, policy: PullPolicy) -> None:
        if policy is PullPolicy.NEVER:
            why = "it is not on the engine, and its pull policy is never"
            raise ImageUnavailable(f"image {name} is not available: {why}", why)
        if name not in self.host.registry:
            why = "the registry does not have it"
            raise ImageUnavailable(f"image {name} is not available: {why}", why)
        self.host.pulls.append(name)
        self.host.images[name] = self.host.registry[name]

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container, not started."""
        await self._call("create")
        if not spec.name:
            raise EngineError("a container needs a name: the engine would invent one, and no second could be refused")
        if self.host.find(spec.name) is not None:
            raise NameTaken(f"the container's name is taken: {spec.name}")
        self._check_image(spec.image)
        container = self.host.add(spec)
        if self.host.weaken:
            await self.host.remove(container)
            fields = ", ".join(self.host.weaken)
            raise LockdownRefused(f"the engine made a container that differs from what was asked for in {fields}")
        return container.container_id

    async def attach(self, container_id: str) -> Attachment:
        """Open the container's streams: what it prints from now on."""
        attachment = FakeAttachment(await self._find("attach", container_id))
        self._attachments.append(attachment)
        return attachment

    async def start(self, container_id: str) -> None:
        """Start it, unless it runs or has ended."""
        container = await self._find("start", container_id)
        if container.ended is not None:
            raise EngineError(f"container {container_id} has ended: it is never started again")
        if container.running:
            return
        if self.host.start_error:
            container.error = self.host.start_error
            raise EngineError(f"the engine refused (400): {self.host.start_error}")
        self.host.start(container)

    async def inspect(self, container_id: str) -> ContainerState:
        """The truth about the container now."""
        return (await self._find("inspect", container_id)).state

    async def wait(self, container_id: str) -> ContainerState:
        """Return once it has ended; an absent engine is waited for."""
        running_in = -1
        if "wait" in self.errors:
            raise self.errors["wait"]
        while True:
            changed, epoch = self.host.changed, self.epoch
            try:
                state = await self.inspect(container_id)
                if state.ended:
                    return replace(state, seen_ending=running_in == epoch)
                running_in = epoch
            except EngineUnavailable:
                pass  # it is waited for
            await changed.wait()

    async def spoiled(self, container_id: str) -> None:
        """Return once it does not run and wait any more."""
        while True:
            changed = self.host.changed
            try:
                state = await self.inspect(container_id)
            except EngineError:
                return
            if not state.running or state.paused:
                return
            await changed.wait()

    async def signal(self, container_id: str, signal: Signal) -> bool:
        """Send a signal to its first process."""
        hung = not self._going.is_set()
        container = await self._find("signal", container_id)
        return self.host.signal(container, signal) or hung  # when it goes on, it has not noticed the end yet

    async def history(self, container_id: str) -> History:
        """What the engine's process remembers: its latest 256 events."""
        await self._call("history")
        actions = [action for one, action in self.host.events if one == container_id]
        container = self.host.find(container_id)
        return History(
            created="create" in actions,
            kills=actions.count("kill"),
            died="die" in actions or (container is not None and container.died_s is not None),
            died_s=container.died_s if container else None,
            exit_code=container.told_code if container else None,
        )

    async def log(self, container_id: str) -> ContainerLog:
        """The engine's own record of the output."""
        container = await self._find("log", container_id)
        return ContainerLog(
            output=bytes(container.log[Stream.OUTPUT]),
            control=bytes(container.log[Stream.CONTROL]),
            rotated=container.log_rotated,
        )

    async def remove(self, container_id: str) -> None:
        """Kill it if it runs, and remove it."""
        await self._call("remove")
        container = self.host.find(container_id)
        if container is not None:
            await self.host.remove(container)

    async def owned(self, labels: Mapping[str, str]) -> list[OwnedContainer]:
        """All containers that carry every one of these labels."""
        await self._call("owned")
        return [
            OwnedContainer(one.container_id, one.name, dict(one.labels), one.created_at_s)
            for one in self.host.containers.values()
            if labels.items() <= one.labels.items()
        ]

    async def mounts(self, container_id: str) -> list[Mount]:
        """The folders behind a container's mounts."""
        container = await self._find("mounts", container_id)
        return [
            mount if mount.kind == "bind" else Mount("bind", f"/var/lib/fake/volumes/{mount.source}", mount.target)
            for mount in container.mounts
        ]

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a named volume, unless it exists."""
        await self._call("create_volume")
        self.host.volumes.setdefault(name, (dict(labels), {}))

    async def remove_volume(self, name: str) -> None:
        """Remove a named volume, if it exists and no container uses it."""
        await self._call("remove_volume")
        used = {mount.source for one in self.host.containers.values() for mount in one.mounts if mount.kind == "volume"}
        if name in used:
            raise EngineError(f"the engine refused (409): remove {name}: volume is in use")
        self.host.volumes.pop(name, None)

    async def owned_volumes(self, labels: Mapping[str, str]) -> list[str]:
        """Names of all volumes that carry every one of these labels."""
        await self._call("owned_volumes")
        return [name for name, (own, _) in self.host.volumes.items() if labels.items() <= own.items()]

    async def put_file(self, mount: Mount, image: str, path: str, data: bytes, labels: Mapping[str, str]) -> None:
        """Write a file into a mount."""
        await self._helper("put_file", mount, image, path, labels)
        self.host.write(mount, path, data)

    async def get_file(self, mount: Mount, image: str, path: str, labels: Mapping[str, str]) -> bytes:
        """Read a small file of a mount."""
        await self._helper("get_file", mount, image, path, labels)
        data = self.host.read(mount, path)
        if data is None:
            raise EngineError(f"the file {path} is not in {mount.source}")
        return data

    async def ensure_bridge(self, name: str, labels: Mapping[str, str]) -> Bridge:
        """Make the bridge where it is missing, and compare."""
        await self._call("ensure_bridge")
        return self.host.ensure_bridge(name, labels)

    async def remove_bridge(self, name: str) -> None:
        """Remove a bridge, unless a container uses it."""
        await self._call("remove_bridge")
        if any(one.spec and one.spec.network == name for one in self.host.containers.values()):
            raise EngineError(f"the engine refused (403): network {name} has active endpoints")
        self.host.bridges.pop(name, None)

    async def run_beside(
        self, container_id: str, image: str, command: tuple[str, ...], labels: Mapping[str, str]
    ) -> Helped:
        """Run a helper in a container's network namespace."""
        del labels
        beside = await self._find("run_beside", container_id)
        self._check_image(image)
        if self.host.weaken:
            raise LockdownRefused(f"the engine made a helper that differs in {', '.join(self.host.weaken)}")
        if not beside.running:
            raise EngineError(
                f"the engine refused (409): cannot join network of a non running container: {container_id}"
            )
        return self.host.help(beside, command)

    async def _helper(self, call: str, mount: Mount, image: str, path: str, labels: Mapping[str, str]) -> None:
        """A container that is never started comes and goes."""
        del labels
        await self._call(call)
        if path.startswith("/") or ".." in path.split("/") or not path:
            raise EngineError(f"{path!r} is not a path inside a mount: give one that is relative and does not climb")
        self._check_image(image)
        self.host.check_mounts((mount,))

    async def _find(self, call: str, container_id: str) -> Container:
        await self._call(call)
        container = self.host.find(container_id)
        if container is None:
            raise ContainerMissing(f"the container is gone: No such container: {container_id}")
        return container

    async def _call(self, name: str) -> None:
        """Every call goes through here: others get their turn, an absent engine answers none, a frozen one later."""
        self.calls += 1
        await asyncio.sleep(0)
        await self._going.wait()
        if name in self.errors:
            raise self.errors[name]
        if self._closed:
            raise EngineUnavailable("this agent has closed its connection to the engine")
        if self._away:
            raise EngineUnavailable("the engine does not answer")

    def _break_attachments(self) -> None:
        for attachment in self._attachments:
            attachment.break_off()
        self._attachments.clear()
