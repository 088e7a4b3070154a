"""Who sent a request, as far as the agent knows: what the audit trail says of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The address a request came from, and what was found out about it.

    ``token`` is the fingerprint of the token it showed; ``node`` and ``tags`` are the tailnet's, where it was asked.
    """

    peer: str
    token: str | None = None
    node: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """As fields of an audit event; what is not known is None, and left out there."""
        tags = list(self.tags) or None
        return {"peer": self.peer, "token_fingerprint": self.token, "node": self.node, "tags": tags}
