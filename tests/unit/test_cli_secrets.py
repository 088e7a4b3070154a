"""No command takes a secret as an argument: every process of a machine can read another one's."""

from collections.abc import Iterator
from typing import Any

import typer.main

from agp_agent.cli import app
from agp_agent.redaction import is_secret


def parameters(command: Any) -> Iterator[str]:
    """The names of all arguments and options of a command and of those below it."""
    yield from (parameter.name for parameter in command.params)
    for each in getattr(command, "commands", {}).values():
        yield from parameters(each)


def test_no_command_takes_a_secret_as_an_argument() -> None:
    """Files that hold one may be named."""
    names = set(parameters(typer.main.get_command(app)))
    assert {name for name in names if is_secret(name)} == set()
    assert {"token_file", "config", "head"} <= names  # control: they were looked at
