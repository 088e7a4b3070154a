"""The commands. No logic: each reads its arguments, calls one function, and turns errors into sentences and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 engine unavailable, 78 configuration.
"""

import asyncio
import contextlib
import gc
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from pydantic import SecretStr

from agp_agent import __version__, audit_verification, catalog, logs, settings
from agp_agent import healthcheck as healthcheck_of
from agp_agent.errors import AgentError, ConfigurationError, EngineError
from agp_agent.redaction import MASK, Masker
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir
from agp_agent.tokens import TOKEN_MIN_CHARS, TokenSource

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
app.add_typer(config_commands, name="config")
app.add_typer(runner_commands, name="runners")
app.add_typer(audit_commands, name="audit")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML file with settings.  \\[default: /etc/agp-agent/agent.yaml]"),
]


@app.command(
    epilog="Try it: agp-agent dashboard in one terminal; in another AGP_TOKEN=$(agp-agent token new) "
    "AGP_DASHBOARD_URL=… AGP_DASHBOARD_TOKEN=… agp-agent serve.  All settings: agp-agent config show."
)
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Directory of journal, audit trail and slots.")] = None,
) -> None:
    """Serve the dashboard: take tasks on, run them, deliver their results.

    Needs AGP_TOKEN (or AGP_TOKEN_FILE), AGP_DASHBOARD_URL and AGP_DASHBOARD_TOKEN (or its file). SIGTERM drains.
    """
    with _kept_for_good():
        from agp_agent import app as roof  # noqa: PLC0415  the other commands start faster without
        from agp_agent import preflight  # noqa: PLC0415

    given = _load_and_check(preflight.check, config, host=host, port=port, state_dir=state_dir)
    tokens = preflight.tokens_of(given)
    masker = Masker(tokens.known)
    logs.configure(given.log_level, masker.tree)
    _run(lambda: roof.serve(given, tokens, masker))


@app.command(epilog="Examples: agp-agent run site.yml  ·  echo 'id; df -h' | agp-agent run -")
def run(
    file: Annotated[Path, typer.Argument(help="The playbook: Ansible YAML, a shell or a Python script; - is stdin.")],
    config: ConfigOption = None,
    timeout_s: Annotated[float | None, typer.Option(help="Longest run, in seconds.")] = None,
    timings: Annotated[
        typer.FileTextWrite | None,
        typer.Option(
            metavar="FILE",
            lazy=False,  # one that cannot be written is told before anything runs
            help="Write to FILE, as JSON, how many milliseconds after its order the run reached each stage: accepted "
            "on disk, container created and started, playbook released, first output, exit, result on disk, removed.",
        ),
    ] = None,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the agent's own log on stderr.")] = False,
) -> None:
    """Run one playbook here and now, in the same locked container as a task of the dashboard.

    Its output goes to the terminal as it comes; the exit code is the playbook's (124 timed out, 130 by Ctrl-C).
    Needs no token and no running agent, and disturbs none.
    """
    from agp_agent.local_run import EXIT_UNREAD, run_file  # noqa: PLC0415  the other commands start faster without

    masker = Masker(lambda: ())
    logs.configure("info" if verbose else "error", masker.tree, sys.stderr)
    content = _read_playbook(file)
    given = _load(config, task_timeout_s=timeout_s)
    verdict, code = _run(lambda: run_file(file.name, content, given, masker, timings))
    if code == EXIT_UNREAD:
        os._exit(code)  # the interpreter would complain that it cannot flush what nobody reads
    if verdict.error and code != verdict.exit_code:
        typer.echo(f"agp-agent: {verdict.error}", err=True)
    raise typer.Exit(code)


@app.command()
def dashboard(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8471,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="AGP_DASHBOARD_TOKEN_FILE", help="File with the token that agents must send."),
    ] = None,
    db: Annotated[Path | None, typer.Option(help="SQLite file to keep results in; default is memory.")] = None,
) -> None:
    """Start a development dashboard: it takes results as the real one does, and shows them here and on a web page.

    Agents must send the token of the file, or that of AGP_DASHBOARD_TOKEN; else a new one is made and shown.
    """
    from agp_agent.dev_dashboard import run_dashboard  # noqa: PLC0415  the other commands start faster without

    try:
        run_dashboard(host, port, _dashboard_token(token_file), db)
    except AgentError as error:
        _fail(error)


@app.command()
def healthcheck(
    config: ConfigOption = None,
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it would start a task now.")] = False,
) -> None:
    """Ask the agent of this machine whether it is alive: for containers' HEALTHCHECK, and pods' probes.

    Exit code 0 or 1. It needs no token.
    """
    if (why := healthcheck_of.problem(_load(config), ready=ready)) is not None:
        typer.echo(f"agp-agent: {why}", err=True)
        raise typer.Exit(EXIT_FAILED)
    typer.echo("ready" if ready else "healthy")


@app.command(epilog="Examples: agp-agent doctor  ·  agp-agent doctor --escape  ·  agp-agent doctor --json | jq .checks")
def doctor(
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    escape: Annotated[
        bool, typer.Option("--escape", help="Also make the harmless attempts to escape, in containers as tasks get.")
    ] = False,
) -> None:
    """Examine the engine, this machine, the runners and their lockdown; say what is wrong, and how to mend it.

    Makes a container of each runner, reads it back, and removes it. Exit code 0 (warnings included) or 1.
    """
    from agp_agent.doctor import doctor as examine  # noqa: PLC0415  the other commands start faster without

    logs.configure("error", lambda tree: tree, sys.stderr)
    given = _load(config)
    if not _run(lambda: examine(given, as_json=as_json, escape=escape)):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"agp-agent {__version__}")


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
    given = _load(config)
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

    given = _load_and_check(check_all, config)
    names = ", ".join(catalog.load(given.catalog, mount_rules(given)).names)
    typer.echo(f"The settings are fine. Runners: {names}. State directory: {given.state_dir}.")


@runner_commands.command("list")
def runners_list(
    config: ConfigOption = None, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Print the runners of the catalog: what each takes, and what it is granted. Asks no engine."""
    from agp_agent.runner_check import document, table  # noqa: PLC0415  the other commands start faster without

    found = _catalog(_load(config))
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

    given = _load(config)
    runners = _catalog(given).runners
    if unknown := [name for name in names or () if name not in runners]:
        raise typer.BadParameter(f"no runner {', '.join(unknown)}; the catalog has {', '.join(runners)}")
    masker = Masker(lambda: ())
    logs.configure("info" if verbose else "critical", masker.tree, sys.stderr)
    reports = _run(lambda: check_runners([runners[name] for name in names or runners], given, masker))
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
    trail = StateDir.audit_of(_load(config, state_dir=state_dir).state_dir)
    try:
        report = audit_verification.verify(trail, known)
    except OSError as error:
        typer.echo(f"agp-agent: {error.filename or trail}: cannot be read: {error.strerror or error}.", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    typer.echo(json.dumps(report.document(), indent=2) if as_json else report.text())
    raise typer.Exit(0 if report.is_whole else EXIT_FAILED)


def main() -> None:
    """Entry point of the command ``agp-agent``."""
    try:
        app()
    except KeyboardInterrupt:  # before or after the part that listens for it
        raise SystemExit(EXIT_INTERRUPTED) from None


def _load(config: Path | None, **overrides: Any) -> Settings:
    try:
        return settings.load(config, **overrides)
    except ConfigurationError as error:
        _fail(error)


def _catalog(given: Settings) -> catalog.Catalog:
    from agp_agent.preflight import mount_rules  # noqa: PLC0415  the other commands start faster without

    try:
        return catalog.load(given.catalog, mount_rules(given))
    except ConfigurationError as error:
        _fail(error)


def _load_and_check(check: Callable[[Settings], None], config: Path | None, **overrides: Any) -> Settings:
    """Read the settings and find every problem at once, each with where its value stands."""
    given, problems = settings.load_with_problems(config, **overrides)
    if given is None:
        _fail(ConfigurationError(*problems))
    try:
        check(given)
    except ConfigurationError as error:
        known = {settings.name_in(problem) for problem in problems} - {None}
        more = [problem for problem in error.problems if settings.name_in(problem) not in known]
        problems += [settings.with_source(problem, given, config) for problem in more]
    if problems:
        _fail(ConfigurationError(*problems))
    return given


@contextlib.contextmanager
def _kept_for_good() -> Iterator[None]:
    """Have what is imported inside looked through for garbage neither now, which takes a fifth of the time, nor later.

    Later it would be the event loop that waits, for tens of milliseconds each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(call: Callable[[], Any]) -> Any:
    """Run a coroutine on uvloop; turn the errors that have a sentence into one and an exit code."""
    import uvloop  # noqa: PLC0415  the other commands start faster without

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(call())
    except* AgentError as group:
        _fail(_first(group))


def _first(group: BaseExceptionGroup[AgentError]) -> AgentError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AgentError)  # noqa: S101  the group holds nothing else
    return error


def _fail(error: AgentError) -> NoReturn:
    problems = error.problems if isinstance(error, ConfigurationError) else (str(error),)
    for problem in problems:
        typer.echo(f"agp-agent: {problem}", err=True)
    if isinstance(error, ConfigurationError):
        raise SystemExit(EXIT_CONFIGURATION)
    raise SystemExit(EXIT_ENGINE if isinstance(error, EngineError) else EXIT_FAILED)


def _dashboard_token(file: Path | None) -> str:
    given = SecretStr(os.environ["AGP_DASHBOARD_TOKEN"]) if "AGP_DASHBOARD_TOKEN" in os.environ and not file else None
    source = TokenSource("AGP_DASHBOARD_TOKEN", given, file)
    if not source.configured:
        token = secrets.token_urlsafe(32)
        typer.echo(f"Token:  AGP_DASHBOARD_TOKEN={token}")
        return token
    token = source.current()[0].decode(errors="replace")
    if len(token) < TOKEN_MIN_CHARS:
        raise ConfigurationError(f"AGP_DASHBOARD_TOKEN: expected at least {TOKEN_MIN_CHARS} characters.")
    return token


def _read_playbook(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode()
    except OSError as error:
        reason = f"{file}: cannot be read: {error.strerror or os.strerror(error.errno or 0)}."
    except UnicodeDecodeError:
        reason = f"{file}: is not UTF-8 text."
    typer.echo(f"agp-agent: {reason}", err=True)
    raise typer.Exit(2)


def _shown(value: object) -> object:
    if value is None or isinstance(value, int | float | bool):
        return value
    return MASK if hasattr(value, "get_secret_value") else Masker(tuple).text(str(value))
