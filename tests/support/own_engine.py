"""A container engine of the tests' own, which may be stopped, frozen and killed: nobody else's containers are on it."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

from agp_agent import __version__
from support.engine_proxy import connect_to_engine
from support.network_thread import in_network
from support.waiting import eventually

T = TypeVar("T")

SHELL_IMAGE: Final = f"agp/runner-shell:{__version__}"
"""The runner that most faults need; the catalog's other images are larger, and may be missing."""
PYTHON_IMAGE: Final = f"agp/runner-python:{__version__}"
RUNNER_IMAGES: Final = (SHELL_IMAGE, PYTHON_IMAGE, f"agp/runner-ansible:{__version__}")
"""Those of all built-in runners."""

_HOLDER: Final = """
mkdir -p /run/containerd
mount -t tmpfs none /run/containerd
echo ready
exec sleep infinity
"""
"""Keeps the namespaces alive. The empty folder hides the machine's containerd: dockerd then starts one of its own."""
_DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM", "--")
"""Before a command: where this process is killed, the engine stops as it is told to, and its containers with it."""
_PING_S: Final = 5.0
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


class OwnEngine:
    """A second dockerd with its own containerd, in a network and a mount namespace of its own. Needs root.

    Data and images outlive ``stop`` and ``kill``; ``close`` ends everything and leaves nothing behind. Like Docker's
    own, it takes a registry on its loopback for one that may be asked in plain http.
    """

    def __init__(
        self, runtimes: Mapping[str, Sequence[str]] | None = None, programs: Path | None = None, *, bridge: bool = False
    ) -> None:
        """Make the namespaces and the folders; nothing is started.

        ``programs`` is where another release's packages are unpacked; without it the machine's are run. With ``bridge``
        it has Docker's usual network, which nothing outside of its own namespace is on. ``runtimes`` are those that it
        has beside runc: names, each with a program and its arguments. ``machine`` is the environment of now: it names
        the machine's engine, of which this one gets its images.
        """
        assert os.geteuid() == 0, "an engine of the tests' own can be started by root alone"
        self.folder = Path(tempfile.mkdtemp(prefix="agp-engine-"))
        self.log_path = self.folder / "dockerd.log"
        self.docker_host = f"unix://{self.folder}/docker.sock"
        self._cgroup = self.folder.name
        self.machine = dict(os.environ)
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._live_restore = False
        self._bridge = bridge
        path = [str(programs.absolute() / "usr" / name) for name in ("sbin", "bin")] if programs else []
        self._environment = self.machine | {"PATH": os.pathsep.join([*path, self.machine["PATH"]])}
        configured = {
            name: {"path": command[0], "runtimeArgs": list(command[1:])} for name, command in (runtimes or {}).items()
        }
        (self.folder / "daemon.json").write_text(json.dumps({"runtimes": configured}))
        self._holder = subprocess.Popen(
            (*_DIES_WITH_US, "unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", _HOLDER),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", "no namespaces of our own"
        self._in_network(_loopback_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # --- its life ----------------------------------------------------------------------------------------------------

    def start(self, *, live_restore: bool = False, patience_s: float = 60, wrapper: Sequence[str] = ()) -> Self:
        """Start dockerd on the data that is there, by a command that executes it if one is given.

        Returns once it answers.
        """
        assert self._dockerd is None or self._dockerd.poll() is not None, "it runs already"
        for stale in (
            "docker.pid",
            "exec/containerd/containerd.pid",
        ):  # of a zombie, or another process's number by now
            (self.folder / stale).unlink(missing_ok=True)
        self._live_restore = live_restore
        command = (
            *_DIES_WITH_US,
            *("nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--"),
            *(*wrapper, "dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
            *("--pidfile", f"{self.folder}/docker.pid", "--host", self.docker_host),
            *("--config-file", f"{self.folder}/daemon.json"),
            *(() if self._bridge else ("--bridge=none", "--iptables=false", "--ip-masq=false")),
            *(f"--cgroup-parent=/{self._cgroup}", "--exec-opt=native.cgroupdriver=cgroupfs"),
            f"--live-restore={str(live_restore).lower()}",
        )
        with self.log_path.open("ab") as log:
            self._dockerd = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests: they tidy up, and end it
            )
        eventually(self._answers_or_died, "the tests' own engine answers", patience_s=patience_s)
        return self

    def stop(self) -> int:
        """End dockerd by SIGTERM, as an operator does, and return its exit code. Without live-restore it stops all."""
        self.dockerd.send_signal(signal.SIGTERM)
        return self.dockerd.wait(60)

    def kill(self) -> None:
        """End dockerd alone by SIGKILL; the kernel then ends its containerd, and the shims live on."""
        self.dockerd.kill()
        self.dockerd.wait(60)
        eventually(lambda: not self._pids("containerd"), "the end of its containerd")

    def pause(self) -> None:
        """Freeze dockerd: its socket still takes connections, and no call is answered."""
        self.dockerd.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let dockerd go on."""
        self.dockerd.send_signal(signal.SIGCONT)

    def kill_containerd(self) -> None:
        """End its containerd by SIGKILL; dockerd starts another one after a while."""
        (pid,) = eventually(lambda: self._pids("containerd"), "its containerd")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in self._pids("containerd"), "the end of its containerd")

    def kill_shim(self, container_id: str) -> None:
        """End the shim of a container by SIGKILL: the parent of what runs in it."""
        (pid,) = self.shims(container_id)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in self.shims(container_id), f"the end of the shim of {container_id[:12]}")

    def restart(self, *, live_restore: bool = False) -> None:
        """Make sure that it runs, with or without live-restore, whatever was done to it; what runs so may run on."""
        if self._dockerd is not None and self._dockerd.poll() is None:
            self.resume()
            if self._live_restore == live_restore:
                return
            self.stop()
        self.start(live_restore=live_restore)

    def close(self) -> None:
        """End everything that it started, the containers too, and remove all its traces. Idempotent."""
        eventually(self._nothing_runs, "the end of all that the tests' own engine started")
        for running in (self._dockerd, self._holder):
            if running is not None:
                running.kill()
                running.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()
        eventually(lambda: not self._remove_cgroups(), "the removal of its control groups")
        shutil.rmtree(self.folder, ignore_errors=True)  # what was mounted there went with the namespace
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not self.folder.exists(), f"{self.folder} cannot be removed"

    # --- what it has -------------------------------------------------------------------------------------------------

    @property
    def dockerd(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self._dockerd is not None, "it was never started"
        return self._dockerd

    def answers(self) -> bool:
        """Whether it answers now."""
        with contextlib.suppress(OSError), connect_to_engine(self.docker_host) as connection:
            connection.settimeout(_PING_S)
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    def load_runner_images(self, *names: str) -> None:
        """Copy images of the machine's engine, by default the shell runner's, unless they are there already."""
        for name in names or (SHELL_IMAGE,):
            if self._docker("image", "inspect", name).returncode != 0:
                with subprocess.Popen(("docker", "save", name), stdout=subprocess.PIPE, env=self.machine) as saving:
                    loaded = self._docker("load", stdin=saving.stdout)
                assert (saving.returncode, loaded.returncode) == (0, 0), loaded.stdout

    def take_images_of(self, folder: Path) -> None:
        """Begin with the data of an engine that has the shell runner's image; the first one that asks makes them.

        A copy takes a second, and loading an image of an engine's takes ten where several do it at once.
        """
        data = folder / "data"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not data.exists():
                self.start().load_runner_images()
                self.stop()
                _copy(self.folder / "data", folder / "half")
                (folder / "half").rename(data)
                return
        _copy(data, self.folder / "data")

    def shims(self, container_id: str) -> list[int]:
        """The process ids of a container's shim."""
        return [pid for pid in self._pids("containerd-shim-runc-v2") if container_id in _read(pid, "cmdline")]

    def processes_of(self, container_id: str) -> list[int]:
        """The process ids of all that runs in a container, by its control group."""
        return [pid for pid in _all_pids() if container_id in _read(pid, "cgroup") and _runs(pid)]

    def listen(self) -> socket.socket:
        """A socket on a free port of its loopback, which only it can reach."""
        return self._in_network(lambda: socket.create_server(("127.0.0.1", 0)))

    # --- its insides -------------------------------------------------------------------------------------------------

    def _answers_or_died(self) -> bool:
        ended = self.dockerd.poll()
        assert ended is None, f"dockerd ended with {ended}:\n{self.log_path.read_text()[-4000:]}"
        return self.answers()

    def _docker(self, *arguments: str, **more: object) -> "subprocess.CompletedProcess[bytes]":
        command = ("docker", "--host", self.docker_host, *arguments)
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **more)  # type: ignore[call-overload,no-any-return]

    def _pids(self, name: str) -> list[int]:
        """Its own processes of a name, which the kernel cuts at 15 characters."""
        mine = _mount_namespace(self._holder.pid)
        named = [pid for pid in _all_pids() if _read(pid, "comm").strip() == name[:15]]
        return [pid for pid in named if _mount_namespace(pid) == mine and _runs(pid)]

    def _nothing_runs(self) -> bool:
        """Kill whatever there is of it but the holder of the namespaces; whether there was nothing."""
        if self._holder.poll() is not None:
            return True
        namespace = _mount_namespace(self._holder.pid)
        mine = [pid for pid in _all_pids() if self._cgroup in _read(pid, "cgroup")]  # in the containers
        mine += [pid for pid in _all_pids() if _mount_namespace(pid) == namespace and pid != self._holder.pid]
        for pid in (running := [pid for pid in mine if _runs(pid)]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not running

    def _remove_cgroups(self) -> list[Path]:
        """Remove its control groups, in each hierarchy; return those that could not be removed yet."""
        roots = [*Path("/sys/fs/cgroup").glob(f"*/{self._cgroup}"), Path("/sys/fs/cgroup") / self._cgroup]
        left = []
        for root in roots:
            for folder, _, _ in os.walk(root, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    left.append(Path(folder))
        return left

    def _in_network(self, act: Callable[[], T]) -> T:
        return in_network(Path(f"/proc/{self._holder.pid}/ns/net"), act)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder with owners, modes and extended attributes: what an engine keeps layers in."""
    subprocess.run(("cp", "--archive", "--no-target-directory", source, target), check=True)


def _loopback_up() -> None:
    """Bring the loopback device of this thread's network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, name: str) -> str:
    """A file of a process; empty where there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _mount_namespace(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/mnt").readlink()
    except OSError:
        return None


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    return any(line.startswith("State:") and "Z" not in line for line in _read(pid, "status").splitlines())
