"""Asks the agent of this machine whether it is alive, or ready: the health check of its own container and pod."""

import http.client
import socket
import ssl
from typing import Final

from agp_agent.local_socket import SOCKET_NAME, short_path
from agp_agent.settings import Settings

_TIMEOUT_S: Final = 5.0


def problem(settings: Settings, *, ready: bool = False) -> str | None:
    """Why the agent is not alive, or (``ready``) would not start a task now; None where it is well."""
    host = settings.local_host
    where = str(settings.state_dir / SOCKET_NAME) if settings.is_asked_by_socket else f"{host} port {settings.port}"
    try:
        status = _get(host, settings, "/readyz" if ready else "/healthz")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {where}: {error}"
    return None if status == http.client.OK else f"{where} answered {status}"


def _get(host: str, settings: Settings, path: str) -> int:
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_S)
    connection.sock = _connected(host, settings)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _connected(host: str, settings: Settings) -> socket.socket:
    if settings.is_asked_by_socket:
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(_TIMEOUT_S)
        with short_path(settings.state_dir) as path:
            plain.connect(path)
    else:
        plain = socket.create_connection((host, settings.port), _TIMEOUT_S)
    if settings.tls_cert_file is None:
        return plain
    # Alive or not is the question here, not who it is: the certificate names the tailnet's name, not this address.
    context = ssl._create_unverified_context()  # noqa: S323, SLF001
    return context.wrap_socket(plain)
