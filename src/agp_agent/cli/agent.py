"""The commands that run something: the agent, one playbook, the development dashboard, a look at this machine."""

import contextlib
import gc
import json
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from agp_agent import __version__, logs
from agp_agent import healthcheck as healthcheck_of
from agp_agent.build_info import BuildInfo
from agp_agent.cli.common import EXIT_FAILED, ConfigOption, app, fail, load, load_and_check, run_async
from agp_agent.errors import AgentError, ConfigurationError
from agp_agent.redaction import Masker
from agp_agent.tokens import TOKEN_MIN_CHARS, TokenSource


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
    with kept_for_good():
        from agp_agent import preflight, serving  # noqa: PLC0415  the other commands start faster without

    given = load_and_check(preflight.check, config, host=host, port=port, state_dir=state_dir)
    tokens = preflight.tokens_of(given)
    masker = Masker(tokens.known)
    logs.configure(given.log_level, masker.tree)
    run_async(lambda: serving.serve(given, tokens, masker))


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
    given = load(config, task_timeout_s=timeout_s)
    verdict, code = run_async(lambda: run_file(file.name, content, given, masker, timings))
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
    db: Annotated[
        Path | None,
        typer.Option(help="SQLite file for results, history and agents with their tokens; default is memory."),
    ] = None,
) -> None:
    """Start a development dashboard: sends playbooks to agents and takes their results, on a web page and here.

    The page opens by the link that is printed; it works once. Agents that are not registered there must send the token
    of the file, or that of AGP_DASHBOARD_TOKEN; else a new one is made and shown. Not for production.
    """
    from agp_agent.dev_dashboard import run_dashboard  # noqa: PLC0415  the other commands start faster without

    try:
        run_dashboard(host, port, _dashboard_token(token_file), db)
    except AgentError as error:
        fail(error)


@app.command()
def healthcheck(
    config: ConfigOption = None,
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether it would start a task now.")] = False,
) -> None:
    """Ask the agent of this machine whether it is alive: for containers' HEALTHCHECK, and pods' probes.

    Exit code 0 or 1. It needs no token.
    """
    if (why := healthcheck_of.problem(load(config), ready=ready)) is not None:
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
    given = load(config)
    if not run_async(lambda: examine(given, as_json=as_json, escape=escape)):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def version(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON: version, commit, Python.")] = False
) -> None:
    """Print the version, and with --json what it was built from."""
    typer.echo(json.dumps(asdict(BuildInfo.of_this())) if as_json else f"agp-agent {__version__}")


@contextlib.contextmanager
def kept_for_good() -> Iterator[None]:
    """Have what is imported inside looked through for garbage neither now, which takes a fifth of the time, nor later.

    Later it would be the event loop that waits, for tens of milliseconds each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


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
