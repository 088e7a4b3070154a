"""Engines that the suites cannot run on, and what becomes of them: a rootless Docker, and Podman's Docker socket."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from support.engine_proxy import connect_to_engine
from support.waiting import eventually

ROOT: Final = Path(__file__).parents[2]


class OtherEngine:
    """A daemon that answers Docker's API on a socket in a folder of its own, and is gone with all of it at the end."""

    def __init__(self) -> None:
        """Start it; return once it answers."""
        assert os.geteuid() == 0, "these engines are started by root, for a user of their own"
        self.folder = Path(tempfile.mkdtemp(prefix="agp-other-"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "engine.sock"
        self.docker_host = f"unix://{self.socket}"
        self._log = self.folder / "log"
        self._begin()
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(
                self._command(),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            eventually(self._answers, "the engine answers", patience_s=60)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def load(self, *images: str) -> None:
        """Copy images of the machine's engine."""
        with subprocess.Popen(("docker", "save", *images), stdout=subprocess.PIPE) as saving:
            subprocess.run(("docker", "--host", self.docker_host, "load", "--quiet"), stdin=saving.stdout, check=True)
        assert saving.returncode == 0

    def docker(self, *arguments: str) -> str:
        """What Docker's own client is answered."""
        command = ("docker", "--host", self.docker_host, *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def close(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._daemon.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._daemon.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._daemon.pid, signal.SIGKILL)
        self._daemon.wait()
        self._end()
        eventually(self._is_removed, "its folder can be removed")

    def _is_removed(self) -> bool:
        shutil.rmtree(self.folder, ignore_errors=True)
        return not self.folder.exists()

    def _answers(self) -> bool:
        assert self._daemon.poll() is None, self._log.read_text()[-3000:]
        with contextlib.suppress(OSError), connect_to_engine(self.docker_host) as connection:
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    def _begin(self) -> None:
        """Before it is started."""

    def _end(self) -> None:
        """After its end."""

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _command(self) -> tuple[str, ...]:
        raise NotImplementedError


class RootlessDocker(OtherEngine):
    """Docker of the machine for a user of the test's own, in that user's namespaces, without a network of its own."""

    def _begin(self) -> None:
        self.user = f"agp-{secrets.token_hex(4)}"
        self.home = self.folder / "home"
        self.home.mkdir()
        # Its range of further user ids comes with it, where /etc/login.defs is Debian's.
        subprocess.run(("useradd", "--home-dir", self.home, "--no-create-home", self.user), check=True)
        for folder in (self.folder, self.home):
            shutil.chown(folder, self.user)

    def _end(self) -> None:
        subprocess.run(("pkill", "--signal", "KILL", "--uid", self.user), check=False)
        subprocess.run(("userdel", self.user), check=True, capture_output=True)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": f"{self.folder}/run",
        }

    def _command(self) -> tuple[str, ...]:
        dockerd = (
            "rm -rf /run/containerd /run/docker*; mkdir -p run; exec dockerd --rootless --storage-driver=overlay2"
            " --data-root=$PWD/data --exec-root=$PWD/run/exec --pidfile=$PWD/run/docker.pid"
            f" --host={self.docker_host} --bridge=none --iptables=false --ip-masq=false"
        )
        rootless = ("rootlesskit", "--net=host", "--copy-up=/etc", "--copy-up=/run", f"--state-dir={self.folder}/kit")
        return (*self._as_user(), "env", "--chdir", str(self.folder), *rootless, "sh", "-ec", dockerd)

    def _as_user(self) -> tuple[str, ...]:
        return ("setpriv", "--reuid", self.user, "--regid", self.user, "--init-groups", "--")

    def agent(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run ``agp-agent`` as this user, on this engine."""
        environment = self._environment() | {"DOCKER_HOST": self.docker_host, "PYTHONPATH": _packages()} | settings
        command = (*self._as_user(), self._python(), "-m", "agp_agent", *arguments)
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)

    def _python(self) -> str:
        """An interpreter that this user may start: root's own may lie where nobody else looks."""
        for program in (sys.executable, "/usr/bin/python3"):
            probe = (*self._as_user(), program, "-c", "import agp_agent.cli")
            found = subprocess.run(probe, env={"PYTHONPATH": _packages()}, cwd="/", capture_output=True, check=False)
            if found.returncode == 0:
                return program
        raise AssertionError("no Python that another user may start runs the agent: give `make setup` Debian's own")


class Podman(OtherEngine):
    """Podman's service that speaks Docker's API, as root."""

    def _environment(self) -> dict[str, str]:
        configuration = self.folder / "containers.conf"
        configuration.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        return os.environ | {"CONTAINERS_CONF": str(configuration)}

    def _end(self) -> None:
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in sorted((one for one in mounts if Path(one).is_relative_to(self.folder)), reverse=True):
            subprocess.run(("umount", "--lazy", place), check=True)

    def _command(self) -> tuple[str, ...]:
        places = ("--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run")
        return ("podman", *places, "--storage-driver=overlay", "system", "service", "--time=0", self.docker_host)


def _packages() -> str:
    return os.pathsep.join((f"{ROOT}/src", *(path for path in sys.path if path.endswith("site-packages"))))


@contextlib.contextmanager
def playbook(folder: Path, name: str, content: str) -> Iterator[str]:
    """A playbook that everybody may read."""
    path = folder / name
    path.write_text(content)
    path.chmod(0o644)
    yield str(path)
    path.unlink()
