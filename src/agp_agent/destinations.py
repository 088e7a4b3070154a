"""Where a runner with a network may go beside the public internet: ``10.20.0.0/16:22``. Pure."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

EXPECTED: Final = "a destination such as 10.20.0.0/16:22 or 192.168.1.7"

_FORM: Final = re.compile(r"(?P<address>[0-9.]+)(?P<prefix>/\d{1,2})?(?::(?P<port>\d{1,5}))?")
_IPV6: Final = re.compile(r"\[?[0-9a-fA-F:.]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*\]?(/\d+)?(:\d+)?")
_LAST_PORT: Final = 65535
_WIDEST: Final = 8
"""The shortest prefix: that of 10.0.0.0/8. A few shorter ones together are everything."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An address or a network, on one TCP or UDP port or, with None, on all of them."""

    network: IPv4Network
    port: int | None = None

    def __str__(self) -> str:
        """As it stands in a catalog."""
        whole = self.network.prefixlen == self.network.max_prefixlen
        where = self.network.network_address if whole else self.network
        return f"{where}" if self.port is None else f"{where}:{self.port}"


def parse(text: str) -> Destination:
    """Read one destination.

    Raises:
        ValueError: with what was expected.
    """
    if _IPV6.fullmatch(text):
        raise ValueError(f"{EXPECTED}: runners have no IPv6, so {text} would reach nothing")
    if (match := _FORM.fullmatch(text)) is None:
        raise ValueError(EXPECTED)
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= _LAST_PORT:
        raise ValueError(f"a port from 1 to {_LAST_PORT}, and {text} has {port}")
    return Destination(_network(text, f"{match['address']}{match['prefix'] or ''}"), port)


def _network(text: str, written: str) -> IPv4Network:
    try:
        loose = IPv4Network(written, strict=False)
    except ValueError:
        raise ValueError(f"{EXPECTED}, and {text} is no address") from None
    if loose.prefixlen < _WIDEST:
        raise ValueError(f"a network of /{_WIDEST} or smaller, and {text} is wider: it would switch the fence off")
    if loose.network_address != IPv4Address(written.partition("/")[0]):
        raise ValueError(f"{loose}, or the address alone: {text} is an address inside a network")
    return loose
