"""The sockets that the agent listens on, and what is checked of them before anything is started."""

import errno
import ipaddress
import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Final

from agp_agent.errors import ConfigurationError
from agp_agent.private_files import check_private

_BACKLOG: Final = 2048
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  the only spellings that are taken for meant
_NOT_THERE: Final = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL})


class NotThereYet(ConfigurationError):
    """There is no such device on this machine now, or it has not that address; both may come."""


def check_tls(cert_file: Path | None, key_file: Path | None) -> None:
    """Find out whether these files can be used. Raises ``ConfigurationError`` where they cannot."""
    if cert_file is None or key_file is None:
        return
    try:
        check_private(key_file)
    except OSError as error:
        raise ConfigurationError(f"AGP_TLS_KEY_FILE: {key_file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigurationError(f"AGP_TLS_KEY_FILE: {key_file} {error}.") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error)
        raise ConfigurationError(
            f"AGP_TLS_CERT_FILE, AGP_TLS_KEY_FILE: {cert_file} and {key_file} cannot be used: {why}; "
            "expected a certificate chain and its private key, both PEM."
        ) from None


def check_address(host: str) -> None:
    """Find out whether this can be listened on, as far as that shows without doing it. See ``listen``."""
    _find(host, 0)


def _find(host: str, port: int) -> Any:
    try:
        found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigurationError(f"AGP_HOST: {host} is not an address of this machine: {error.strerror}.") from None
    if ipaddress.ip_address(found[4][0].partition("%")[0]).is_unspecified and host not in _WILDCARDS:
        raise ConfigurationError(
            f"AGP_HOST: {host!r} would listen on every address of this machine; expected one address, or 0.0.0.0 or :: "
            "where that is meant."
        )
    return found


def listen(host: str, port: int, interface: str | None) -> socket.socket:
    """Open the listening socket.

    ``interface``: bound to this device too. An address alone is not enough to keep others out: Linux answers for it on
    every device.

    Raises:
        ConfigurationError: the address, the port or the device cannot be used.
    """
    family, kind, protocol, _, address = _find(host, port)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + struct.pack("x"))
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{host} port {port}" + (f" on {interface}" if interface else "")
        kind_of_error = NotThereYet if error.errno in _NOT_THERE else ConfigurationError
        raise kind_of_error(f"AGP_HOST, AGP_PORT: cannot listen on {where}: {error.strerror}.") from None
    return listener


def is_there(host: str) -> bool:
    """Whether this is an address of this machine now."""
    family, kind, protocol, _, address = _find(host, 0)
    with socket.socket(family, kind, protocol) as tried:
        try:
            tried.bind(address)
        except OSError as error:
            return error.errno not in _NOT_THERE
    return True
