"""Files in mounts of the engine's host, written and read through containers that are never started."""

import io
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath

from docker import APIClient
from docker.errors import NotFound

from agp_agent.docker_engine.errors import explanation
from agp_agent.docker_engine.http import create_container, get_chunks
from agp_agent.docker_engine.translate import CONFINED, NO_NEW_PRIVILEGES, mount_body
from agp_agent.engine import Mount
from agp_agent.errors import EngineError

_FILE_MODE = 0o444
_FOLDER_MODE = 0o755
_READ_LIMIT_BYTES = 2**24


def put_file(client: APIClient, mount: Mount, image: str, path: str, *, data: bytes, labels: Mapping[str, str]) -> None:
    """Write a file (0444, in folders 0755, owned by root). Blocks."""
    archive = _archive(_inside(path), data)
    with _never_started(client, replace(mount, read_only=False), image, labels) as container_id:
        client.put_archive(container_id, mount.target, archive)


def get_file(client: APIClient, mount: Mount, image: str, path: str, labels: Mapping[str, str]) -> bytes:
    """Read a small file. Blocks.

    Raises:
        EngineError: it is missing, too large, or no regular file.
    """
    full_path = posixpath.join(mount.target, str(_inside(path)))
    with _never_started(client, mount, image, labels) as container_id:
        try:
            chunks = get_chunks(client, {"path": full_path}, "containers", container_id, "archive")
            return _content(_bounded(chunks, full_path), full_path)
        except NotFound as error:
            raise EngineError(f"the file {path} is not in {mount.source}: {explanation(error)}") from error


@contextmanager
def _never_started(client: APIClient, mount: Mount, image: str, labels: Mapping[str, str]) -> Iterator[str]:
    """A container that nothing ever runs in: what of its lockdown an engine might not give it could not be used.

    So it is asked for like any other, but for limits, and not read back: that would be two calls more for each file.
    """
    confined = CONFINED | {"SecurityOpt": [NO_NEW_PRIVILEGES], "Mounts": [mount_body(mount)]}
    body = {
        "Image": image,
        "Cmd": ["true"],
        "Labels": dict(labels),
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": confined,
    }
    container_id = create_container(client, body)
    try:
        yield container_id
    finally:
        client.remove_container(container_id, v=True, force=True)


def _inside(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise EngineError(f"{path!r} is not a path inside a mount: give one that is relative and does not climb")
    return relative


def _archive(path: PurePosixPath, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in list(path.parents)[-2::-1]:
            entry = tarfile.TarInfo(str(folder))
            entry.type, entry.mode = tarfile.DIRTYPE, _FOLDER_MODE
            archive.addfile(entry)
        entry = tarfile.TarInfo(str(path))
        entry.size, entry.mode = len(data), _FILE_MODE
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _bounded(chunks: Iterator[bytes], path: str) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > _READ_LIMIT_BYTES:
            raise EngineError(f"the file {path} is larger than {_READ_LIMIT_BYTES} bytes: it is not read")
    return bytes(data)


def _content(archive: bytes, path: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        first = members.next()
        reader = members.extractfile(first) if first is not None and first.isreg() else None
        if reader is None:
            raise EngineError(f"{path} is no regular file")
        return reader.read()
