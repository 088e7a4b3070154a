"""What the values of a catalog are made of: sizes, paths, images, destinations. Each error says what was expected."""

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from agp_agent import destinations, seccomp
from agp_agent.destinations import Destination
from agp_agent.engine import Tmpfs
from agp_agent.mount_rules import MountRules

PLAYBOOK: Final = "{playbook}"
"""Stands in a command for the path of the playbook inside the container."""

_UNITS: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MEMORY_MIN: Final = 16 * 2**20
_SIZE: Final = {"type": ["integer", "string"], "pattern": r"^\d+\s*([KMG]iB|B|)$", "examples": ["512MiB"]}
_PATH: Final = {"type": "string", "pattern": "^/", "examples": ["/work"]}

# Docker's grammar of an image's name: [host[:port]/]path[:tag][@digest].
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST: Final = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|\[[0-9a-fA-F:]+\]|[A-Za-z0-9-]+(?=:\d))(?::\d+)?/"
_IMAGE: Final = re.compile(rf"(?:{_HOST})?{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?")


class NotBelieved(ValueError):
    """Others than its owner can change the file. The message goes behind the file's name."""


def _size(value: object) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMG]iB|B|)", str(value))
    if match is None:
        raise ValueError("a size such as 512MiB")
    return int(match[1]) * _UNITS[match[2]]


def _tmpfs(value: object) -> Tmpfs:
    if isinstance(value, Tmpfs):
        return value
    fields: dict[Any, Any] = value if isinstance(value, dict) else {"size": value}
    executable = fields.get("exec", False)
    if set(fields) - {"size", "exec"} or "size" not in fields or not isinstance(executable, bool):
        raise ValueError("a size such as 64MiB, or {size: 64MiB, exec: true}")
    return Tmpfs(_size(fields["size"]), executable=executable)


def _inside(path: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", path) or ".." in path.split("/"):
        raise ValueError("an absolute path such as /work")
    return path


def _on_host(path: str) -> str:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("an absolute path such as /srv/ansible/inventory")
    return path


def rules_of(info: ValidationInfo) -> MountRules:
    """What may be mounted, as whoever reads the catalog says."""
    return info.context if isinstance(info.context, MountRules) else MountRules()


def read_believed(path: Path) -> bytes:
    """A file of the operator that decides what runners may do.

    Raises:
        OSError: it cannot be read.
        NotBelieved: more than its owner can change it.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise NotBelieved(
                f"has mode {mode:04o}, so others than its owner can change it; expected {mode & ~0o022:04o}"
            )
        return file.read()


def _mountable(path: str, info: ValidationInfo) -> str:
    if problem := rules_of(info).problem(path):
        raise ValueError(f"a folder or file that may be mounted; {problem}")
    return path


def _image(name: str) -> str:
    if "@" in name and not re.search(r"@sha256:[0-9a-f]{64}$", name):
        raise ValueError("a digest of the form image@sha256: and 64 hexadecimal digits")
    if not _IMAGE.fullmatch(name):
        raise ValueError("the name of an image, such as agp/runner-shell:1.0 or registry.example:5000/x@sha256:…")
    return name


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if PLAYBOOK not in words:
        raise ValueError(f'a list of words, one of them "{PLAYBOOK}"')
    return words


def _destination(value: object) -> Destination:
    return value if isinstance(value, Destination) else destinations.parse(str(value))


@dataclass(frozen=True, slots=True)
class SeccompProfile:
    """A seccomp profile on the agent's side, as it was when the catalog was read."""

    path: Path
    text: str


def _seccomp(value: object) -> SeccompProfile:
    if isinstance(value, SeccompProfile):
        return value
    path = Path(_on_host(str(value)))
    try:
        profile = json.loads(read_believed(path))
    except OSError as error:
        raise ValueError(f"a seccomp profile, and {path} cannot be read: {error.strerror}") from None
    except NotBelieved as error:
        raise ValueError(f"a seccomp profile, and {path} {error}") from None
    except ValueError:
        raise ValueError(f"a seccomp profile, and {path} is not valid JSON") from None
    if not isinstance(profile, dict) or profile.get("defaultAction") not in seccomp.DENYING:
        denying = ", ".join(seccomp.DENYING)
        raise ValueError(f"a profile that forbids what it does not name: defaultAction one of {denying}")
    _check_rules(path, profile)
    return SeccompProfile(path, json.dumps(profile, separators=(",", ":")))


def _check_rules(path: Path, profile: dict[str, Any]) -> None:
    try:
        opened = seccomp.opened(profile)
    except ValueError as error:
        raise ValueError(f"a seccomp profile, and {path} is none: expected {error}") from None
    if opened:
        raise ValueError(
            f"a profile that keeps the ways out of a container shut, and {path} lets through {', '.join(opened)}; "
            "take them out, or allow them under conditions (args, includes.caps)"
        )


Memory = Annotated[int, BeforeValidator(_size), Field(ge=_MEMORY_MIN), WithJsonSchema(_SIZE)]
TmpfsValue = Annotated[
    Tmpfs,
    BeforeValidator(_tmpfs),
    WithJsonSchema(
        {
            "anyOf": [
                _SIZE,
                {
                    "type": "object",
                    "properties": {"size": _SIZE, "exec": {"type": "boolean"}},
                    "required": ["size"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Inside = Annotated[str, AfterValidator(_inside), WithJsonSchema(_PATH)]
OnHost = Annotated[str, AfterValidator(_on_host), WithJsonSchema(_PATH)]
Mountable = Annotated[str, AfterValidator(_on_host), AfterValidator(_mountable), WithJsonSchema(_PATH)]
Image = Annotated[str, Field(min_length=1), AfterValidator(_image)]
Command = Annotated[tuple[str, ...], AfterValidator(_command)]
Allowed = Annotated[
    Destination,
    BeforeValidator(_destination),
    WithJsonSchema({"type": "string", "examples": ["10.20.0.0/16:22", "192.168.1.7"]}),
]
Seccomp = Annotated[SeccompProfile, BeforeValidator(_seccomp), WithJsonSchema(_PATH)]
