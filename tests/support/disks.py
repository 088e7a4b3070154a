"""Disks that go wrong: small ones, ones that turn read-only, and ones that fail at what a process asks of them."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from support.agent_process import AgentProcess
from support.waiting import eventually

_UNSHARE: Final = ("unshare", "--mount")


def with_ext4(image: Path, target: Path, size: str) -> tuple[str, ...]:
    """A command in whose namespace an ext4 file system lies over ``target``; checked and repaired first.

    Its image is made at the first time. At an error it turns read-only, as most systems mount it.
    """
    script = (
        f'[ -e {shlex.quote(str(image))} ] || {{ truncate -s {size} "$0"; mkfs.ext4 -q -F "$0"; }}\n'
        'e2fsck -fp "$0" >&2 || [ $? -le 1 ]\n'
        'mount -o loop,errors=remount-ro "$0" "$1"; shift; exec "$@"\n'
    )
    return (*_UNSHARE, "sh", "-ec", script, str(image), str(target))


def abort(agent: AgentProcess) -> None:
    """Let the ext4 under the agent's state turn read-only, as it does at an error of its own."""
    inside = ("nsenter", "--target", str(agent.process.pid), "--mount")
    subprocess.run((*inside, "mount", "-o", "remount,abort", str(agent.state)), check=True)


def fill(file: Path) -> None:
    """Take all the space there is; removing the file gives it back."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            while os.write(fd, bytes(2**16)):
                pass
        with contextlib.suppress(OSError):
            while os.write(fd, b"0"):
                pass
    finally:
        os.close(fd)


@contextlib.contextmanager
def failing(
    agent: AgentProcess, calls: Sequence[str], error: str, files: Sequence[str], *, when: str = "1+"
) -> Iterator[None]:
    """Inside, these system calls of the agent's on these files of its state directory end with ``error``.

    ``when`` says which of them, as strace counts: all, unless it is told otherwise.
    """
    paths = [argument for name in files for argument in ("-P", str(agent.state / name))]
    names = ",".join(calls)
    command = ["strace", "-f", "-qq", "-p", str(agent.process.pid), "-e", f"trace={names}"]
    with tracing([*command, "-e", f"inject={names}:error={error}:when={when}", *paths], agent):
        yield


@contextlib.contextmanager
def tracing(command: Sequence[str], agent: AgentProcess) -> Iterator[None]:
    """Run a strace of the agent; inside, every one of its threads is traced."""
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _tracers(agent) == {tracer.pid}, "strace attached")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()


def _tracers(agent: AgentProcess) -> set[int]:
    """Who traces the agent's threads; 0 is nobody."""
    found = set()
    for status in Path(f"/proc/{agent.process.pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found |= {int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("TracerPid")}
    return found
