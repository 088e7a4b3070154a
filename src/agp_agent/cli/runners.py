"""The commands about the catalog of runners."""

import json
import sys
from typing import Annotated

import typer

from agp_agent import catalog, logs
from agp_agent.cli.common import EXIT_FAILED, ConfigOption, catalog_of, load, run_async, runner_commands
from agp_agent.redaction import Masker


@runner_commands.command("list")
def runners_list(
    config: ConfigOption = None, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Print the runners of the catalog: what each takes, and what it is granted. Asks no engine."""
    from agp_agent.runner_check import document, table  # noqa: PLC0415  the other commands start faster without

    found = catalog_of(load(config))
    typer.echo(json.dumps(document(found), indent=2) if as_json else table(found))


@runner_commands.command("check", epilog="Examples: agp-agent runners check  ·  agp-agent runners check ansible --json")
def runners_check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Runners; by default all.")] = None,
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the agent's own log on stderr.")] = False,
) -> None:
    """Try each runner for real, and print what a playbook sees in it.

    User, writable places, limits, network, tools, mounts, names of secrets and of variables. Needs no running agent,
    and disturbs none. Exit code 1 where a runner is not as the catalog says.
    """
    from agp_agent.runner_check import check_runners  # noqa: PLC0415  the other commands start faster without

    given = load(config)
    runners = catalog_of(given).runners
    if unknown := [name for name in names or () if name not in runners]:
        raise typer.BadParameter(f"no runner {', '.join(unknown)}; the catalog has {', '.join(runners)}")
    masker = Masker(lambda: ())
    logs.configure("info" if verbose else "critical", masker.tree, sys.stderr)
    reports = run_async(lambda: check_runners([runners[name] for name in names or runners], given, masker))
    if as_json:
        typer.echo(json.dumps([report.document() for report in reports], indent=2))
    else:
        typer.echo("\n\n".join(report.text() for report in reports))
    if any(report.problems for report in reports):
        raise typer.Exit(EXIT_FAILED)


@runner_commands.command("schema")
def runners_schema() -> None:
    """Print the JSON Schema of a catalog, for editors and pipelines.

    Example: agp-agent runners schema > catalog.schema.json
    """
    typer.echo(json.dumps(catalog.schema(), indent=2))
