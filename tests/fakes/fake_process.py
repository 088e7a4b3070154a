"""What runs inside a fake container: the runner contract's entry, then a playbook in a small language of its own.

The playbook steers the fake. A line counts when its first word is a verb; blanks, ``#`` and ``-`` before it do not
matter, so directives fit into the comments of a YAML or shell playbook; every other line is ignored.

===============  ==========================================================================
``print TEXT``   the text and a newline on stdout
``err TEXT``     the same on stderr, which the entry merges into stdout
``control TEXT`` the same on the container's own stderr, as a hostile playbook can
``bytes HEX``    these bytes on stdout
``fill N``       N times the letter x on stdout
``sleep S``      wait S seconds
``forever``      never end
``ignore TERM``  from now on TERM changes nothing
``oom``          the kernel kills the container for want of memory
``secret NAME``  a secret of the runner, byte for byte, on stdout; one that is not there ends it with 1
``exit N``       end with this exit code; without it the playbook ends with 0
===============  ==========================================================================
"""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agp_agent.engine import Signal, Stream
from agp_agent.secret_files import SECRETS_DIR

_RELEASE = re.compile(rb"agp1 release ([0-9a-f]{32})")
_SECRET = re.compile(rb"agp1 secret ([A-Za-z0-9_-][A-Za-z0-9._-]*) ([A-Za-z0-9+/=]*)")
_VERBS = frozenset({"print", "err", "control", "bytes", "fill", "sleep", "forever", "ignore", "oom", "secret", "exit"})
_NOT_RELEASED = 125
_CHUNK_BYTES = 2**15

Write = Callable[[Stream, bytes], Awaitable[None]]
Load = Callable[[], bytes | None]


@dataclass(frozen=True, slots=True)
class Exit:
    """How the process ended."""

    code: int
    oom_killed: bool = False


class Stdin:
    """A pipe: bytes go in, lines come out, and closing it is seen as the end."""

    def __init__(self) -> None:
        self._data = b""
        self._changed = asyncio.Event()
        self.closed = False

    def feed(self, data: bytes) -> None:
        """Write into it; what comes after the end is lost."""
        if not self.closed:
            self._data += data
            self._changed.set()

    def close(self) -> None:
        """Write the end. Idempotent."""
        self.closed = True
        self._changed.set()

    async def line(self) -> bytes | None:
        """The next whole line without its newline; None at the end."""
        while b"\n" not in self._data and not self.closed:
            self._changed.clear()
            await self._changed.wait()
        line, newline, self._data = self._data.partition(b"\n")
        return line if newline else None


class Process:
    """The first process of a container and what it becomes."""

    def __init__(self, stdin: Stdin, write: Write, load: Load, *, takes_secrets: bool = False) -> None:
        """Take the pipe, how to print, and how to read the playbook (None: it is not there).

        ``takes_secrets``: there is a writable folder for them.
        """
        self._stdin = stdin
        self._write = write
        self._load = load
        self._takes_secrets = takes_secrets
        self._secrets: dict[str, bytes] = {}
        self._ignored: set[Signal] = set()
        self._killed = asyncio.get_running_loop().create_future()

    def receive(self, signal: Signal) -> None:
        """Deliver a signal."""
        if signal not in self._ignored and not self._killed.done():
            self._killed.set_result(Exit(143 if signal is Signal.TERM else 137))

    async def run(self) -> Exit:
        """Live until the playbook or a signal ends it."""
        life = asyncio.create_task(self._entry())
        try:
            await asyncio.wait({life, self._killed}, return_when=asyncio.FIRST_COMPLETED)
            return await life if life.done() else self._killed.result()
        finally:
            life.cancel()
            self._killed.cancel()

    async def _entry(self) -> Exit:
        while (line := await self._stdin.line()) is not None and (secret := _SECRET.fullmatch(line)):
            name = secret[1].decode()
            if not self._takes_secrets:
                return await self._refuse(f"the secret {name} came, and there is no writable {SECRETS_DIR} for it")
            self._secrets[name] = base64.b64decode(secret[2])
        if line is None:
            return Exit(_NOT_RELEASED)
        release = _RELEASE.fullmatch(line)
        if release is None:
            return await self._refuse("expected the line: agp1 release <nonce>")
        await self._write(Stream.CONTROL, b"agp1 started " + release[1] + b"\n")
        playbook = self._load()
        if playbook is None:
            await self._write(Stream.OUTPUT, b"the script cannot be read.\n")
            return Exit(127)
        return await self._play(playbook)

    async def _refuse(self, why: str) -> Exit:
        await self._write(Stream.CONTROL, f"agp1 error {why}\n".encode())
        return Exit(_NOT_RELEASED)

    async def _play(self, playbook: bytes) -> Exit:
        for verb, rest in directives(playbook):
            try:
                ended = await self._do(verb, rest)
            except (ValueError, KeyError):
                await self._write(Stream.OUTPUT, f"fake: {verb} does not understand {rest!r}\n".encode())
                return Exit(2)
            if ended is not None:
                return ended
        return Exit(0)

    async def _do(self, verb: str, rest: str) -> Exit | None:
        match verb:
            case "sleep":
                await asyncio.sleep(float(rest))
            case "forever":
                await asyncio.Event().wait()
            case "ignore":
                self._ignored.add(Signal[rest])
            case "oom":
                return Exit(137, oom_killed=True)
            case "secret":
                if rest not in self._secrets:
                    return Exit(1)
                await self._write(Stream.OUTPUT, self._secrets[rest])
            case "exit":
                return Exit(int(rest))
            case _:
                await self._print(verb, rest)
        return None

    async def _print(self, verb: str, rest: str) -> None:
        stream = Stream.CONTROL if verb == "control" else Stream.OUTPUT
        match verb:
            case "fill":
                data = b"x" * int(rest)
            case "bytes":
                data = bytes.fromhex(rest)
            case _:
                data = f"{rest}\n".encode()
        for start in range(0, len(data), _CHUNK_BYTES):
            await self._write(stream, data[start : start + _CHUNK_BYTES])


def directives(playbook: bytes) -> Iterator[tuple[str, str]]:
    """The lines of a playbook that steer the fake: verb and the rest."""
    for line in playbook.decode("utf-8", "replace").splitlines():
        verb, _, rest = line.lstrip(" \t#-").partition(" ")
        if verb in _VERBS:
            yield verb, rest
