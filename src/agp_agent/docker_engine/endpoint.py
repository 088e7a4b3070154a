"""Where the engine listens, and how to reach it: by the SDK, and by asyncio for attached streams."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from docker import APIClient
from docker.errors import DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env, parse_host

from agp_agent.docker_engine.transport import KEEP_ALIVE, Client
from agp_agent.errors import ConfigurationError

_UNIX = "http+unix://"
_READ_LIMIT_BYTES = 2**17
"""asyncio stops reading from the socket when twice as much waits for its reader."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address. ``url`` is ``http+unix:///path`` or ``http(s)://host:port``."""

    url: str
    tls: TLSConfig | None = None

    @classmethod
    def parse(cls, base_url: str | None, tls: TLSConfig | None = None) -> Self:
        """Read an address as Docker's own tools write it; None is the local socket.

        Raises:
            ConfigurationError: it is not one, or of a kind the agent cannot use (ssh, npipe).
        """
        problem = f"DOCKER_HOST is {base_url!r}, expected unix:///path/to/socket or tcp://host:port"
        try:
            url = str(parse_host(base_url, tls=tls is not None))
        except DockerException as error:
            raise ConfigurationError(problem) from error
        if not url.startswith((_UNIX, "http://", "https://")):
            raise ConfigurationError(problem)
        return cls(url, tls)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH as Docker's own tools read them.

        Raises:
            ConfigurationError: what they say cannot be used.
        """
        try:
            found = kwargs_from_env(dict(environ) or {"DOCKER_HOST": ""})
        except DockerException as error:
            raise ConfigurationError(
                f"DOCKER_CERT_PATH is {environ.get('DOCKER_CERT_PATH')!r}, expected a folder with ca.pem, cert.pem and "
                f"key.pem: {error}",
            ) from error
        return cls.parse(found.get("base_url"), found.get("tls"))

    def client(self, timeout_s: float) -> APIClient:
        """Make an SDK client; this asks the engine for its API version. Blocks."""
        return Client(
            base_url=self.url,
            version="auto",
            timeout=timeout_s,  # type: ignore[arg-type]  # requests takes fractions of a second
            tls=self.tls or False,
        )

    @property
    def socket(self) -> Path | None:
        """The engine's socket on this machine; None where it is reached over the network."""
        return Path("/" + self.url.removeprefix(_UNIX).lstrip("/")) if self.url.startswith(_UNIX) else None

    @property
    def is_replaced(self) -> bool:
        """Whether the socket here is a file that nobody has any more: it was mounted alone, and made anew since."""
        try:
            return self.socket is not None and self.socket.stat().st_nlink == 0
        except OSError:
            return False

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection for a stream. Raises OSError where that fails."""
        if (path := self.socket) is not None:
            return await asyncio.open_unix_connection(path, limit=_READ_LIMIT_BYTES)
        parts = urlsplit(self.url)
        context = self._ssl_context() if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=_READ_LIMIT_BYTES)
        for option in KEEP_ALIVE:
            writer.get_extra_info("socket").setsockopt(*option)
        return reader, writer

    def _ssl_context(self) -> ssl.SSLContext:
        """The same trust as the SDK's client."""
        tls = self.tls or TLSConfig(verify=True)
        context = ssl.create_default_context(cafile=tls.ca_cert if tls.verify else None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert:
            context.load_cert_chain(*tls.cert)
        return context

    def __str__(self) -> str:
        return self.url.replace("http+unix://", "unix://")
