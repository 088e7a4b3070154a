"""Where a runner with a network may go beside the public internet: ``10.20.0.0/16:22``, ``[fd00::]/8:443``. Pure."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

EXPECTED: Final = "a destination such as 10.20.0.0/16:22, 192.168.1.7, fd00::/8 or [fd00::]/8:443"

_FORMS: Final = (
    re.compile(r"(?P<address>[0-9.]+)(?P<prefix>/\d{1,2})?(?::(?P<port>\d{1,5}))?"),
    re.compile(r"\[(?P<address>[0-9a-fA-F:.]+)\](?P<prefix>/\d{1,3})?(?::(?P<port>\d{1,5}))?"),
    re.compile(r"(?P<address>[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(?P<prefix>/\d{1,3})?(?P<port>)"),
)
_LAST_PORT: Final = 65535
_WIDEST: Final = 8
"""The shortest prefix: that of 10.0.0.0/8 and fd00::/8. A few shorter ones together are everything."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An address or a network, on one TCP or UDP port or, with None, on all of them."""

    network: IPv4Network | IPv6Network
    port: int | None = None

    def __str__(self) -> str:
        """As it stands in a catalog."""
        address, whole = self.network.network_address, self.network.prefixlen == self.network.max_prefixlen
        prefix = "" if whole else f"/{self.network.prefixlen}"
        if self.port is None:
            return f"{address}{prefix}"
        return f"{f'[{address}]' if self.network.version == 6 else address}{prefix}:{self.port}"  # noqa: PLR2004  IPv6


def parse(text: str) -> Destination:
    """Read one destination.

    Raises:
        ValueError: with what was expected.
    """
    match = next((found for form in _FORMS if (found := form.fullmatch(text))), None)
    if match is None:
        raise ValueError(EXPECTED)
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= _LAST_PORT:
        raise ValueError(f"a port from 1 to {_LAST_PORT}, and {text} has {port}")
    return Destination(_network(text, f"{match['address']}{match['prefix'] or ''}"), port)


def _network(text: str, written: str) -> IPv4Network | IPv6Network:
    try:
        loose = ip_network(written, strict=False)
    except ValueError:
        raise ValueError(f"{EXPECTED}, and {text} is no address") from None
    if loose.prefixlen < _WIDEST:
        raise ValueError(f"a network of /{_WIDEST} or smaller, and {text} is wider: it would switch the fence off")
    if loose.network_address != ip_address(written.partition("/")[0]):
        raise ValueError(f"{loose}, or the address alone: {text} is an address inside a network")
    return loose
