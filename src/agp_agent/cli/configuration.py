"""The commands about settings and tokens. They start nothing."""

import json
import secrets
from typing import Annotated

import typer

from agp_agent import catalog, settings
from agp_agent.cli.common import ConfigOption, config_commands, load, load_and_check, token_commands
from agp_agent.redaction import MASK, Masker


@token_commands.command("new")
def token_new() -> None:
    """Print a new random token of 256 bits.

    Put it into a file that only the agent can read: agp-agent token new > /etc/agp-agent/token
    """
    typer.echo(secrets.token_urlsafe(32))


@config_commands.command("show")
def config_show(
    config: ConfigOption = None, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Print every setting with its value and where that comes from; tokens are masked."""
    given = load(config)
    rows = {
        name: (_shown(getattr(given, name)), settings.source_of(name, given, config))
        for name in type(given).model_fields
    }
    if as_json:
        typer.echo(
            json.dumps({name: {"value": value, "source": source} for name, (value, source) in rows.items()}, indent=2)
        )
        return
    width = max(len(name) for name in rows)
    for name, (value, source) in rows.items():
        typer.echo(f"{name:<{width}}  {'-' if value is None else value}  ({source})")


@config_commands.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Check settings, tokens, catalog and secrets without starting anything; all problems at once.

    Exit code 0 or 78.
    """
    from agp_agent.preflight import check_all, mount_rules  # noqa: PLC0415  the others start faster without

    given = load_and_check(check_all, config)
    names = ", ".join(catalog.load(given.catalog, mount_rules(given)).names)
    typer.echo(f"The settings are fine. Runners: {names}. State directory: {given.state_dir}.")


@config_commands.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the settings file, for editors and pipelines.

    Example: agp-agent config schema > agent.schema.json
    """
    typer.echo(json.dumps(settings.Settings.model_json_schema(), indent=2))


def _shown(value: object) -> object:
    if value is None or isinstance(value, int | float | bool):
        return value
    return MASK if hasattr(value, "get_secret_value") else Masker(tuple).text(str(value))
