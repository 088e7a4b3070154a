"""The catalog of runners: which curated image runs which playbook, and within which limits.

Only the operator's catalog decides that; a task can never widen it.
"""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from agp_agent import __version__
from agp_agent.engine import PullPolicy, Tmpfs
from agp_agent.errors import ConfigurationError

PLAYBOOK: Final = "{playbook}"
"""Stands in a command for the path of the playbook inside the container."""

_UNITS: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_EXPECTED: Final = {
    "missing": "is required",
    "model_type": "expected a mapping of keys to values",
    "dict_type": "expected a mapping of keys to values",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "string_too_short": "must not be empty",
    "bool_type": "expected true or false",
}
_LOOK_BYTES: Final = 64 * 1024
_PLAY_KEY: Final = re.compile(
    r"^(?:- +|  +)[\"']?(?:hosts|(?:ansible\.builtin\.)?import_playbook)[\"']?\s*:", re.MULTILINE
)
_MEMORY_MIN: Final = 16 * 2**20


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


def _absolute(path: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", path) or ".." in path.split("/"):
        raise ValueError("an absolute path such as /work")
    return path


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if PLAYBOOK not in words:
        raise ValueError(f'a list of words, one of them "{PLAYBOOK}"')
    return words


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Match(_Part):
    """Which playbooks a runner is for."""

    suffixes: tuple[Annotated[str, Field(pattern=r"^\.[a-z0-9]+$")], ...] = ()
    shebangs: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], ...] = ()
    plays: bool = False


class Runner(_Part):
    """A curated image and its limits."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    image: Annotated[str, Field(min_length=1)]
    pull: PullPolicy = PullPolicy.MISSING
    match: Match = Match()
    command: Annotated[tuple[str, ...], AfterValidator(_command)]
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_running: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[int, BeforeValidator(_size), Field(ge=_MEMORY_MIN)] = 512 * 2**20
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    pids: Annotated[int, Field(ge=8)] = 256
    tmpfs: dict[Annotated[str, AfterValidator(_absolute)], Annotated[Tmpfs, BeforeValidator(_tmpfs)]] = {
        "/tmp": Tmpfs(64 * 2**20),  # noqa: S108  a path inside the container
        "/work": Tmpfs(256 * 2**20),
    }
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}

    @property
    def playbook_file(self) -> str:
        """What the playbook is called inside the container: one name for all, its suffix the runner's first."""
        return "playbook" + (self.match.suffixes[0] if self.match.suffixes else "")


class Catalog(BaseModel):
    """All runners, in the order of their definition."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    runners: dict[str, Runner]

    @model_validator(mode="before")
    @classmethod
    def _name_runners(cls, document: Any) -> Any:
        runners = document.get("runners") if isinstance(document, dict) else None
        if not isinstance(runners, dict):
            raise ValueError("a mapping `runners:` from names to runners")  # noqa: TRY004  pydantic reports ValueError
        named = {
            name: runner | {"name": name} if isinstance(runner, dict) else runner for name, runner in runners.items()
        }
        return {**document, "runners": named}

    @property
    def names(self) -> list[str]:
        """The names of all runners."""
        return list(self.runners)

    @property
    def largest_memory_bytes(self) -> int:
        """The largest memory limit of any runner."""
        return max(runner.memory for runner in self.runners.values())

    def choose(self, name: str, content: str) -> Runner | None:
        """The runner for a playbook: by the suffix of its name, else its shebang, else YAML that is a list of plays."""
        start = content[:_LOOK_BYTES].removeprefix("\ufeff")
        suffix, interpreter = Path(name).suffix.lower(), _interpreter(start)
        tests: tuple[Callable[[Match], bool], ...] = (
            lambda match: suffix in match.suffixes,
            lambda match: interpreter in match.shebangs,
            lambda match: match.plays and _looks_like_plays(start),
        )
        for test in tests:
            for runner in self.runners.values():
                if test(runner.match):
                    return runner
        return None


def _interpreter(start: str) -> str:
    """The program that a shebang names, without folder and version: ``python`` for ``#!/usr/bin/env python3``."""
    first = start.split("\n", 1)[0]
    if not first.startswith("#!"):
        return ""
    words = [word for word in first[2:].split() if not word.startswith("-")]
    program = Path(words[0]).name if words else ""
    if program == "env" and len(words) > 1:
        program = Path(words[1]).name
    return re.sub(r"[\d.]+$", "", program)


def _looks_like_plays(start: str) -> bool:
    """Whether the text is YAML whose top level is a list of plays. Nothing is loaded: only lines are looked at."""
    for line in start.splitlines():
        if line.strip() and not line.startswith(("#", "%", "---")):
            return (line.startswith("- ") or line.rstrip() == "-") and _PLAY_KEY.search(start) is not None
    return False


def load(path: Path | None = None) -> Catalog:
    """The built-in catalog, with the operator's runners laid over it.

    Raises:
        ConfigurationError: every problem at once, each with file, runner, key and what was expected.
    """
    built_in = (files("agp_agent") / "catalog.yaml").read_text().replace("{version}", __version__)
    catalog = Catalog.model_validate(yaml.safe_load(built_in))
    if path is None:
        return catalog
    return Catalog(runners={**catalog.runners, **_read(path).runners})


def _read(path: Path) -> Catalog:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"AGP_CATALOG: {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f"line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else "the file"
        raise ConfigurationError(f"AGP_CATALOG: {path}: {where} is not valid YAML.") from None
    try:
        return Catalog.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(
            *(f"AGP_CATALOG: {path}: {_describe(problem)}" for problem in error.errors())
        ) from None


def _describe(problem: Any) -> str:
    path = [str(part) for part in problem["loc"] if part not in ("runners", "[key]")]
    where = f"runner {path[0]}, {'.'.join(path[1:]) or 'as a whole'}: " if path else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}is not a known key."
    if problem["type"] == "value_error":
        return f"{where}expected {problem['ctx']['error']}."
    if problem["type"] in _EXPECTED:
        return f"{where}{_EXPECTED[problem['type']]}."
    return f"{where}expected: {problem['msg'].removeprefix('Input should be ')}."
