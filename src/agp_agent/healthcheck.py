"""Asks the agent of this machine whether it is alive: the health check of its own container."""

import http.client
import ssl
from typing import Final

from agp_agent.settings import Settings

_TIMEOUT_S: Final = 5.0
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  a wildcard is asked on loopback


def problem(settings: Settings) -> str | None:
    """Why the agent is not alive, or None where it is."""
    host = _LOOPBACK.get(settings.host, settings.host)
    try:
        status = _get(host, settings.port, tls=settings.tls_cert_file is not None)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host} port {settings.port}: {error}"
    return None if status == http.client.OK else f"{host} port {settings.port} answered {status}"


def _get(host: str, port: int, *, tls: bool) -> int:
    connection: http.client.HTTPConnection
    if tls:
        # Alive or not is the question here, not who it is: the certificate names the tailnet's name, not this address.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()
