"""What the page's calls become where an agent answers otherwise than hoped."""

import json

import httpx
import pytest
import respx

from agp_agent.dev_dashboard.calling import Calling
from agp_agent.dev_dashboard.desk import Agent

AGENT = Agent(1, "web1", "http://agent", "token-of-the-agent")


async def followed(answer: httpx.Response) -> bytes:
    """All events of an output, where the agent answers so."""
    with respx.mock:
        respx.get("http://agent/tasks/t/logs").mock(return_value=answer)
        return b"".join([chunk async for chunk in Calling().events(AGENT, "/tasks/t/logs", "0")])


async def test_what_the_agent_shows_is_passed_on() -> None:
    """Byte for byte."""
    assert await followed(httpx.Response(200, content=b"event: output\n\n")) == b"event: output\n\n"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, b'{"detail": "There is no task with this id."}', "404: There is no task with this id."),
        (401, b"<html>", "401: <html>"),
    ],
)
async def test_what_the_agent_refuses_is_told_once(status: int, body: bytes, told: str) -> None:
    """The browser would ask for ever, and say that nobody answers."""
    event, _, data = (await followed(httpx.Response(status, content=body))).decode().strip().partition("\ndata: ")
    assert (event, json.loads(data)) == ("event: refused", {"said": told})


async def test_an_agent_that_stops_is_asked_again() -> None:
    """Nothing is told: the browser comes back by itself."""
    assert await followed(httpx.Response(503)) == b""


async def test_a_token_that_no_header_can_hold_is_no_crash() -> None:
    """A file of an earlier release may have one."""
    call = await Calling().call(Agent(1, "web1", "http://agent", "••••"), "POST", "/heartbeat")
    assert (call.status, call.answer.startswith("No answer: ")) == (None, True)
