"""All runners together, and the choice of one for a playbook. Pure."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

from agp_agent.catalog.runner import Match, Runner

_LOOK_BYTES: Final = 64 * 1024
_PLAY_KEY: Final = re.compile(
    r"^(?:- +|  +)[\"']?(?:hosts|(?:ansible\.builtin\.)?import_playbook)[\"']?\s*:", re.MULTILINE
)


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
        if having := [name for name, runner in runners.items() if isinstance(runner, dict) and "name" in runner]:
            raise ValueError(f"no key `name` in a runner, which has its name above it: {', '.join(map(str, having))}")
        named = {
            name: runner | {"name": name} if isinstance(runner, dict) else runner for name, runner in runners.items()
        }
        return {**document, "runners": named}

    @property
    def names(self) -> list[str]:
        """The names of all runners."""
        return list(self.runners)

    @property
    def sha256(self) -> str:
        """Stands for all that is in force: every key of every runner, defaults and seccomp profiles with it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def largest_memory_bytes(self) -> int:
        """The largest memory limit of any runner."""
        return max(runner.memory for runner in self.runners.values())

    @property
    def side_files(self) -> list[Path]:
        """Files beside the catalog that were read with it."""
        return [runner.seccomp.path for runner in self.runners.values() if runner.seccomp]

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
