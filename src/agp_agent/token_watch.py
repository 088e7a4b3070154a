"""The loop that notices rotated tokens also while nobody calls, and files of tokens that cannot be used."""

import asyncio
import contextlib
from typing import Final

import structlog

from agp_agent.audit import Audit, AuditEvent
from agp_agent.errors import ConfigurationError
from agp_agent.readiness import Readiness
from agp_agent.tokens import Tokens, TokenSource, fingerprint

log = structlog.get_logger(__name__)

_LOOK_S: Final = 1.0


class TokenWatch:
    """Audits every change of the valid tokens, and says loudly where a changed file is not used."""

    def __init__(self, tokens: Tokens, audit: Audit, readiness: Readiness) -> None:
        """What is valid now is where it begins."""
        self._audit = audit
        self._readiness = readiness
        self._sources = {"AGP_TOKEN": tokens.inbound, "AGP_DASHBOARD_TOKEN": tokens.outbound}
        self._seen = {name: source.held for name, source in self._sources.items()}

    async def run(self) -> None:
        """Look every second."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Look once."""
        for name, source in self._sources.items():
            with contextlib.suppress(ConfigurationError):  # its problem says so
                source.current()
            self._note_rotation(name, source)
            if self._readiness.warn(f"{name}_FILE", source.problem) and source.problem:
                log.error("token file not used: the tokens read before it stay valid", why=source.problem)

    def _note_rotation(self, name: str, source: TokenSource) -> None:
        before, now = self._seen[name], source.held
        if set(before) == set(now):
            return
        self._seen[name] = now
        self._audit.record(
            AuditEvent.TOKEN_ROTATED,
            setting=name,
            added=[fingerprint(token) for token in now if token not in before],
            removed=[fingerprint(token) for token in before if token not in now],
            token_fingerprints=[fingerprint(token) for token in now],
        )
