"""The commands about tasks: list, show, their output, cancel."""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from agp_agent.cli.asking import agent_of, ask
from agp_agent.cli.common import EXIT_FAILED, ConfigOption, app, load, task_commands
from agp_agent.cli.tables import print_fields, print_table
from agp_agent.journal import ALIAS_PREFIX, Delivery, TaskFilter, Views
from agp_agent.lifecycle import Outcome, State

TaskArgument = Annotated[str, typer.Argument(metavar="TASK_ID", help="The task's id, as the dashboard gave it.")]
LimitOption = Annotated[int, typer.Option(min=1, max=200, help="At most so many, the newest first.")]
CursorOption = Annotated[
    int | None, typer.Option(min=1, max=2**63 - 1, help="Go on where an earlier list ended; it says by which.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@task_commands.command("list", epilog="Examples: agp-agent tasks list --outcome failed  ·  … --delivery dead_letter")
def tasks_list(
    config: ConfigOption = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only those that ended so.")] = None,
    delivery: Annotated[Delivery | None, typer.Option(help="Only those whose delivery stands so.")] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the latest tasks, the newest first."""

    async def from_journal(views: Views) -> dict[str, Any]:
        found, more = await views.tasks(TaskFilter(state, outcome, delivery), limit, cursor)
        return {"tasks": [_document(one) for one in found], "next_cursor": str(more) if more else None}

    query = {"state": state, "outcome": outcome, "delivery": delivery, "limit": limit, "cursor": cursor}
    found = ask(config, lambda agent: agent.ask("GET", "/tasks", **query), from_journal)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(("accepted", "state", "delivery", "task", "error"), [_row(one) for one in found["tasks"]])
    if found["next_cursor"]:
        typer.echo(f"agp-agent: there are older ones; go on by --cursor {found['next_cursor']}.", err=True)


@task_commands.command("show")
def tasks_show(task_id: TaskArgument, config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Print all that is known of a task's latest attempt."""
    from agp_agent.agent_client import task_path  # noqa: PLC0415  the other commands start faster without

    async def from_journal(views: Views) -> dict[str, Any] | None:
        found = await views.task(await _named(views, task_id))
        return _document(found) if found else None

    found = ask(config, lambda agent: agent.ask("GET", task_path(task_id)), from_journal)
    if found is None:
        _unknown()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    delivery = {f"delivery {name}": value for name, value in found.pop("delivery").items()}
    told = [(f"recap {one.pop('host')}", _counts(one)) for one in found.pop("recap")]
    told += [(f"{one['kind']} on {one['host']}", f"{one['task']}: {one['message']}") for one in found.pop("failures")]
    print_fields([*found.items(), *delivery.items(), *told])


@app.command(epilog="Examples: agp-agent logs -f 'deploy 42'  ·  agp-agent logs deploy | less")
def logs(
    task_id: TaskArgument,
    config: ConfigOption = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task ends.")] = False,
) -> None:
    """Print what a task printed; with -f live, from its first byte on.

    What is not kept is named on stderr. An agent that restarts meanwhile is waited for, and nothing comes twice.
    Where no agent runs, its journal is read.
    """
    from agp_agent.agent_client import task_path  # noqa: PLC0415  the other commands start faster without

    path = task_path(task_id, "logs")

    async def from_journal(views: Views) -> str | None:
        kept = await views.kept(await _named(views, task_id))
        return kept.output.text() if kept else None

    text = ask(config, lambda agent: _follow(agent.follow(path)) if follow else agent.text(path), from_journal)
    if text is None:
        _unknown()
    _print(text)


@app.command()
def cancel(task_id: TaskArgument, config: ConfigOption = None) -> None:
    """Stop a task that waits or runs; its result is `cancelled`."""
    from agp_agent.agent_client import task_path  # noqa: PLC0415  the other commands start faster without

    with agent_of(load(config)) as agent:
        typer.echo(agent.ask("POST", task_path(task_id, "cancel"))["message"])


async def _named(views: Views, task_id: str) -> str:
    """The task that this names, as the agent understands it: by its id, or by ``~`` and the id's SHA-256."""
    return (await views.task_id_of(task_id) if task_id.startswith(ALIAS_PREFIX) else None) or task_id


def _follow(events: Iterable[Any]) -> str:
    """Print them as they come; nothing is left to print then."""
    for event in events:
        if event.kind == "output":
            _print(event.data["text"])
        elif event.kind == "gap":
            number = event.data["omitted_bytes"]
            typer.echo(f"[agp-agent: {number or 'an unknown number of'} bytes omitted]", err=True)
        elif event.kind == "lost":
            typer.echo("agp-agent: the agent does not answer any more; waiting a minute for it …", err=True)
        elif event.kind == "end" and event.data["error"]:
            typer.echo(f"agp-agent: {event.data['error']}", err=True)
    return ""


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _document(task: Any) -> dict[str, Any]:
    from agp_agent.api.answers import TaskDetails  # noqa: PLC0415  the other commands start faster without

    return TaskDetails.of(task).model_dump(mode="json")


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    return (
        task["accepted_at"].partition(".")[0].rstrip("Z").replace("T", " "),
        task["outcome"] or task["state"],
        task["delivery"]["state"] if task["outcome"] else "",
        task["task_id"],
        task["error"] or "",
    )


def _counts(recap: dict[str, int]) -> str:
    return " ".join(f"{name}={number}" for name, number in recap.items())


def _unknown() -> None:
    typer.echo("agp-agent: There is no task with this id.", err=True)
    raise typer.Exit(EXIT_FAILED)
