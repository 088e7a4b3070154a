"""Images as they are shipped: their normalised file trees, and building them once more."""

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker
from docker.models.images import Image

from agp_agent import __version__

ROOT: Final = Path(__file__).parents[2]
RUNNERS: Final = ("runner-shell", "runner-python", "runner-ansible")
NAMES: Final = (*RUNNERS, "fence", "agent")
_OF_THE_ENGINE: Final = {".dockerenv", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "proc", "sys"}
"""What every container has on top of its image."""
_TITLE: Final = "org.opencontainers.image."


def tag_of(name: str) -> str:
    """The image as the project tags it."""
    return f"agp/{name}:{__version__}"


def revision_of(client: docker.DockerClient, name: str) -> str:
    """The commit that an image says it was built of."""
    return str(client.images.get(tag_of(name)).labels[f"{_TITLE}revision"])


def tree_of(client: docker.DockerClient, tag: str) -> dict[str, str]:
    """Every file of an image: its path to kind, mode, owner, target and a hash of the content. Times are left out."""
    container = client.api.create_container(tag, entrypoint=["/nothing"])["Id"]
    try:
        with tarfile.open(fileobj=_Chunks(client.api.export(container)), mode="r|") as archive:  # type: ignore[call-overload]
            return {
                member.name: _line(archive, member)
                for member in archive
                if not _OF_THE_ENGINE & {member.name, member.name.split("/")[0]}
            }
    finally:
        client.api.remove_container(container)


def _line(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = archive.extractfile(member) if member.isreg() else None
    digest = hashlib.sha256(content.read()).hexdigest() if content else "-"
    return f"{member.type.decode()} {member.mode:o} {member.uid}:{member.gid} {member.linkname or '-'} {digest}"


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The paths that are not the same in both, each with both sides."""
    paths = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
    return [f"{path}: {one.get(path, 'missing')} | {other.get(path, 'missing')}" for path in paths]


@contextmanager
def built_again(client: docker.DockerClient, name: str) -> Iterator[str]:
    """Build an image once more from the same inputs, without any cache; yields its tag, and removes it afterwards."""
    first: Image = client.images.get(tag_of(name))
    tag = f"agp-again/{name}:{__version__}"
    context, dockerfile = (".", "Dockerfile") if name == "agent" else ("images", _dockerfile_of(name))
    arguments = {
        "BASE_IMAGE": os.environ.get("BASE_IMAGE", "debian:trixie-slim"),
        "VERSION": first.labels[f"{_TITLE}version"],
        "REVISION": first.labels[f"{_TITLE}revision"],
    }
    command = ["docker", "build", "--no-cache", "--file", dockerfile, "--tag", tag]
    command += [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    built = subprocess.run((*command, context), cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert built.returncode == 0, built.stdout.decode(errors="replace")[-4000:]
    try:
        yield tag
    finally:
        client.images.remove(tag)
        client.images.prune({"label": "agp.build.stage", "dangling": True})


def _dockerfile_of(name: str) -> str:
    return f"images/{name.removeprefix('runner-')}/Dockerfile"


class _Chunks:
    """A stream of chunks as the file that ``tarfile`` reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        while len(self._rest) < size and (chunk := next(self._chunks, None)) is not None:
            self._rest += chunk
        found, self._rest = self._rest[:size], self._rest[size:]
        return found
