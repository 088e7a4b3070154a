"""How commands ask: the running agent, or its journal, read only, where none runs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from agp_agent.cli.common import fail, load
from agp_agent.errors import AgentError
from agp_agent.journal import Views, views_of
from agp_agent.settings import Settings


@contextmanager
def agent_of(given: Settings) -> Iterator[Any]:
    """The client of the running agent; what it cannot do ends the command with a sentence."""
    from agp_agent.agent_client import AgentClient  # noqa: PLC0415  the other commands start faster without

    try:
        client = AgentClient(given)
    except AgentError as error:
        fail(error)
    try:
        yield client
    except AgentError as error:
        fail(error)
    finally:
        client.close()


def ask(config: Path | None, online: Callable[[Any], Any], offline: Callable[[Views], Awaitable[Any]]) -> Any:
    """Ask the agent, or its journal where nobody answers; that is said on stderr."""
    from agp_agent.agent_client import AgentClient, NoAgent  # noqa: PLC0415  the other commands start faster without

    given = load(config)
    try:
        client = AgentClient(given)
        try:
            return online(client)
        except NoAgent as error:
            typer.echo(f"agp-agent: {error} This is what its journal says:", err=True)
        finally:
            client.close()
        views = views_of(given.state_dir / "journal.db", lambda: time.time_ns() // 10**6)
        return asyncio.run(_told(offline(views)))
    except AgentError as error:
        fail(error)


async def _told(question: Awaitable[Any]) -> Any:
    return await question
