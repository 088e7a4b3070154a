"""Secrets of runners: files on the agent's side, read at each release and held in memory only."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agp_agent.errors import SecretUnavailable
from agp_agent.private_files import read_private

SECRETS_DIR: Final = "/run/secrets"
"""Where a container finds its secrets, each in a file of its name, mode 0400, in memory."""

MAX_BYTES: Final = 64 * 1024
"""Of one secret."""
MIN_BYTES: Final = 6
"""A shorter one cannot be masked without masking half of the output."""
MAX_NUMBER: Final = 16
MAX_TOTAL_BYTES: Final = 256 * 1024
"""Of all secrets of one runner: finding them in every spelling takes time and memory."""
TMPFS_BYTES: Final = 2**20
"""Holds the most of them, each rounded up to pages."""

_SCRYPT_COST: Final = 2**12


@dataclass(frozen=True, slots=True)
class Secret:
    """A file on the agent's side, and the name under which a runner's playbooks find it."""

    name: str
    source: Path

    def read(self) -> bytes:
        """The value, byte for byte.

        Raises:
            SecretUnavailable: one sentence that names the secret, its file and what was expected of it.
        """
        try:
            value = read_private(self.source, MAX_BYTES)
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise self._unusable(str(error)) from None
        if len(value.strip()) < MIN_BYTES:
            raise self._unusable(f"is shorter than {MIN_BYTES} bytes, and could not be masked in the output")
        return value

    def _unusable(self, why: str) -> SecretUnavailable:
        return SecretUnavailable(f"secret {self.name} is not available: {self.source} {why}")


def read_all(secrets: Iterable[Secret]) -> Mapping[str, bytes]:
    """The values of all of a runner's, by name. Raises ``SecretUnavailable``."""
    values = {secret.name: secret.read() for secret in secrets}
    if sum(map(len, values.values())) > MAX_TOTAL_BYTES:
        names = ", ".join(values)
        raise SecretUnavailable(
            f"secrets {names} are not available: together they are larger than {MAX_TOTAL_BYTES} bytes"
        )
    return values


def fingerprint(values: Mapping[str, bytes], salt: str) -> str:
    """Tells whether values are the same as at another time, and nothing about them: guessing them would cost too much.

    Blocks for some hundredths of a second.
    """
    parts = [part for name, value in sorted(values.items()) for part in (name.encode(), value)]
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.scrypt(framed, salt=salt.encode(), n=_SCRYPT_COST, r=8, p=1).hex()


def problems(secrets: Iterable[Secret]) -> list[str]:
    """What is wrong with a runner's secrets now, one sentence each."""
    secrets = list(secrets)
    each = [problem for secret in secrets if (problem := _problem([secret]))]
    together = _problem(secrets)
    return each or ([together] if together else [])


def _problem(secrets: Iterable[Secret]) -> str | None:
    try:
        read_all(secrets)
    except SecretUnavailable as error:
        return str(error)
    return None
