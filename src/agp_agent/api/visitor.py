"""What the agent knows of the other end of one connection. Made by the connection, filled by it and the guard."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agp_agent.tailnet import Whois

VISITOR: Final = "agp.visitor"
"""Where it stands in the scope of each request."""
CALLER: Final = "agp.caller"
"""Where the guard leaves the ``Caller`` of a request that it let through."""


@dataclass(slots=True)
class Visitor:
    """``trusted``: the last request that came over this connection had everything right."""

    hang_up: Callable[[], object] = lambda: None
    """Closes the connection without a word."""
    is_local: bool = False
    """It came by the socket in the state directory: from this machine, by the agent's own user or root."""
    trusted: bool = False
    whois: Whois | None = None
    """Who it is on the tailnet; of this connection only, for a port is soon another's."""
    asked_s: float = 0.0
    """When that was found out, by the guard's clock."""
