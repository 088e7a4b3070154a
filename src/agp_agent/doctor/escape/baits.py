"""What is laid out on the host for an attempt, and how it is looked at afterwards, as far as this process can see it.

Everything here is harmless by itself, and gone when its ``async with`` ends.
"""

import asyncio
import contextlib
import fcntl
import secrets
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from agp_agent.doctor.escape.attempt import Host, Scene, Seen
from agp_agent.errors import EngineError

LABEL: Final = "agp.escape"
METADATA: Final = ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")
"""Where clouds tell a machine its credentials."""
SOCKETS: Final = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
    "/run/crio/crio.sock", "/run/user/0/docker.sock", "/run/tailscale/tailscaled.sock",
)  # fmt: skip
_SIOCGIFADDR: Final = 0x8915
_CHANGED: Final = b"# changed by the playbook itself"
_NOTICE_S: Final = 0.5
"""How long it may take to see that a process has ended."""


def new_name() -> str:
    """A name that nothing else has: what bears it on the host was made by the attempt."""
    return f"agp-escape-{secrets.token_hex(6)}"


async def unharmed(_seen: Seen) -> str | None:
    """The judge of attempts whose success only the kernel's answers show."""
    return None


@contextlib.asynccontextmanager
async def nothing(_host: Host, **facts: object) -> AsyncIterator[Scene]:
    """No bait: what the kernel answered is the verdict."""
    yield Scene({"name": new_name(), **facts}, unharmed)


@contextlib.asynccontextmanager
async def own_playbook(_host: Host) -> AsyncIterator[Scene]:
    """The program's own playbook, as the engine's host has it."""

    async def harm(seen: Seen) -> str | None:
        try:
            now = await seen.playbook()
        except (EngineError, OSError):
            return "the playbook on the host is gone"
        return "the playbook on the host was changed" if now.count(_CHANGED) > 1 else None

    yield Scene({}, harm)


@contextlib.asynccontextmanager
async def engine_sockets(host: Host) -> AsyncIterator[Scene]:
    """The engine itself: a container with a fresh label on it was made by the attempt."""
    name = new_name()

    async def harm(_seen: Seen) -> str | None:
        return "a container was made on the engine" if await host.engine.owned({LABEL: name}) else None

    try:
        yield Scene({"sockets": SOCKETS, "label": LABEL, "name": name}, harm)
    finally:
        for made in await host.engine.owned({LABEL: name}):
            await host.engine.remove(made.container_id)


@contextlib.asynccontextmanager
async def victim(_host: Host) -> AsyncIterator[Scene]:
    """A process of this machine that sleeps, with a secret in its environment."""
    name, mark = new_name(), secrets.token_hex(16)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(600)", name, env={"AGP_ESCAPE_SECRET": mark}
    )

    async def harm(seen: Seen) -> str | None:
        if mark.encode() in seen.output:
            return "the environment of a process of the host was read"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _NOTICE_S)
            return "a process of the host was ended"
        score = await asyncio.to_thread(Path(f"/proc/{process.pid}/oom_score_adj").read_text)
        return "a process of the host was given up to the kernel" if score.strip() == "900" else None

    try:
        yield Scene({"pid": process.pid, "name": name, "reversed_marks": [mark[::-1]]}, harm)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def secret_file(host: Host) -> AsyncIterator[Scene]:
    """A file beside the agent's own, with a secret in it."""
    mark = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="agp-escape-", dir=host.folder) as folder:
        path = Path(folder) / "token"
        await asyncio.to_thread(path.write_text, mark)

        async def harm(seen: Seen) -> str | None:
            return "a file of the host was read" if mark.encode() in seen.output else None

        forbidden = [folder, f"/proc/1/root{folder}", "/var/lib/agp-agent", "/var/lib/docker", "/host", "/run/secrets"]
        yield Scene({"reversed_marks": [mark[::-1]], "roots": ["/", *forbidden], "forbidden": forbidden}, harm)


@contextlib.asynccontextmanager
async def listeners(_host: Host) -> AsyncIterator[Scene]:
    """A port on every address of this machine, and an abstract socket; both take what is said to them."""
    name = new_name()
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(hear, host=None, port=0, family=socket.AF_INET)
    local = await asyncio.start_unix_server(hear, f"\0{name}")
    port = server.sockets[0].getsockname()[1]

    async def harm(_seen: Seen) -> str | None:
        return "the host was reached" if name.encode() in heard else None

    try:
        addresses = [(address, port) for address in own_addresses()]
        yield Scene({"addresses": addresses, "abstract": [name], "name": name}, harm)
    finally:
        server.close()
        local.close()


def own_addresses() -> list[str]:
    """The IPv4 addresses of this machine's devices."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, device in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", device.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    return found


@contextlib.asynccontextmanager
async def settings_of_the_kernel(_host: Host) -> AsyncIterator[Scene]:
    """A harmless sysctl, and its own value: nothing changes even where it can be written."""
    sysctl = "kernel/printk_ratelimit_burst"
    value = await asyncio.to_thread(Path("/proc/sys", sysctl).read_text)
    yield Scene({"sysctl": sysctl, "value": value.strip()}, unharmed)


@contextlib.asynccontextmanager
async def disks(_host: Host) -> AsyncIterator[Scene]:
    """The disks of this machine, by number."""
    lines = (await asyncio.to_thread(Path("/proc/partitions").read_text)).splitlines()[2:]
    numbers = [tuple(map(int, line.split()[:2])) for line in lines]
    files = [f"/dev/{line.split()[3]}" for line in lines]
    yield Scene({"disks": numbers[:4], "disk_files": files[:4], "name": new_name()}, unharmed)
