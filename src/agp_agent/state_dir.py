"""The state directory: who owns it, and where everything in it stands."""

import fcntl
import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agp_agent.errors import StateDirectoryError

LOCK_NAME: Final = "agent.lock"
"""Held for as long as its owner lives; who that is stands in it."""
_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""Never through a link: it would lead to a file of somebody else's choice."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the agent is. ``instance`` is random and the directory's own: agents never touch each other's things."""

    agent_id: str
    instance: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels on everything this agent makes on the engine."""
        return {"agp.agent_id": self.agent_id, "agp.instance": self.instance}


class StateDir:
    """The directory, held by this process alone until ``close``."""

    def __init__(self, path: Path, agent_id: str | None = None) -> None:
        """Make the directory where it is missing, and take it.

        Args:
            path: the directory.
            agent_id: the name from the settings; None keeps the one of the first start, then the host name.

        Raises:
            StateDirectoryError: it cannot be written, another agent holds it, or it belongs to another agent or user.
        """
        self.path = path.absolute()
        self._lock = -1
        try:
            self._open()
            self._take()
            self.identity = self._identify(agent_id)
        except BaseException:
            self.close()
            raise

    @property
    def journal(self) -> Path:
        """The SQLite file."""
        return self.path / "journal.db"

    @property
    def audit(self) -> Path:
        """The audit trail."""
        return self.audit_of(self.path)

    @staticmethod
    def audit_of(path: Path) -> Path:
        """The audit trail of any state directory, for whoever only reads it."""
        return path / "audit.jsonl"

    @property
    def spool(self) -> Path:
        """Output of running tasks, a file each."""
        return self.path / "spool"

    @property
    def paused(self) -> Path:
        """There while an operator wants no task to start."""
        return self.path / "paused"

    @property
    def reserve(self) -> Path:
        """Space kept free for the results of what runs."""
        return self.reserve_of(self.path)

    @staticmethod
    def reserve_of(path: Path) -> Path:
        """That of any state directory."""
        return path / "reserve"

    @property
    def slots(self) -> Path:
        """Playbooks of running tasks, a folder each."""
        return self.path / "slots"

    def close(self) -> None:
        """Let it go. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _open(self) -> None:
        try:
            _make(self.path)
            self._lock = os.open(self.path / LOCK_NAME, _LOCK_FLAGS, 0o600)
            self._check_owner()
            _make(self.spool)
            _make(self.slots)
        except OSError as error:
            raise StateDirectoryError(
                f"{self.path}: the state directory cannot be used: {error.strerror}; "
                "give AGP_STATE_DIR a directory that this user can write."
            ) from None

    def _check_owner(self) -> None:
        """Files of root among those of another user would lock that user out for good."""
        owner, own = os.fstat(self._lock).st_uid, os.geteuid()
        if owner != own:
            raise StateDirectoryError(
                f"{self.path}: this state directory belongs to user {owner}, and this agent runs as user {own}; "
                "run it as that user, or give this one another AGP_STATE_DIR."
            )

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateDirectoryError(
                f"{self.path}: another agent is running on this state directory; "
                "stop it, or give this one another AGP_STATE_DIR."
            ) from None
        except OSError as error:
            raise StateDirectoryError(
                f"{self.path}: this file system has no locks ({error.strerror}); give AGP_STATE_DIR a local one."
            ) from None

    def _identify(self, wanted: str | None) -> Identity:
        text = os.pread(self._lock, 4096, 0)
        if not text:
            identity = Identity(wanted or _host_name(), uuid.uuid4().hex[:12])
            self._write(identity)
            return identity
        try:
            known = json.loads(text)
            identity = Identity(str(known["agent_id"]), str(known["instance"]))
        except (ValueError, KeyError, TypeError):
            raise StateDirectoryError(
                f"{self.path}/agent.lock: not written by an agent; expected its identity."
            ) from None
        if wanted is not None and wanted != identity.agent_id:
            raise StateDirectoryError(
                f"{self.path}: this state directory belongs to agent {identity.agent_id!r}, not to {wanted!r}; "
                "give AGP_AGENT_ID that name, or AGP_STATE_DIR another directory."
            )
        return identity

    def _write(self, identity: Identity) -> None:
        text = json.dumps({"agent_id": identity.agent_id, "instance": identity.instance})
        os.pwrite(self._lock, text.encode(), 0)
        os.fsync(self._lock)


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _host_name() -> str:
    name = "".join(
        char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in socket.gethostname()
    )
    return name.strip("._-")[:128] or "agent"
