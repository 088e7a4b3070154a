"""What the commands share: the command line, reading settings, and turning errors into sentences and exit codes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from agp_agent import catalog, settings
from agp_agent.errors import AgentError, ConfigurationError, EngineError
from agp_agent.settings import Settings

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_ENGINE: Final = 69
EXIT_CONFIGURATION: Final = 78

app = typer.Typer(
    name="agp-agent",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Runs automation playbooks in ephemeral, locked-down containers and never loses a result.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 69 container engine unavailable, 78 configuration.  "
    "Try first: agp-agent run FILE.  Then: agp-agent dashboard, and agp-agent serve --help.",
)
token_commands = typer.Typer(no_args_is_help=True, help="Bearer tokens.")
runner_commands = typer.Typer(no_args_is_help=True, help="The catalog of runners (AGP_CATALOG).")
config_commands = typer.Typer(no_args_is_help=True, help="Settings: environment (AGP_…), YAML file, defaults.")
app.add_typer(token_commands, name="token")
audit_commands = typer.Typer(no_args_is_help=True, help="The audit trail.")
task_commands = typer.Typer(no_args_is_help=True, help="Tasks of the running agent, or of the journal where none runs.")
outbox_commands = typer.Typer(no_args_is_help=True, help="Results that the dashboard has not acknowledged.")
app.add_typer(task_commands, name="tasks")
app.add_typer(outbox_commands, name="outbox")
app.add_typer(config_commands, name="config")
app.add_typer(runner_commands, name="runners")
app.add_typer(audit_commands, name="audit")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML file with settings.  \\[default: /etc/agp-agent/agent.yaml]"),
]


def load(config: Path | None, **overrides: Any) -> Settings:
    """Read the settings; end with all that is wrong with them."""
    try:
        return settings.load(config, **overrides)
    except ConfigurationError as error:
        fail(error)


def catalog_of(given: Settings) -> catalog.Catalog:
    """Read the catalog that the settings name; end with all that is wrong with it."""
    from agp_agent.preflight import mount_rules  # noqa: PLC0415  the other commands start faster without

    try:
        return catalog.load(given.catalog, mount_rules(given))
    except ConfigurationError as error:
        fail(error)


def load_and_check(check: Callable[[Settings], None], config: Path | None, **overrides: Any) -> Settings:
    """Read the settings and find every problem at once, each with where its value stands."""
    given, problems = settings.load_with_problems(config, **overrides)
    if given is None:
        fail(ConfigurationError(*problems))
    try:
        check(given)
    except ConfigurationError as error:
        known = {settings.name_in(problem) for problem in problems} - {None}
        more = [problem for problem in error.problems if settings.name_in(problem) not in known]
        problems += [settings.with_source(problem, given, config) for problem in more]
    if problems:
        fail(ConfigurationError(*problems))
    return given


def run_async(call: Callable[[], Any]) -> Any:
    """Run a coroutine on uvloop; turn the errors that have a sentence into one and an exit code."""
    import uvloop  # noqa: PLC0415  the other commands start faster without

    failed: AgentError | None = None
    result = None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(call())
    except* AgentError as group:
        failed = _first(group)  # to raise in here would make a group of it, which ends with a traceback
    return result if failed is None else fail(failed)


def _first(group: BaseExceptionGroup[AgentError]) -> AgentError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AgentError)  # noqa: S101  the group holds nothing else
    return error


def fail(error: AgentError) -> NoReturn:
    """Say what is wrong, a line for each problem, and end with the exit code that tells its kind."""
    problems = error.problems if isinstance(error, ConfigurationError) else (str(error),)
    for problem in problems:
        typer.echo(f"agp-agent: {problem}", err=True)
    if isinstance(error, ConfigurationError):
        raise SystemExit(EXIT_CONFIGURATION)
    raise SystemExit(EXIT_ENGINE if isinstance(error, EngineError) else EXIT_FAILED)
