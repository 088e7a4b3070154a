"""A runner: a curated image, and all that the operator grants to what runs in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from agp_agent.catalog.values import (
    PLAYBOOK,
    Allowed,
    Command,
    Image,
    Inside,
    Memory,
    Mountable,
    OnHost,
    Seccomp,
    SeccompProfile,
    TmpfsValue,
    rules_of,
)
from agp_agent.engine import OWN_IMAGES, PullPolicy, Tmpfs
from agp_agent.secret_files import MAX_NUMBER, SECRETS_DIR, Secret

__all__ = ["INVENTORY", "PLAYBOOK", "HostMount", "HostSecret", "Match", "Runner", "SeccompProfile"]

INVENTORY: Final = "/inventory"
"""Where the key ``inventory`` is mounted."""

_TAKEN: Final = ("/playbook", SECRETS_DIR, "/proc", "/sys", "/dev", "/etc/passwd", "/usr/local/bin/agp-entry")
"""What the agent, the engine or the runner contract puts there."""
_LAST_UID: Final = 65535


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Match(_Part):
    """Which playbooks a runner is for."""

    suffixes: tuple[Annotated[str, Field(pattern=r"^\.[a-z0-9]+$")], ...] = ()
    shebangs: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], ...] = ()
    plays: bool = False


class HostMount(_Part):
    """A folder or file of the engine's host that every container of a runner sees."""

    source: Mountable
    target: Inside
    rw: bool = False

    @model_validator(mode="after")
    def _writable(self, info: ValidationInfo) -> Self:
        if self.rw and (problem := rules_of(info).problem(self.source, writable=True)):
            raise ValueError(f"a folder or file that may be written to; {problem}")
        return self


class HostSecret(_Part):
    """A file on the agent's side whose content every playbook of a runner finds in ``/run/secrets/<name>``."""

    source: OnHost
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$")]


class Runner(_Part):
    """A curated image and its limits."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    image: Image
    pull: PullPolicy = PullPolicy.MISSING
    match: Match = Match()
    command: Command
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_running: Annotated[int, Field(ge=1)] | None = None
    warm: Annotated[int, Field(ge=0, le=1000)] | None = None
    memory: Memory = 512 * 2**20
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    pids: Annotated[int, Field(ge=8)] = 256
    tmpfs: dict[Inside, TmpfsValue] = {
        "/tmp": Tmpfs(64 * 2**20),  # noqa: S108  a path inside the container
        "/work": Tmpfs(256 * 2**20),
    }
    network: Literal["none", "outbound"] = "none"
    allow: tuple[Allowed, ...] = ()
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    mounts: tuple[HostMount, ...] = ()
    inventory: Mountable | None = None
    secrets: Annotated[tuple[HostSecret, ...], Field(max_length=MAX_NUMBER)] = ()
    runtime: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] | None = None
    seccomp: Seccomp | None = None
    user: Annotated[int, Field(ge=1, le=_LAST_UID)] | None = None

    @property
    def playbook_file(self) -> str:
        """What the playbook is called inside the container: one name for all, its suffix the runner's first."""
        return "playbook" + (self.match.suffixes[0] if self.match.suffixes else "")

    @property
    def secret_files(self) -> tuple[Secret, ...]:
        """The secrets as they are read at each release."""
        return tuple(Secret(secret.name, Path(secret.source)) for secret in self.secrets)

    @property
    def sources(self) -> list[str]:
        """Everything of the host that is mounted into its containers."""
        return [mount.source for mount in self.mounts] + ([self.inventory] if self.inventory else [])

    @property
    def grants(self) -> dict[str, object]:
        """What it gives its containers beyond the lockdown, or in place of a part of it; of secrets the names alone."""
        granted = {
            "network": self.network if self.network != "none" else None,
            "allow": [str(destination) for destination in self.allow],
            "mounts": [mount.model_dump() for mount in self.mounts],
            "inventory": self.inventory,
            "secrets": [secret.name for secret in self.secrets],
            "user": self.user,
            "seccomp": str(self.seccomp.path) if self.seccomp else None,
            "runtime": self.runtime,
        }
        return {key: value for key, value in granted.items() if value}

    @model_validator(mode="before")
    @classmethod
    def _never_pull_own(cls, document: Any) -> Any:
        """An image that is built with the agent is pulled only where that is spelled out: see ``OWN_IMAGES``."""
        if isinstance(document, dict) and str(document.get("image", "")).startswith(OWN_IMAGES):
            return {"pull": PullPolicy.NEVER, **document}
        return document

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := [*self._contradictions()]:
            raise ValueError("; and ".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.allow and self.network == "none":
            yield "network: outbound, which alone makes `allow` mean something"
        for name in _twice([secret.name for secret in self.secrets]):
            yield f"one secret of each name, and {name} stands twice"
        targets = [*self.tmpfs, *(mount.target for mount in self.mounts), *([INVENTORY] if self.inventory else [])]
        for target in _twice(targets):
            yield f"one mount or tmpfs at each path, and {target} stands twice"
        for target in targets:
            for taken in _TAKEN:
                if target == taken or taken.startswith(f"{target}/") or target.startswith(f"{taken}/"):
                    yield f"mounts and tmpfs elsewhere than at {target}: {taken} is not the catalog's"


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
