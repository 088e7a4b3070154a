"""Asks the tailscaled of this machine who a peer is. Comes on top of the bearer token, never instead of it."""

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

T = TypeVar("T")

_LOCAL_API: Final = "http://local-tailscaled.sock"
"""tailscaled answers to this name only."""
_DEADLINE_S: Final = 2.0
_LOOK_S: Final = 5.0
_UP: Final = "Running"
_DOWN: Final = {
    "NeedsLogin": "this machine is logged out of the tailnet, or its key has expired; log it in with `tailscale up`",
    "NeedsMachineAuth": "this machine waits for the tailnet's administrator to let it in",
    "Stopped": "tailscaled is stopped; `tailscale up` starts it",
}
_ANSWER_MAX_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the tailnet. ``name`` is the full one, without its last dot; the control server gives it."""

    name: str
    stable_id: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Whois:
    """Who a peer is. ``refused`` says why it may not come in; None: it may."""

    node: Node | None
    refused: str | None


class Tailnet:
    """Lets only nodes in that are allowed by tag, full name or stable id. Whatever goes wrong keeps the peer out."""

    def __init__(
        self, socket: Path, allowed: Collection[str], on_news: Callable[[str | None], object] = lambda _problem: None
    ) -> None:
        """``socket`` is tailscaled's; it need not be there yet.

        ``on_news`` is told at each question why tailscaled could not be asked, or None where it could.
        """
        self._socket = socket
        self._on_news = on_news
        self._down: str | None = None
        self._allowed = frozenset(one.lower() for one in allowed)
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url=_LOCAL_API,
            timeout=_DEADLINE_S,
            trust_env=False,
            follow_redirects=False,
        )

    async def whois(self, host: str, port: int) -> Whois:
        """Who is at the other end of a connection. Never raises.

        ``port`` counts too: behind a userspace tailscaled all peers come from this machine.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        problem, node = await self._asked(self._node_at(address))
        self._on_news(problem or self._down)
        if node is None:
            return Whois(None, problem or "it is no node of the tailnet")
        return Whois(node, None if self._is_allowed(node) else "its node is not among AGP_TAILSCALE_ALLOW")

    async def run(self) -> None:
        """Look every few seconds whether this machine is in the tailnet, and tell it, until this is cancelled."""
        while True:
            problem, state = await self._asked(self._state())
            is_out = problem is None and state != _UP
            self._down = _DOWN.get(str(state), f"tailscaled is not up: {state}") if is_out else None
            self._on_news(problem or self._down)
            await asyncio.sleep(_LOOK_S)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._client.aclose()

    async def _asked(self, question: Coroutine[Any, Any, T]) -> tuple[str | None, T | None]:
        """Why it could not be asked, or what it answered."""
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return None, await question
        except TimeoutError:
            return f"tailscaled did not answer within {_DEADLINE_S:g} s", None
        except httpx.HTTPError as error:
            return f"tailscaled cannot be asked at {self._socket}: {type(error).__name__}: {error}", None
        except (ValueError, KeyError, TypeError, RecursionError):
            return "tailscaled gave an answer that cannot be read", None

    async def _node_at(self, address: str) -> Node | None:
        """The node at an address, or None where there is none."""
        document = await self._get("/localapi/v0/whois", {"addr": address, "proto": "tcp"})
        return None if document is None else _node_of(document)

    async def _state(self) -> str:
        document = await self._get("/localapi/v0/status", {"peers": "false"})
        return str(document["BackendState"])

    async def _get(self, path: str, asked: dict[str, str]) -> Any:
        """What it answers, as JSON; None is 404."""
        async with self._client.stream("GET", path, params=asked) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                return None
            if response.status_code != httpx.codes.OK:
                raise httpx.HTTPError(f"it answered {response.status_code}")
            body = b""
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _ANSWER_MAX_BYTES:
                    raise ValueError("too long")
        return json.loads(body)

    def _is_allowed(self, node: Node) -> bool:
        return not self._allowed.isdisjoint(one.lower() for one in (node.name, node.stable_id, *node.tags))


def _node_of(document: Any) -> Node:
    node = document["Node"]
    name, stable_id, tags = node["Name"], node["StableID"], node.get("Tags") or []
    if not all(isinstance(text, str) and text for text in (name, stable_id, *tags)):
        raise TypeError("no names")
    return Node(name.rstrip("."), stable_id, tuple(tags))
