"""The Debian package on this machine: installed, started as its unit says but without systemd, removed, purged.

As root, on Debian: the package makes a user and files in /etc, /opt and /var/lib, and all of them are gone afterwards.
"""

import grp
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from agp_agent import __version__
from release.images import ROOT
from support.dashboard_stub import DashboardStub
from support.waiting import PATIENCE_S

UNIT: Final = Path("/lib/systemd/system/agp-agent.service")
MADE: Final = tuple(
    map(Path, ("/opt/agp-agent", "/etc/agp-agent", "/var/lib/agp-agent", "/usr/bin/agp-agent", str(UNIT)))
)
PORT: Final = 18470


def run(*command: object) -> str:
    """A command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """Built anew, and gone from this machine in the end, whatever happened."""
    assert os.geteuid() == 0, "a package can be installed by root alone"
    assert [str(path) for path in MADE if path.exists()] == [], "this machine has an agent already"
    run(ROOT / ".ci" / "deb")
    (built,) = (ROOT / "dist").glob(f"agp-agent_{__version__}_*.deb")
    yield built
    subprocess.run(("dpkg", "--purge", "agp-agent"), capture_output=True, check=False)


@pytest.fixture
def installed(package: Path) -> str:
    """What the installation says."""
    return run("dpkg", "--install", package)


def unit(name: str) -> list[str]:
    """All values of a line of the unit."""
    lines = [line.partition("=") for line in UNIT.read_text().splitlines()]
    return [value for key, _, value in lines if key == name]


class Service:
    """The unit's process, started as systemd starts it."""

    def __init__(self, folder: Path, dashboard: DashboardStub) -> None:
        """As the unit's user, with its directories and credentials and a socket to be told on."""
        self.log = folder / "log"
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(str(folder / "notify"))
        self.heard.settimeout(PATIENCE_S)
        owner = pwd.getpwnam(unit("User")[0])
        groups = [owner.pw_gid, *(grp.getgrnam(name).gr_gid for name in unit("SupplementaryGroups"))]
        state = Path("/var/lib") / unit("StateDirectory")[0]
        credentials = folder / "credentials"
        credentials.mkdir(mode=0o500)
        for name, _, source in (line.partition(":") for line in unit("LoadCredential")):
            shutil.copyfile(source, credentials / name)
            (credentials / name).chmod(0o400)
            os.chown(credentials / name, owner.pw_uid, owner.pw_gid)
        state.mkdir(mode=0o700, exist_ok=True)
        for path in (folder, credentials, state, folder / "notify"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        environment = {
            "PATH": "/usr/bin:/bin",
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "3000000",
            "STATE_DIRECTORY": str(state),
            "CONFIGURATION_DIRECTORY": f"/etc/{unit('ConfigurationDirectory')[0]}",
            "CREDENTIALS_DIRECTORY": str(credentials),
            "AGP_DASHBOARD_URL": dashboard.url,
            "AGP_PORT": str(PORT),
            "AGP_WARM": "0",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                shlex.split(unit("ExecStart")[0]),
                env=environment,
                user=owner.pw_uid,
                group=owner.pw_gid,
                extra_groups=groups,
                stdout=log,
                stderr=log,
            )

    def wait_told(self, word: str) -> str:
        """The next message that has this word."""
        while word not in (told := self._told()):
            assert self.process.poll() is None, self.log.read_text()
        return told

    def _told(self) -> str:
        try:
            return self.heard.recv(4096).decode()
        except TimeoutError:
            raise AssertionError(self.log.read_text()) from None

    def close(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.process.wait()
        self.heard.close()


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A folder that other users may enter, as /run is."""
    with tempfile.TemporaryDirectory(prefix="agp-deb-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_package_lives_its_life(installed: str, package: Path, run_folder: Path) -> None:
    """Install, run a task, stop; install over it, remove and purge: each leaves what it says."""
    assert "set dashboard_url in /etc/agp-agent/agent.yaml" in installed
    assert run("agp-agent", "version") == f"agp-agent {__version__}\n"
    tokens = {name: Path(f"/etc/agp-agent/{name}").read_text().strip() for name in ("token", "dashboard-token")}
    assert len(set(tokens.values())) == 2
    modes = {name: Path(f"/etc/agp-agent/{name}").stat() for name in tokens}
    assert {(one.st_uid, one.st_mode & 0o777) for one in modes.values()} == {(0, 0o600)}
    checked = subprocess.run(("agp-agent", "config", "check"), capture_output=True, text=True, check=False)
    assert (checked.returncode, "AGP_DASHBOARD_URL" in checked.stderr, "TOKEN" in checked.stderr) == (78, True, False)

    with DashboardStub(token=tokens["dashboard-token"]) as dashboard:
        service = Service(run_folder, dashboard)
        try:
            service.wait_told("READY=1")
            service.wait_told("STATUS=Ready: ")
            service.wait_told("WATCHDOG=1")
            body = {"task_id": "from the package", "playbook": {"name": "a.sh", "content": "echo packaged\n"}}
            headers = {"Authorization": f"Bearer {tokens['token']}"}
            answer = httpx.post(f"http://127.0.0.1:{PORT}/execute_task", json=body, headers=headers, trust_env=False)
            assert answer.status_code == 202, answer.text
            assert dashboard.result("from the package")["output"] == "packaged\n"
            service.process.send_signal(signal.SIGTERM)
            assert service.wait_told("STOPPING=1")
            assert service.process.wait(PATIENCE_S) == 0
        finally:
            service.close()

    run("dpkg", "--install", package)
    assert Path("/opt/agp-agent/bin/agp-agent").exists()
    assert Path("/etc/agp-agent/token").read_text().strip() == tokens["token"]
    run("dpkg", "--remove", "agp-agent")
    assert [str(path) for path in MADE if path.exists()] == ["/etc/agp-agent", "/var/lib/agp-agent"]
    assert Path("/var/lib/agp-agent/journal.db").exists()
    run("dpkg", "--purge", "agp-agent")
    assert [str(path) for path in MADE if path.exists()] == []
    assert "agp-agent" not in {one.pw_name for one in pwd.getpwall()}
    assert "agp-agent" not in {one.gr_name for one in grp.getgrall()}


def test_the_unit_is_sound_and_hardened(installed: str) -> None:
    """Systemd finds nothing wrong in it, and its score is the one that the documentation states."""
    assert installed
    run("systemd-analyze", "verify", UNIT)
    verdict = run("systemd-analyze", "security", "--offline=true", UNIT).strip().splitlines()[-1]
    score = verdict.split(": ")[1].split()[0]
    assert float(score) <= 1.5
    assert f"says {score}" in (ROOT / "docs" / "docker-hosts.md").read_text()
    assert (unit("Type"), unit("RestartPreventExitStatus")) == (["notify"], ["2 78"])
    assert int(unit("TimeoutStopSec")[0]) > 30
