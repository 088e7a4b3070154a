"""The daemons of the tailnet, disturbed: they are found by their command lines, and started again by the same ones."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.waiting import eventually

BIN: Final = Path(os.environ.get("TAILNET_BIN", ""))


class Daemon:
    """A process that somebody else started; what the tests start in its place is theirs."""

    def __init__(self, *words: str) -> None:
        """Find the one whose command line has all these words."""
        self._words = words
        (self.pid,) = self._pids()
        self.command = _command_line(self.pid)[:-1]
        variables = Path(f"/proc/{self.pid}/environ").read_bytes().decode().split("\0")
        self._environment = dict(line.split("=", 1) for line in variables if "=" in line)
        self._network = subprocess.run(
            ("ip", "netns", "identify", str(self.pid)), capture_output=True, text=True, check=True
        ).stdout.strip()

    def _pids(self) -> list[int]:
        everyone = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in everyone if self._is_it(_command_line(pid))]

    def _is_it(self, parts: list[str]) -> bool:
        program, *words = self._words
        return parts[0].endswith(f"/{program}") and all(any(word in part for part in parts) for word in words)

    def stop(self) -> None:
        """End it in good order."""
        os.kill(self.pid, signal.SIGTERM)
        eventually(lambda: self.pid not in self._pids(), f"the end of {self._words[0]}")

    def start(self) -> None:
        """Start it again as it was."""
        where = ("ip", "netns", "exec", self._network) if self._network else ()
        start_detached((*where, *self.command), self._environment)

        def look() -> list[int]:
            found = self._pids()
            return found if len(found) == 1 else []  # a moment ago it was a copy of the program that starts it

        (self.pid,) = eventually(look, f"a new {self._words[0]}")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def reload(self) -> None:
        """Have it read its files again."""
        os.kill(self.pid, signal.SIGHUP)


def start_detached(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start a process that is nobody's child, so that only those who know its command line end it."""
    quiet = subprocess.DEVNULL
    command = ("setsid", "--fork", *command)
    subprocess.run(command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, check=True)


def _command_line(pid: int) -> list[str]:
    """Its words, and an empty one at the end; nothing but that of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]


def tailscale(socket: Path, *arguments: str) -> str:
    """A command of tailscale for one node."""
    command = (str(BIN / "tailscale"), f"--socket={socket}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class ControlServer(Daemon):
    """Headscale."""

    def __init__(self) -> None:
        """Find it, and its settings."""
        super().__init__("headscale", "serve")
        self.config = Path(self.command[self.command.index("-c") + 1])

    def ask(self, *arguments: str) -> Any:
        """A command of headscale, answered in JSON."""
        command = (str(BIN / "headscale"), "-c", str(self.config), *arguments, "-o", "json")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def node_id(self, address: str) -> str:
        """The number of the node that has an address."""
        (found,) = [node["id"] for node in self.ask("nodes", "list") if address in node["ipAddresses"]]
        return str(found)

    def forget(self, address: str) -> None:
        """Take a node out of the tailnet for good."""
        self.ask("nodes", "delete", "--force", "--identifier", self.node_id(address))

    @contextmanager
    def policy_with(self, rule: dict[str, Any]) -> Iterator[None]:
        """A policy that has one rule more, for a while."""
        file = self.config.parent / "policy.json"
        before = file.read_text()
        document = json.loads(before)
        document["acls"].append(rule)
        try:
            file.write_text(json.dumps(document))
            self.reload()
            yield
        finally:
            file.write_text(before)
            self.reload()
