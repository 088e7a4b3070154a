"""Where a runner may go beside the public internet."""

import re
from ipaddress import IPv4Network

import pytest

from agp_agent.destinations import Destination, parse


@pytest.mark.parametrize(
    ("text", "network", "port"),
    [
        ("10.20.0.0/16:22", "10.20.0.0/16", 22),
        ("10.20.0.0/16", "10.20.0.0/16", None),
        ("10.0.0.0/8", "10.0.0.0/8", None),
        ("192.168.1.7", "192.168.1.7/32", None),
        ("192.168.1.7:443", "192.168.1.7/32", 443),
        ("192.168.1.7/32:443", "192.168.1.7/32", 443),
    ],
)
def test_addresses_and_networks_with_and_without_a_port(text: str, network: str, port: int | None) -> None:
    """As they are written in a catalog, and written again."""
    assert parse(text) == Destination(IPv4Network(network), port)
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com:22", "a destination such as 10.20.0.0/16:22"),
        ("", "a destination such as"),
        ("10.0.0.1:ssh", "a destination such as"),
        ("10.0.0.1:", "a destination such as"),
        ("10.0.0.0/33", "10.0.0.0/33 is no address"),
        ("10.0.0.256", "10.0.0.256 is no address"),
        ("10.0.0.1:0", "a port from 1 to 65535, and 10.0.0.1:0 has 0"),
        ("10.0.0.1:65536", "a port from 1 to 65535"),
        ("0.0.0.0/0", "0.0.0.0/0 is wider: it would switch the fence off"),
        ("0.0.0.0/1", "a network of /8 or smaller, and 0.0.0.0/1 is wider"),
        ("128.0.0.0/1:22", "a network of /8 or smaller, and 128.0.0.0/1:22 is wider"),
        ("10.0.0.0/7", "a network of /8 or smaller, and 10.0.0.0/7 is wider"),
        ("fd00::/8", "runners have no IPv6, so fd00::/8 would reach nothing"),
        ("[fd00::]/8:443", "runners have no IPv6, so [fd00::]/8:443 would reach nothing"),
        ("::1", "runners have no IPv6"),
        ("::ffff:10.0.0.1", "runners have no IPv6"),
        ("10.20.0.1/16:22", "10.20.0.0/16, or the address alone: 10.20.0.1/16:22 is an address inside a network"),
    ],
)
def test_what_is_none_says_what_was_expected(text: str, expected: str) -> None:
    """A name is none: who answers for it may change."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse(text)
