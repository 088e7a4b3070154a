"""The commands about the audit trail."""

import json
from pathlib import Path
from typing import Annotated

import typer

from agp_agent import audit_verification
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
    try:
        report = audit_verification.verify(trail, known)
    except OSError as error:
        typer.echo(f"agp-agent: {error.filename or trail}: cannot be read: {error.strerror or error}.", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    typer.echo(json.dumps(report.document(), indent=2) if as_json else report.text())
    raise typer.Exit(0 if report.is_whole else EXIT_FAILED)
