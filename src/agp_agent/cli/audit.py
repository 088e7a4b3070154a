"""The commands about the audit trail."""

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from agp_agent import audit_files, audit_verification
from agp_agent.audit import read_events
from agp_agent.cli.common import EXIT_FAILED, ConfigOption, audit_commands, load
from agp_agent.state_dir import StateDir


@audit_commands.command(
    "verify",
    epilog="A head is what the dashboard got with a result: AGP-Audit-Head: 17:ab12…  Without one, lines that were cut "
    "off at the end, or a trail that was written anew, cannot be told from a shorter or another one.",
)
def audit_verify(
    config: ConfigOption = None,
    state_dir: Annotated[Path | None, typer.Option(help="Directory with the trail, or with a copy of it.")] = None,
    head: Annotated[str | None, typer.Option(metavar="SEQ:SHA256", help="A head that the trail once had.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify the audit trail over all its files: each line vouches for the one before. Exit code 0 or 1.

    The agent may go on running meanwhile.
    """
    try:
        known = audit_verification.parse_head(head) if head else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None
    trail = StateDir.audit_of(load(config, state_dir=state_dir).state_dir)
    with _readable(trail):
        report = audit_verification.verify(trail, known)
    typer.echo(json.dumps(report.document(), indent=2) if as_json else report.text())
    raise typer.Exit(0 if report.is_whole else EXIT_FAILED)


_LOOK_S: Final = 0.5


@audit_commands.command("tail", epilog="Examples: agp-agent audit tail -n 50  ·  agp-agent audit tail -f | jq .event")
def audit_tail(
    config: ConfigOption = None,
    state_dir: Annotated[Path | None, typer.Option(help="Directory with the trail, or with a copy of it.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many of the last events.")] = 20,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
) -> None:
    """Print the last events of the audit trail, a JSON object a line, over all its files."""
    trail = StateDir.audit_of(load(config, state_dir=state_dir).state_dir)
    with _readable(trail):
        if not trail.exists():
            typer.echo(f"agp-agent: {trail}: there is no audit trail.", err=True)
            raise typer.Exit(EXIT_FAILED)
        events = list(deque(read_events(trail), maxlen=max(lines, 1)))
    for event in events[max(0, len(events) - lines) :] if lines else ():
        _print(event)
    last = int(events[-1].get("seq", 0)) if events else 0
    for event in _added(trail, last) if follow else ():
        _print(event)


@contextmanager
def _readable(trail: Path) -> Iterator[None]:
    """What cannot be read ends the command with a sentence."""
    try:
        yield
    except OSError as error:
        typer.echo(f"agp-agent: {error.filename or trail}: cannot be read: {error.strerror or error}.", err=True)
        raise typer.Exit(EXIT_FAILED) from None


def _added(trail: Path, last: int) -> Iterator[dict[str, Any]]:
    """What comes behind event ``last``, for ever. Each file is read once, and to its end before the next one is."""
    while True:
        with contextlib.suppress(FileNotFoundError), trail.open("rb") as file:  # while files are changed there is none
            for event in _until_replaced(trail, file):
                seq = event.get("seq", 0)
                if seq > last + 1:  # files came and went between two looks
                    yield from (missed for missed in read_events(trail) if last < missed.get("seq", 0) < seq)
                if seq > last:
                    last = seq
                    yield event
        time.sleep(_LOOK_S)


def _until_replaced(trail: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The events of the current file from its beginning on, until it is full and another one is in its place."""
    while True:
        is_over = not _is_the_same(trail, file)  # asked first: then what stands in it is all of it
        behind = file.tell()
        while (line := file.readline()).endswith(b"\n"):
            behind = file.tell()
            if (event := audit_files.event_in(line)) is not None:
                yield event
        if is_over:
            return
        file.seek(behind if os.fstat(file.fileno()).st_size >= behind else 0)  # less: what was torn was cut off
        time.sleep(_LOOK_S)


def _is_the_same(trail: Path, file: BinaryIO) -> bool:
    try:
        return trail.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _print(event: dict[str, Any]) -> None:
    typer.echo(json.dumps(event, ensure_ascii=False))
