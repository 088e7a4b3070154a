"""Playbooks that do the same in the fake engine and in the real shell runner."""

import shlex
from enum import StrEnum
from typing import NamedTuple


class Dialect(StrEnum):
    """Who reads the playbook."""

    FAKE = "fake"
    SHELL = "shell"


class Step(NamedTuple):
    """One thing that a playbook does, in both dialects."""

    fake: str
    shell: str


IGNORE_TERM = Step("ignore TERM", "trap '' TERM")
RUN_FOREVER = Step("forever", "while :; do sleep 0.1; done")
EAT_MEMORY = Step("oom", "exec tail /dev/zero")


def say(text: str) -> Step:
    """Print a line on stdout."""
    return Step(f"print {text}", f"printf '%s\\n' {shlex.quote(text)}")


def complain(text: str) -> Step:
    """Print a line on stderr."""
    return Step(f"err {text}", f"printf '%s\\n' {shlex.quote(text)} >&2")


def emit(data: bytes) -> Step:
    """Print these bytes on stdout."""
    octal = "".join(f"\\{byte:03o}" for byte in data)
    return Step(f"bytes {data.hex()}", f"printf '{octal}'")


def flood(size_bytes: int) -> Step:
    """Print so many letters x without a newline."""
    return Step(f"fill {size_bytes}", f"head -c {size_bytes} /dev/zero | tr '\\0' x")


def pause(seconds: float) -> Step:
    """Wait."""
    return Step(f"sleep {seconds}", f"sleep {seconds}")


def leave(code: int) -> Step:
    """End with this exit code."""
    return Step(f"exit {code}", f"exit {code}")


def show_secret(name: str) -> Step:
    """Print a secret, byte for byte; end with 1 where it is not there."""
    return Step(f"secret {name}", f"cat /run/secrets/{name} || exit 1")


def playbook(dialect: Dialect, *steps: Step) -> bytes:
    """Write the steps down for one of the two."""
    lines = ("#!/bin/bash", *(step.fake if dialect is Dialect.FAKE else step.shell for step in steps))
    return "".join(f"{line}\n" for line in lines).encode()
