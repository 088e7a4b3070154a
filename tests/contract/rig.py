"""The two engines under test, each with what the suite needs to play with it."""

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agp_agent.docker_engine import DockerEngine, Endpoint
from agp_agent.engine import Attachment, ContainerEngine, ContainerSpec, ContainerState, Mount, Stream, Tmpfs
from contract.line import Line
from contract.scripts import Dialect, Step, playbook
from fakes.fake_engine import FakeEngine

IMAGE = "agp/runner-shell:0.2.0"
FENCE_IMAGE = "agp/fence:0.2.0"
FENCE = "/usr/local/bin/agp-fence"
NO_IMAGE = "127.0.0.1:1/agp/no-such-image:1"
NONCE = "0123456789abcdef0123456789abcdef"
RELEASE = f"agp1 release {NONCE}\n".encode()
MARKER = f"agp1 started {NONCE}\n".encode()


class Run(NamedTuple):
    """All that came of one container."""

    state: ContainerState
    output: bytes
    control: bytes


class Rig(ABC):
    """One engine, and the ways to disturb it."""

    dialect: Dialect
    image = IMAGE

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.labels = {"agp.test": uuid.uuid4().hex}
        self.bridge = self.name()
        """The name of a network that nobody has."""

    @property
    @abstractmethod
    def engine(self) -> ContainerEngine:
        """The engine under test."""

    @property
    @abstractmethod
    def calls(self) -> int:
        """How often the engine was asked something so far."""

    @abstractmethod
    async def cut(self) -> None:
        """The engine can no longer be reached; what runs in it runs on."""

    @abstractmethod
    async def mend(self) -> None:
        """It can be reached again, and is the same process."""

    @abstractmethod
    async def pause(self, container_id: str) -> None:
        """Somebody freezes a container."""

    @abstractmethod
    async def tag(self, name: str) -> None:
        """Somebody gives the image this name, too, and takes it away again."""

    @abstractmethod
    def weaken(self) -> None:
        """From now on the engine makes privileged containers."""

    def name(self) -> str:
        """A name that nobody else uses."""
        return f"agp-contract-{uuid.uuid4().hex}"

    def folder(self, *steps: Step) -> Mount:
        """A folder on the engine's host with a playbook, as it is mounted."""
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir()
        folder.chmod(0o755)
        file = folder / "playbook.sh"
        file.write_bytes(playbook(self.dialect, *steps))
        file.chmod(0o444)
        return Mount("bind", str(folder), "/playbook")

    def spec(self, *steps: Step, labels: Mapping[str, str] | None = None) -> ContainerSpec:
        """A container that does these steps."""
        return ContainerSpec(
            name=self.name(),
            image=self.image,
            command=("agp-shell", "/playbook/playbook.sh"),
            uid=20007,
            labels={**self.labels, **(labels or {})},
            env={"LANG": "C.UTF-8", "AGP_WORD": "with = and spaces"},
            mounts=(self.folder(*steps),),
            tmpfs={"/tmp": Tmpfs(2**26), "/work": Tmpfs(2**26)},
            memory_bytes=2**26,
            cpus=1.0,
            pids=64,
            log_limit_bytes=2**20,
        )

    async def created(self, *steps: Step) -> str:
        """Create a container; its id."""
        return await self.engine.create(self.spec(*steps))

    async def prepared(self, *steps: Step) -> tuple[str, Attachment]:
        """A container that runs and waits for its release."""
        container_id = await self.created(*steps)
        attachment = await self.engine.attach(container_id)
        await self.engine.start(container_id)
        return container_id, attachment

    async def released(self, *steps: Step) -> tuple[str, Attachment]:
        """A container whose playbook has begun; its marker has been read."""
        container_id, attachment = await self.prepared(*steps)
        await attachment.send(RELEASE)
        control = b""
        async for stream, data in attachment.frames():
            control += data if stream is Stream.CONTROL else b""
            if control == MARKER:
                break
        return container_id, attachment

    async def run(self, *steps: Step) -> Run:
        """Run a playbook from the beginning to the end, and remove its container."""
        return await self.run_spec(self.spec(*steps))

    async def run_spec(self, spec: ContainerSpec, *, mount: Mount | None = None, before_release: bytes = b"") -> Run:
        """The same for a spec, perhaps with another mount, and with lines before the release."""
        container_id = await self.engine.create(replace(spec, mounts=(mount,)) if mount else spec)
        attachment = await self.engine.attach(container_id)
        try:
            await self.engine.start(container_id)
            await attachment.send(before_release + RELEASE)
            output, control = await everything(attachment)
            state = await self.engine.wait(container_id)
        finally:
            await attachment.aclose()
        await self.engine.remove(container_id)
        return Run(state, output, control)


async def everything(attachment: Attachment) -> tuple[bytes, bytes]:
    """Read an attachment to its end: output and control."""
    read = {stream: bytearray() for stream in Stream}
    async for stream, data in attachment.frames():
        read[stream] += data
    return bytes(read[Stream.OUTPUT]), bytes(read[Stream.CONTROL])


class FakeRig(Rig):
    """The engine in memory."""

    dialect = Dialect.FAKE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._engine = FakeEngine()
        self._engine.host.images |= dict.fromkeys((IMAGE, FENCE_IMAGE), f"sha256:{'0' * 64}")

    @property
    def engine(self) -> FakeEngine:
        """The fake."""
        return self._engine

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return self._engine.calls

    async def cut(self) -> None:
        """It goes away."""
        self._engine.go_away()

    async def mend(self) -> None:
        """It comes back."""
        await self._engine.come_back(restarted=False)

    async def pause(self, container_id: str) -> None:
        """Its host freezes it."""
        container = self._engine.host.find(container_id)
        assert container is not None
        self._engine.host.pause(container)

    async def tag(self, name: str) -> None:
        """Its host does."""
        self._engine.host.tag(name, self._engine.host.images[IMAGE])
        del self._engine.host.images[name]

    def weaken(self) -> None:
        """It is told what to do wrong."""
        self._engine.host.weaken = ("HostConfig.Privileged",)


class DockerRig(Rig):
    """The real engine, over a line that can be cut."""

    dialect = Dialect.SHELL

    def __init__(self, folder: Path, engine: DockerEngine | None = None) -> None:
        """Take a folder, and perhaps an engine that does not use the line."""
        super().__init__(folder)
        self._line = Line(folder / "engine.sock", Endpoint.from_environment(os.environ))
        self._engine = engine or DockerEngine(f"unix://{self._line.path}", timeout_s=20)

    @property
    def engine(self) -> DockerEngine:
        """The adapter."""
        return self._engine

    @property
    def calls(self) -> int:
        """How many requests it has sent."""
        return self._line.requests

    async def cut(self) -> None:
        """Cut the line."""
        await self._line.cut()

    async def mend(self) -> None:
        """Mend it."""
        await self._line.open()

    async def pause(self, container_id: str) -> None:
        """The engine freezes it."""
        await self._engine._calls.run(lambda client: client.pause(container_id))

    async def tag(self, name: str) -> None:
        """The engine does."""
        await self._engine._calls.run(lambda client: client.tag(IMAGE, name))
        await self._engine._calls.run(lambda client: client.remove_image(name))

    def weaken(self) -> None:
        """What inspect says is changed on its way."""
        self._line.tamper = b'"Privileged":false', b'"Privileged":true '


@asynccontextmanager
async def fake_rig(folder: Path) -> AsyncIterator[FakeRig]:
    """A fake engine for one test."""
    rig = FakeRig(folder)
    await rig.engine.open()
    yield rig
    await rig.engine.aclose()
    await rig.engine.host.stop()


@asynccontextmanager
async def docker_rig(folder: Path, engine: DockerEngine | None = None) -> AsyncIterator[DockerRig]:
    """The real engine for one test, over a line of its own or as given; nothing stays behind on it."""
    rig = DockerRig(folder, engine)
    await rig.mend()
    await rig.engine.open()
    try:
        yield rig
    finally:
        await rig.engine.aclose()
        await rig.cut()
        sweeper = DockerEngine.from_environment(os.environ)
        for container in await sweeper.owned(rig.labels):
            await sweeper.remove(container.container_id)
        for volume in await sweeper.owned_volumes(rig.labels):
            await sweeper.remove_volume(volume)
        await sweeper.remove_bridge(rig.bridge)
        await sweeper.aclose()
