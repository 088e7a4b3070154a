"""The commands by which an operator acts on the running agent, and sees how it is."""

import json
from typing import Annotated, Any, Final

import typer

from agp_agent.cli.asking import agent_of, ask
from agp_agent.cli.common import ConfigOption, app, load, outbox_commands
from agp_agent.cli.tables import print_fields
from agp_agent.cli.tasks import CursorOption, JsonOption, LimitOption, TaskArgument, tasks_list
from agp_agent.journal import Delivery, Views

_PLAIN: Final = ("version", "agent_id", "ready", "paused", "draining")


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Print how the agent is: engine, places, queue, outbox, and what is not well."""

    async def from_journal(views: Views) -> dict[str, Any]:
        states, outbox = await views.states(), await views.outbox()
        queue = {state.value: number for state, number in states.items()}
        return {"queue": queue, "outbox": {name: getattr(outbox, name) for name in outbox.__slots__}}

    found = ask(config, lambda agent: agent.ask("GET", "/status"), from_journal)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    fields: dict[str, object] = {
        name: found.get(name) for name in ("version", "agent_id", "ready", "paused", "draining")
    }
    for group in ("engine", "slots", "queue", "outbox"):
        fields |= {f"{group} {name}": value for name, value in (found.get(group) or {}).items()}
    for kind in ("problems", "warnings"):
        fields |= {f"{kind[:-1]}: {part}": sentence for part, sentence in found.get(kind, {}).items()}
    print_fields(fields.items())


@app.command()
def pause(config: ConfigOption = None) -> None:
    """Start no task until `resume`, also over restarts: for maintenance. What comes waits, what runs goes on."""
    with agent_of(load(config)) as agent:
        typer.echo(agent.ask("POST", "/pause")["message"])


@app.command()
def resume(config: ConfigOption = None) -> None:
    """Start tasks again."""
    with agent_of(load(config)) as agent:
        typer.echo(agent.ask("POST", "/resume")["message"])


@outbox_commands.command("list")
def outbox_list(
    config: ConfigOption = None,
    delivery: Annotated[Delivery, typer.Option(help="pending, or dead_letter.")] = Delivery.DEAD_LETTER,
    limit: LimitOption = 200,
    cursor: CursorOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the results that were given up (dead letters), or those that wait."""
    tasks_list(config, None, None, delivery, limit, cursor, as_json=as_json)


@outbox_commands.command(
    "retry", epilog="Examples: agp-agent outbox retry 'deploy 42'  ·  agp-agent outbox retry --all"
)
def outbox_retry(
    task_id: Annotated[str | None, typer.Argument(metavar="[TASK_ID]", help="The task's id.")] = None,
    config: ConfigOption = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
) -> None:
    """Deliver a result now, a dead letter too."""
    from agp_agent.agent_client import task_path  # noqa: PLC0415  the other commands start faster without

    if (task_id is None) is not everything:
        raise typer.BadParameter("give a TASK_ID, or --all")
    path = "/outbox/retry" if task_id is None else task_path(task_id, "delivery", "retry")
    with agent_of(load(config)) as agent:
        typer.echo(agent.ask("POST", path)["message"])


@outbox_commands.command("drop")
def outbox_drop(
    task_id: TaskArgument,
    config: ConfigOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a dead letter: the dashboard will never have this result. The audit trail keeps that it was there."""
    from agp_agent.agent_client import task_path  # noqa: PLC0415  the other commands start faster without

    if not yes:
        typer.confirm("The dashboard will never get this result. Forget it?", abort=True)
    with agent_of(load(config)) as agent:
        typer.echo(agent.ask("POST", task_path(task_id, "delivery", "drop"))["message"])
