"""Which folders of the host no catalog may mount into a container, whatever name or link leads to them."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HOST: Final = {
    "/etc": "the host's configuration",
    "/proc": "the kernel's view of all processes",
    "/sys": "the kernel's settings",
    "/dev": "the host's devices",
    "/run": "where the sockets of the host's services are",
    "/var/run": "where the sockets of the host's services are",
    "/boot": "the host's kernel",
    "/var/lib/docker": "the engine's own data",
    "/var/lib/containerd": "the engine's own data",
    "/var/lib/containers": "the engine's own data",
    "/root": "the home of the host's root",
    "/var/spool/cron": "what the host's cron runs",
    "/var/lib/tailscale": "the node's key in its tailnet",
    "/var/lib/kubelet": "what the pods of this node hold",
}
_ALLOWED: Final = (
    *("/etc/ansible", "/etc/ssl/certs", "/etc/ssh/ssh_known_hosts"),
    *("/etc/pki/ca-trust", "/etc/pki/tls/certs"),
)
"""What playbooks need of /etc, and no secret lies in. The host believes it: never writable."""

_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Forbidden:
    """What a mount may not hold, by path and by identity, and what it may all the same."""

    places: Mapping[str, str]
    identities: Mapping[_Identity, tuple[str, str, bool]]
    allowed: tuple[str, ...]

    def allows(self, path: str) -> bool:
        return any(_within(path, one) for one in self.allowed)


class MountRules:
    """Decides by the path as it is written, by where its links lead to, and by which folder it really is.

    The agent sees what its own file system shows. Where that is not the engine's host (an agent in a container), a
    source that is not here is judged by its path alone.
    """

    def __init__(self, protected: Mapping[Path, str] | None = None, believed: Mapping[Path, str] | None = None) -> None:
        """``protected``: further files and folders, such as the state directory, each with what it is.

        ``believed``: what is no secret, such as the catalog, and may be mounted, but never writable.
        """
        self._forbidden = _forbidden(protected or {}, _ALLOWED)
        self._forbidden_to_write = _forbidden({**(protected or {}), **(believed or {})}, ())

    def problem(self, source: str, *, writable: bool = False) -> str | None:
        """Why ``source`` may not be mounted so; None: it may."""
        forbidden = self._forbidden_to_write if writable else self._forbidden
        written, real = os.path.normpath(source), _real(source)
        for path in dict.fromkeys((written, real)):
            for place, what in forbidden.places.items():
                if _within(path, place) and not forbidden.allows(path):
                    return _told(source, path, f"is {what}" if path == place else f"is in {place}, {what}")
                if _within(place, path):
                    return _told(source, path, f"holds {place}, {what}")
        return self._problem_of_identity(source, real, forbidden)

    def _problem_of_identity(self, source: str, real: str, forbidden: _Forbidden) -> str | None:
        """The same folder under another name: a bind mount of the host, or a hard link."""
        try:
            found = Path(real).stat()
        except OSError:
            return None
        if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            return f"{source} is neither a folder nor a file"
        for path in (real, *(() if forbidden.allows(real) else _parents(real))):
            identity = _identity(path)
            if identity is None or identity not in forbidden.identities:
                continue
            place, what, is_place = forbidden.identities[identity]
            if is_place:
                return f"{source} is {place} under another name, {what}"
            if path == real:
                return f"{source} holds {place} under another name, {what}"
        return None


def _forbidden(protected: Mapping[Path, str], allowed: tuple[str, ...]) -> _Forbidden:
    own = {os.path.normpath(path): what for path, what in protected.items()}
    places = _HOST | own | {_real(path): what for path, what in own.items()}
    return _Forbidden(places, dict(_identities_above(places.items())), allowed)


def _real(path: str) -> str:
    """Where the links of a path lead to; as far as anybody may look."""
    try:
        return os.path.realpath(path)
    except OSError:  # what a process of another user has open, in /proc
        return os.path.normpath(path)


def _told(source: str, path: str, what: str) -> str:
    return f"{source} {what}" if path == os.path.normpath(source) else f"{source} leads to {path}, which {what}"


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _parents(path: str) -> list[str]:
    """All folders above a path but the root, which is judged by its name."""
    return [str(parent) for parent in Path(path).parents if str(parent) != "/"]


def _identity(path: str) -> _Identity | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _identities_above(places: Iterable[tuple[str, str]]) -> Iterator[tuple[_Identity, tuple[str, str, bool]]]:
    """Each place and every folder above it, the places last: they count where something is both."""
    places = list(places)
    for place, what in places:
        for parent in _parents(place):
            if identity := _identity(parent):
                yield identity, (place, what, False)
    for place, what in places:
        if identity := _identity(place):
            yield identity, (place, what, True)
