"""What the host is asked after an attempt: its processes, mounts, kernel log, keys, devices and disks. Needs root."""

import asyncio
import contextlib
import ctypes
import io
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import docker

from agp_agent import __version__
from agp_agent.doctor.escape import baits
from agp_agent.doctor.escape.attempt import Host, Scene, Seen
from agp_agent.doctor.escape.programs.network import LOCAL_ETHERTYPE

PYTHON_IMAGE: Final = f"agp/runner-python:{__version__}"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ADD_KEY, _KEYCTL = 248, 250
_USER_KEYRING: Final = -4
_MIB: Final = 2**20


async def told(*command: object) -> str:
    """What a command of the host prints; it must end well."""
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0, command
    return printed.decode()


def processes_of(name: str) -> Iterator[Path]:
    """The folders in /proc of the host's processes whose command line has the name, those of containers included."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                yield folder


@contextlib.asynccontextmanager
async def shared_folder(host: Host) -> AsyncIterator[Scene]:
    """3: a folder whose mounts the host shares with whoever has it mounted so; the host's mount table tells."""
    name, shared = baits.new_name(), host.folder / "shared"
    (shared / "inside").mkdir(parents=True)
    await told("mount", "--bind", shared, shared)
    await told("mount", "--make-rshared", shared)

    async def harm(_seen: Seen) -> str | None:
        mounts = await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)
        return "the host's mount table has a new mount" if f" {name} " in mounts else None

    try:
        yield Scene({"name": name, "shared": str(shared)}, harm)
    finally:
        await told("umount", "--recursive", shared)


@contextlib.asynccontextmanager
async def sniffer(_host: Host) -> AsyncIterator[Scene]:
    """5: the host listens on all devices for a frame of a kind that nobody else sends."""
    name = baits.new_name()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(LOCAL_ETHERTYPE)) as raw:
        raw.settimeout(0)

        async def harm(_seen: Seen) -> str | None:
            with contextlib.suppress(BlockingIOError):
                while frame := raw.recv(2048):
                    if name.encode() in frame:
                        return "a forged frame reached the host's bridge"
            return None

        yield Scene({"name": name}, harm)


@contextlib.asynccontextmanager
async def fake_metadata(_host: Host, client: docker.DockerClient) -> AsyncIterator[Scene]:
    """6: a bridge on whose device the host answers for the clouds' metadata addresses."""
    name, heard = baits.new_name(), list[bytes]()
    addresses = [address for address in baits.METADATA if ":" not in address]
    network = client.networks.create(name, driver="bridge", labels={"agp.isolation": "control"})
    device = f"br-{str(network.id)[:12]}"
    for address in addresses:
        await told("ip", "address", "add", f"{address}/32", "dev", device)

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    servers = [await asyncio.start_server(hear, address, 0) for address in addresses]

    async def harm(_seen: Seen) -> str | None:
        return "a metadata service was reached" if name.encode() in heard else None

    try:
        ports = [(server.sockets[0].getsockname()) for server in servers]
        yield Scene({"name": name, "addresses": ports, "network": name}, harm)
    finally:
        for server in servers:
            server.close()
        network.remove()


@contextlib.asynccontextmanager
async def changed_sysctl(_host: Host) -> AsyncIterator[Scene]:
    """7: a harmless setting of the host's kernel, and another value for it."""
    sysctl = "kernel/printk_ratelimit_burst"
    path = Path("/proc/sys", sysctl)
    before = path.read_text().strip()
    other = str(int(before) + 1)

    async def harm(_seen: Seen) -> str | None:
        return "the host's kernel has another setting" if path.read_text().strip() == other else None

    try:
        yield Scene({"sysctl": sysctl, "value": other}, harm)
    finally:
        path.write_text(before)


@contextlib.asynccontextmanager
async def hostile_image(_host: Host, client: docker.DockerClient) -> AsyncIterator[Scene]:
    """9: an image with a setuid interpreter in it; the host's /proc tells whose rights a process has."""
    name, program = baits.new_name(), "/usr/local/bin/rootpython"
    recipe = f"FROM {PYTHON_IMAGE}\nUSER 0\nRUN cp /usr/bin/python3 {program} && chmod 4755 {program}\n"
    image, _ = await asyncio.to_thread(
        lambda: client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=name, rm=True)
    )

    async def harm(_seen: Seen) -> str | None:
        for process in processes_of(name):
            if re.search(rb"\nUid:\t\d+\t0\t", (process / "status").read_bytes()):
                return "a process of a task is root on the host"
        return None

    try:
        yield Scene({"name": name, "setuid": [program], "image": name}, harm)
    finally:
        client.images.remove(str(image.id), force=True)


@contextlib.asynccontextmanager
async def own_namespace(host: Host) -> AsyncIterator[Scene]:
    """10: a victim whose namespaces can be entered; the host's /proc tells in which user namespace a process is."""
    async with baits.victim(host) as scene:

        async def harm(seen: Seen) -> str | None:
            ours = Path("/proc/self/ns/user").readlink()
            for process in processes_of(scene.facts["name"]):
                if (process / "ns/user").readlink() != ours:
                    return "a process is root of a user namespace of its own"
            return await scene.harm(seen)

        yield Scene(scene.facts, harm)


@contextlib.asynccontextmanager
async def keyrings(_host: Host) -> AsyncIterator[Scene]:
    """11: the host's list of keys."""
    name = baits.new_name()

    async def harm(_seen: Seen) -> str | None:
        return "the kernel of the host holds a key of the task" if name in Path("/proc/keys").read_text() else None

    yield Scene({"name": name}, harm)


@contextlib.asynccontextmanager
async def release_agent(host: Host) -> AsyncIterator[Scene]:
    """12: a program of the host that leaves a file when anybody runs it as root of the host."""
    program, left = host.folder / "agent", host.folder / "released"
    program.write_text(f"#!/bin/sh\nid -u > {left}\n")
    program.chmod(0o755)

    async def harm(_seen: Seen) -> str | None:
        return "the host ran a program for the task, as root" if left.exists() else None

    name = baits.new_name()
    yield Scene({"name": name, "release_agent": str(program)}, harm)
    # One that stayed would keep containerd from seeing who ran out of memory, on the whole machine.
    assert name not in Path("/proc/self/cgroup").read_text(), "the program left its hierarchy behind"


@contextlib.asynccontextmanager
async def disk_usage(_host: Host, client: docker.DockerClient) -> AsyncIterator[Scene]:
    """13: how much of the engine's disk a container takes, its log included."""

    async def harm(seen: Seen) -> str | None:
        inspected = client.api.inspect_container(seen.container_id)
        folders = (
            Path(inspected["GraphDriver"]["Data"]["UpperDir"]),
            Path(client.info()["DockerRootDir"], "containers", inspected["Id"]),
        )
        layer, log = (_disk_mib(folder) for folder in folders)
        return f"{layer} MiB of the disk and {log} MiB of log were taken" if layer > 1 and log > 20 else None

    yield Scene({"limit_bytes": 300 * _MIB, "keep": True, "log_bytes": 32 * _MIB}, harm)


def _disk_mib(folder: Path) -> int:
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return sum(file.lstat().st_blocks for file in files) * 512 // _MIB


@contextlib.asynccontextmanager
async def disk(host: Host) -> AsyncIterator[Scene]:
    """15: a disk of the host with a mark in its first sector."""
    mark, image = secrets.token_hex(16), host.folder / "disk"
    image.write_bytes(mark.encode().ljust(_MIB, b"\0"))
    device = await told("losetup", "--find", "--show", image)
    path = Path(device.strip())

    async def harm(seen: Seen) -> str | None:
        return "a disk of the host was read" if mark.encode().hex().encode() in seen.output else None

    try:
        number = path.stat().st_rdev
        yield Scene({"disks": [(os.major(number), os.minor(number))]}, harm)
    finally:
        await told("losetup", "--detach", path)


@contextlib.asynccontextmanager
async def kernel_log(host: Host) -> AsyncIterator[Scene]:
    """19: the kernel's log, as the host reads it."""
    async with baits.disks(host) as scene:

        async def harm(_seen: Seen) -> str | None:
            log = await told("dmesg")
            return "a line of the task stands in the kernel's log" if scene.facts["name"] in log else None

        yield Scene(scene.facts, harm)


@contextlib.asynccontextmanager
async def running_copy(_host: Host) -> AsyncIterator[Scene]:
    """20: the host's /proc tells which file a process runs."""
    name = baits.new_name()

    async def harm(_seen: Seen) -> str | None:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "exe").readlink().name == name:
                    return "a program that the task wrote is running"
        return None

    yield Scene({"name": name}, harm)


@contextlib.asynccontextmanager
async def memory_of_arguments(_host: Host) -> AsyncIterator[Scene]:
    """21: how much memory of the host all processes of the task hold."""
    name = baits.new_name()

    async def harm(_seen: Seen) -> str | None:
        held = sum(_own_mib(process) for process in processes_of(name))
        return f"{held} MiB of the host's memory are taken by command lines" if held > 520 else None

    yield Scene({"name": name, "number": 160, "words": 40}, harm)


def _own_mib(process: Path) -> int:
    """Memory that it shares with nobody."""
    with contextlib.suppress(OSError, ValueError):
        rollup = (process / "smaps_rollup").read_text()
        return int(rollup.partition("Anonymous:")[2].split()[0]) // 1024
    return 0


@contextlib.asynccontextmanager
async def key_and_environment(host: Host) -> AsyncIterator[Scene]:
    """25: a key of the host's root, readable for everybody, and a process with a secret in its environment."""
    async with baits.victim(host) as scene:
        mark = secrets.token_hex(16)
        key = _LIBC.syscall(_ADD_KEY, b"user", scene.facts["name"].encode(), mark.encode(), len(mark), _USER_KEYRING)
        assert key > 0, os.strerror(ctypes.get_errno())
        _LIBC.syscall(_KEYCTL, 5, key, 0x3F3F3F3F)

        async def harm(seen: Seen) -> str | None:
            return "a key of the host was read" if mark.encode() in seen.output else await scene.harm(seen)

        marks = [*scene.facts["reversed_marks"], mark[::-1]]
        try:
            yield Scene({**scene.facts, "reversed_marks": marks, "keys": [key]}, harm)
        finally:
            _LIBC.syscall(_KEYCTL, 9, key, _USER_KEYRING)  # unlink
