"""The agent's bearer tokens: given once, or held by files that are read again when they change.

A rotation needs no restart and fails no request: put the new token beside the old one, let the other side change over,
take the old one out.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from agp_agent.errors import ConfigurationError
from agp_agent.private_files import read_private

TOKEN_MIN_CHARS: Final = 16

_REST_S: Final = 1.0
"""A file that was changed less than so long ago may still be written, and its times may not tell the next change."""
_REMEMBERED: Final = 64

_Version = tuple[int, int, int, int, int]


def fingerprint(token: bytes) -> str:
    """What stands for a token in logs and in the audit trail: too short to find it by, long enough to tell two."""
    return hashlib.sha256(token).hexdigest()[:8]


class TokenSource:
    """The tokens that are valid now.

    While a file is being written, what it newly holds is valid at once, and what was valid before stays so until the
    file has rested for a second: half a line on its way to the disk locks nobody out. It lets nobody in either: a last
    line without an end counts only once the file has rested, unless there is no other token yet.
    """

    def __init__(
        self,
        name: str,
        fixed: SecretStr | None,
        path: Path | None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``name`` is the setting, for messages: ``AGP_TOKEN``; ``now_s`` is a clock that never jumps."""
        self._name = name
        self._path = path
        self._now_s = now_s
        self._version: _Version | None = None
        self._changed_s = 0.0
        self._rests = False
        self._valid: tuple[bytes, ...] = (fixed.get_secret_value().encode(),) if fixed else ()
        self._remembered = self._valid
        self._elsewhere: Callable[[], tuple[bytes, ...]] = tuple
        self.problem: str | None = None
        """Why the file of now cannot be used, one sentence; the tokens read before it stay valid."""

    @property
    def configured(self) -> bool:
        """Whether there is a token or a file for one at all."""
        return self._path is not None or bool(self._valid)

    @property
    def held(self) -> tuple[bytes, ...]:
        """The tokens that were valid at the last look."""
        return self._valid

    @property
    def known(self) -> tuple[bytes, ...]:
        """All tokens that were ever valid, the latest of them at least: no log may show one of yesterday either."""
        return self._remembered

    def must_differ_from(self, other: "TokenSource") -> None:
        """Take no token, from now on, that the other direction holds."""
        self._elsewhere = lambda: other.held

    def current(self) -> tuple[bytes, ...]:
        """The tokens valid now, as bytes. When a changed file cannot be used, the ones read before stay valid.

        Raises:
            ConfigurationError: the file cannot be used and no tokens were read from it before.
        """
        if self._path is None:
            return self._valid
        try:
            self._look(self._path)
            self.problem = None
        except OSError as error:
            self.problem = f"{self._name}_FILE: {self._path} cannot be read: {error.strerror}."
        except ValueError as error:
            self.problem = f"{self._name}_FILE: {self._path} {error}."
        if self.problem and not self._valid:
            raise ConfigurationError(self.problem)
        return self._valid

    def _look(self, path: Path) -> None:
        stat = path.stat()
        version = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if version != self._version:
            self._version, self._changed_s, self._rests = version, self._now_s(), False
        if self._rests:
            return
        content = read_private(path)
        found = self._checked(content)
        self._rests = self._now_s() - self._changed_s >= _REST_S
        if self._valid and not self._rests:
            found = tuple(dict.fromkeys((*_lines(content[: content.rfind(b"\n") + 1]), *self._valid)))
        self._valid = found
        self._remembered = tuple(dict.fromkeys((*self._valid, *self._remembered)))[:_REMEMBERED]

    def _checked(self, content: bytes) -> tuple[bytes, ...]:
        lines = _lines(content)
        if not lines:
            raise ValueError("expected one token a line, found none")
        if any(len(line) < TOKEN_MIN_CHARS for line in lines):
            raise ValueError(f"expected tokens of at least {TOKEN_MIN_CHARS} characters, one a line")
        if self._valid and set(lines) & set(self._elsewhere()):
            raise ValueError("holds a token of the other direction; expected two different ones")
        return lines


def _lines(content: bytes) -> tuple[bytes, ...]:
    return tuple(line.strip() for line in content.splitlines() if line.strip())


@dataclass(frozen=True, slots=True)
class Tokens:
    """Both directions: what the dashboard must send, and what the agent sends it."""

    inbound: TokenSource
    outbound: TokenSource

    def __post_init__(self) -> None:
        """From the second look on each of them refuses what the other holds; ``check`` is the first."""
        self.inbound.must_differ_from(self.outbound)
        self.outbound.must_differ_from(self.inbound)

    def known(self) -> tuple[bytes, ...]:
        """Every token of now and of before, for masking."""
        return self.inbound.known + self.outbound.known

    def fingerprints(self) -> dict[str, list[str]]:
        """What stands for the tokens that are valid now, by the names that they have in the audit trail."""
        return {
            "token_fingerprints": [fingerprint(token) for token in self.inbound.held],
            "dashboard_token_fingerprints": [fingerprint(token) for token in self.outbound.held],
        }

    def check(self) -> None:
        """Raise ``ConfigurationError`` unless both are there and differ."""
        problems: list[str] = []
        values: list[tuple[bytes, ...]] = []
        for name, source in (("AGP_TOKEN", self.inbound), ("AGP_DASHBOARD_TOKEN", self.outbound)):
            try:
                values.append(source.current())
            except ConfigurationError as error:
                problems += error.problems
            if not source.configured:
                problems.append(f"{name} (not set): expected a token, or {name}_FILE; `agp-agent token new` makes one.")
        if not problems and set(values[0]) & set(values[1]):
            problems.append("AGP_TOKEN, AGP_DASHBOARD_TOKEN: expected two different tokens, one for each direction.")
        if problems:
            raise ConfigurationError(*problems)
