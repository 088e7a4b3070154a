"""Calls agents, as the enterprise's dashboard does: the contract, and the agent's own endpoints that people look at."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import httpx
from fastapi.sse import format_sse_event

from agp_agent.dev_dashboard.desk import Agent, Call

_TIMEOUT_S: Final = 15.0
_SILENCE_S: Final = 45.0
"""A followed output has a comment every 15 s."""
_BEAT_S: Final = 3.0
"""A light is this old at most, while somebody looks."""
_BEAT_TIMEOUT_S: Final = 2.0
_OK, _UNAUTHORIZED = 200, 401


class Calling:
    """The way to all agents, over one pool of connections. Belongs to the event loop that it is first used on."""

    def __init__(self) -> None:
        """Nothing is sent yet."""
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_TIMEOUT_S)
        self._beats: dict[int, tuple[float, Call]] = {}

    async def call(self, agent: Agent, method: str, path: str, body: str = "", timeout_s: float = _TIMEOUT_S) -> Call:
        """Send a request; never raises for anything that the agent or the network does."""
        headers = {"Authorization": f"Bearer {agent.token}"}
        if body:
            headers["Content-Type"] = "application/json"
        url = agent.url + path
        try:
            answer = await self._client.request(method, url, headers=headers, content=body.encode(), timeout=timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: a token that no header can hold
            return Call(method, url, headers, body, None, f"No answer: {str(error) or type(error).__name__}")
        return Call(method, url, headers, body, answer.status_code, answer.text, dict(answer.headers))

    async def events(self, agent: Agent, path: str, position: str) -> AsyncIterator[bytes]:
        """The events of an output from ``position`` on, as they come; none any more where the agent goes away.

        Where it refuses, there is one of this dashboard's own instead: ``refused``, with what it said.
        """
        headers = {"Authorization": f"Bearer {agent.token}", "Last-Event-ID": position}
        url = f"{agent.url}{path}?follow=true"
        with suppress(httpx.HTTPError, httpx.InvalidURL, ValueError):  # the browser asks again by itself
            async with self._client.stream("GET", url, headers=headers, timeout=_SILENCE_S) as answer:
                if answer.is_client_error:
                    await answer.aread()
                    yield format_sse_event(
                        event="refused", data_str=json.dumps({"said": said(answer.status_code, answer.text)})
                    )
                    return
                if answer.is_success:
                    async for chunk in answer.aiter_raw():
                        yield chunk

    async def heartbeats(self, agents: list[Agent]) -> dict[int, Call]:
        """How each agent answers its heartbeat now."""
        await asyncio.gather(*(self._beat(agent) for agent in agents))
        return {agent.id: self._beats[agent.id][1] for agent in agents}

    async def _beat(self, agent: Agent) -> None:
        if agent.id in self._beats and time.monotonic() - self._beats[agent.id][0] < _BEAT_S:
            return
        call = await self.call(agent, "POST", "/heartbeat", timeout_s=_BEAT_TIMEOUT_S)
        self._beats[agent.id] = (time.monotonic(), call)


def light(heartbeat: Call) -> str:
    """What it means: ``ok``, ``wrong token``, ``down``, or the status that came."""
    words = {_OK: "ok", _UNAUTHORIZED: "wrong token", None: "down"}
    return words.get(heartbeat.status, f"answers {heartbeat.status}")


def said(status: int | None, answer: str) -> str:
    """Why the agent did not do it, in its own words where it has some."""
    if status is None:
        return answer
    try:
        detail = json.loads(answer)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer[:200]
    return f"{status}: {detail}"
