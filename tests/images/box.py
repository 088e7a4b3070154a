"""One container as the agent makes it: the full lockdown, written out here once more, independent of the product."""

import contextlib
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import docker
from docker.errors import NotFound
from docker.utils.socket import STDERR, STDOUT, frames_iter_no_tty

TASK_UID = 20007
PATIENCE_S = 120


@dataclass(frozen=True)
class Finished:
    """What a container left: its exit code, what the playbook printed, and what the entry said beside it."""

    exit_code: int
    output: bytes
    control: bytes

    @property
    def text(self) -> str:
        """The playbook's output."""
        return self.output.decode()


def new_nonce() -> str:
    """A fresh nonce, as the agent makes it."""
    return secrets.token_hex(16)


def started(nonce: str) -> bytes:
    """The start marker that belongs to a nonce."""
    return f"agp1 started {nonce}\n".encode()


def playbook_folder(parent: Path, suffix: str, content: str | bytes) -> Path:
    """A folder to mount, with the playbook in it, readable for everybody whatever the umask."""
    folder = parent / secrets.token_hex(4)
    folder.mkdir()
    file = folder / f"playbook{suffix}"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(0o444)
    folder.chmod(0o755)
    return folder


def locked_down(folder: Path, uid: int, *, executable_work: bool) -> dict[str, Any]:
    """The lockdown, in the words of Docker's API."""
    owner = f"uid={uid},gid={uid},mode=0700,nosuid,nodev"
    return {
        "User": f"{uid}:{uid}",
        "Hostname": "runner",
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "NetworkDisabled": True,
        "HostConfig": {
            "Init": True,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "IpcMode": "private",
            "Memory": 512 * 2**20,
            "MemorySwap": 512 * 2**20,
            "NanoCpus": 10**9,
            "PidsLimit": 256,
            "ShmSize": 2**20,
            "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 1024}, {"Name": "core", "Soft": 0, "Hard": 0}],
            "Tmpfs": {
                "/tmp": f"{owner},noexec,size={64 * 2**20}",
                "/work": f"{owner},{'exec' if executable_work else 'noexec'},size={256 * 2**20}",
            },
            "Mounts": [{"Type": "bind", "Source": str(folder), "Target": "/playbook", "ReadOnly": True}],
        },
    }


class Box:
    """A container under lockdown, attached and started; it is removed at the end of the ``with``."""

    def __init__(self, client: docker.DockerClient, config: dict[str, Any]) -> None:
        """Create, attach, start; in this order, so that no byte is lost."""
        api: Any = client.api  # the SDK's own types end here
        self._api = api
        self.id: str = self._api.create_container_from_config(config)["Id"]
        self._attached = self._api.attach_socket(self.id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        self._frames: Iterator[tuple[int, bytes]] = cast(
            "Iterator[tuple[int, bytes]]", frames_iter_no_tty(self._attached)
        )
        self._streams = {STDOUT: bytearray(), STDERR: bytearray()}
        self._api.start(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        # The SDK keeps the HTTP response beside the socket; both hold the connection.
        self._attached._response.close()
        self._attached.close()
        with contextlib.suppress(NotFound):
            self._api.remove_container(self.id, force=True, v=True)

    def send(self, line: str) -> None:
        """Write one line to the container's stdin."""
        self._attached._sock.sendall(f"{line}\n".encode())

    def release(self) -> str:
        """Release the container; return the nonce that was sent."""
        nonce = new_nonce()
        self.send(f"agp1 release {nonce}")
        return nonce

    def hang_up(self) -> None:
        """End the container's stdin, as the kernel does when the agent dies."""
        self._attached._sock.shutdown(socket.SHUT_WR)

    def signal(self, name: str) -> None:
        """Send a signal to the container's process 1, as the engine does to stop it."""
        self._api.kill(self.id, name)

    def wait_for_output(self, expected: bytes) -> None:
        """Read until the playbook has printed ``expected``."""
        looked_at = 0
        while expected not in self._streams[STDOUT][looked_at:]:
            looked_at = max(0, len(self._streams[STDOUT]) - len(expected))
            stream, chunk = next(self._frames)
            self._streams[stream] += chunk

    @property
    def output(self) -> bytes:
        """What the playbook printed, as far as it was read."""
        return bytes(self._streams[STDOUT])

    def commands(self) -> list[str]:
        """The command lines of all processes in the container."""
        return [row[-1] for row in self._api.top(self.id, "-eo pid,args")["Processes"]]

    def holds(self, condition: str) -> bool:
        """Whether a line of shell is true inside the container; it is another process than the task's."""
        command = self._api.exec_create(self.id, ["sh", "-c", f"{{ {condition}; }} 2>/dev/null"])["Id"]
        self._api.exec_start(command)
        return bool(self._api.exec_inspect(command)["ExitCode"] == 0)

    def printed_so_far(self) -> bytes:
        """All that the container has printed, on either stream, by the engine's log."""
        return bytes(self._api.logs(self.id))

    def finish(self) -> Finished:
        """Read to the end, then ask the engine for the exit code."""
        for stream, chunk in self._frames:
            self._streams[stream] += chunk
        exit_code = self._api.wait(self.id, timeout=PATIENCE_S)["StatusCode"]
        return Finished(exit_code, bytes(self._streams[STDOUT]), bytes(self._streams[STDERR]))


@dataclass(frozen=True)
class Boxes:
    """Makes boxes from one runner image."""

    client: docker.DockerClient
    image: str
    suffix: str
    command: tuple[str, ...]
    executable_work: bool
    folder: Path

    @contextlib.contextmanager
    def open(
        self,
        playbook: str | bytes,
        *,
        command: tuple[str, ...] | None = None,
        uid: int = TASK_UID,
        env: dict[str, str] | None = None,
        entrypoint: tuple[str, ...] | None = None,
        secrets_place: bool = False,
    ) -> Iterator[Box]:
        """A box that waits for its release; ``command`` replaces the runner's; ``secrets_place``: it takes secrets."""
        config = locked_down(
            playbook_folder(self.folder, self.suffix, playbook), uid, executable_work=self.executable_work
        )
        config |= {"Image": self.image, "Cmd": list(self.command if command is None else command)}
        config["Env"] = [f"{name}={value}" for name, value in (env or {}).items()]
        if secrets_place:
            owner = f"uid={uid},gid={uid},mode=0700,nosuid,nodev,noexec"
            config["HostConfig"]["Tmpfs"]["/run/secrets"] = f"{owner},size={2**20}"
        if entrypoint:
            config["Entrypoint"] = list(entrypoint)
        with Box(self.client, config) as box:
            yield box

    def run(self, playbook: str | bytes, *, env: dict[str, str] | None = None, uid: int = TASK_UID) -> Finished:
        """Run a playbook from release to end."""
        with self.open(playbook, env=env, uid=uid) as box:
            box.release()
            return box.finish()

    def look(self, script: str, *, uid: int = TASK_UID) -> Finished:
        """Run a few lines of shell inside the image, whatever its runner's language is."""
        with self.open(script, command=("sh", f"/playbook/playbook{self.suffix}"), uid=uid) as box:
            box.release()
            return box.finish()
