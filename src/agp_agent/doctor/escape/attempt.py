"""One attempt to get out of a task's container, and what is made of it. Pure."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from agp_agent.doctor.escape.programs import Program, playbook
from agp_agent.engine import ContainerEngine


class Verdict(StrEnum):
    """How an attempt ended."""

    HELD = "held"
    """Every try was refused, and the host is as it was."""
    ESCAPED = "ESCAPED"
    """Something outside the container was read, changed or reached, or the kernel did what it must not do."""
    UNKNOWN = "unknown"
    """The program did not come to its end: nobody knows."""


class Seen(Protocol):
    """What a judge may look at: the container of an attempt, while the program waits for it or has ended."""

    @property
    def container_id(self) -> str:
        """Its id on the engine."""

    @property
    def output(self) -> bytes:
        """What the program printed so far."""

    async def playbook(self) -> bytes:
        """The playbook as the engine's host has it now."""


Harm = Callable[[Seen], Awaitable[str | None]]
"""Looks at the host: one phrase that says what happened to it, or None."""


@dataclass(frozen=True, slots=True)
class Host:
    """Through what a judge sees the host: the engine, and a folder of this process in which it may lay things out."""

    engine: ContainerEngine
    folder: Path


@dataclass(frozen=True, slots=True)
class Scene:
    """What is laid out on the host for an attempt: ``facts`` that the program is told, and the judge."""

    facts: Mapping[str, Any]
    harm: Harm


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out. Its number is its place in SECURITY.md's table."""

    number: int
    title: str
    program: Program
    held_by: str
    """What stands against it, for people."""
    judge: Callable[[Host], AbstractAsyncContextManager[Scene]]
    """Lays the bait out, and takes it away again."""
    timeout_s: float = 60
    """After this the container is stopped, as a task is."""
    safe: bool = True
    """It harms nothing, even where it succeeds: for operators' own engines."""

    def playbook(self, facts: Mapping[str, Any]) -> str:
        """The program as a playbook of the Python runner."""
        return playbook(self.program, facts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt under the lockdown."""

    verdict: Verdict
    tried: int
    """Tries that were answered."""
    why: str
    """What was done or harmed, or how the tries were answered."""


def records(output: bytes) -> list[dict[str, Any]]:
    """What a program told, one document a line; anything else that it printed is no record."""
    found = []
    for line in output.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            found.append(document)
    return found


def outcome(output: bytes, harm: str | None) -> Outcome:
    """The verdict: the host's state first, then what the kernel answered."""
    told = records(output)
    answers = {record["tried"]: record["answer"] for record in told if "tried" in record}
    done = [what for what, answer in answers.items() if answer == "done"]
    done += [f"found something in {record['path']}" for record in told if "found" in record]
    if harm is not None or done:
        return Outcome(Verdict.ESCAPED, len(answers), "; ".join([*([harm] if harm else []), *done]))
    if not any("finished" in record for record in told):
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        return Outcome(Verdict.UNKNOWN, len(answers), f"the program did not come to its end: {last!r}")
    return Outcome(Verdict.HELD, len(answers), ", ".join(dict.fromkeys(map(str, answers.values()))))
