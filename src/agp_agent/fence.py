"""The fence around a task's network: rules for the kernel, in its own network namespace, as nftables reads them. Pure.

Three things are told apart, in this order: what the catalog's ``allow`` names, what is not public, and the internet.
What is not public is refused at once, so that a playbook gets a clear error instead of a timeout.

The engine's host has public addresses too, which nobody may know from inside a container. They give themselves away:
what the host sends itself arrives with the full time to live, what it forwards with less. Such an answer is
dropped, and its sender refused from then on.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Final

from agp_agent.destinations import Destination
from agp_agent.engine import Bridge

NOT_PUBLIC: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' and tailnets' addresses
        "127.0.0.0/8",
        "168.63.129.16/32",  # the host agent of Azure's machines, public by its number alone
        "169.254.0.0/16",  # metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""Refused, unless ``allow`` names it."""

_TABLE: Final = "agp_fence"
_DNS_PORT: Final = 53
_FULL_TTLS: Final = "{ 64, 128, 255 }"
"""What systems begin with; a packet that was forwarded even once has less."""
_REJECT: Final = "reject with icmpx admin-prohibited"


@dataclass(frozen=True, slots=True)
class Fence:
    """What one container may reach."""

    bridge: Bridge
    uid: int
    """Of the task: the only one whose packets are fenced in and that is not the engine itself."""
    allow: tuple[Destination, ...] = ()
    deny: tuple[IPv4Network, ...] = ()
    """Public, and refused all the same unless ``allow`` names it: addresses of the host."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Lines for nftables. The last rule carries a mark, by which they are known again."""
        return (*self._rules(), f'meta nfproto ipv4 accept comment "{self._mark}"', "}", "}")

    def stands(self, listing: str) -> bool:
        """Whether the kernel's own listing is of these rules. It takes them all or none, so their mark is enough."""
        return f'comment "{self._mark}"' in listing and listing.count("policy drop;") == 2  # noqa: PLR2004  both chains

    def allows(self, address: IPv4Address, port: int) -> bool:
        """Whether ``allow`` names this."""
        is_neighbour = address in self.bridge.subnet and address != self.bridge.gateway
        return not is_neighbour and any(address in one.network and one.port in {None, port} for one in self.allow)

    @property
    def _mark(self) -> str:
        return "agp " + hashlib.sha256("\n".join(self._rules()).encode()).hexdigest()

    def _rules(self) -> Iterator[str]:
        yield f"table inet {_TABLE} {{"
        yield "set host { type ipv4_addr; flags dynamic; size 4096; }"
        yield "chain incoming {"
        yield "type filter hook input priority filter; policy drop;"
        yield 'iif "lo" accept'
        yield "ct mark 1 accept"  # answers to what was allowed by name
        yield f"meta l4proto != icmp ip ttl {_FULL_TTLS} add @host {{ ip saddr }}"
        yield f"meta l4proto != icmp ip ttl {_FULL_TTLS} drop"
        yield f"icmp type echo-reply ip ttl {_FULL_TTLS} drop"
        yield "ct state established,related accept"
        yield "}"
        yield "chain outgoing {"
        yield "type filter hook output priority filter; policy drop;"
        yield 'oif "lo" accept'
        yield f"ip hdrlength != 5 {_REJECT}"  # options may name a way past what the destination says
        # The engine's own resolver asks the host's name servers from inside this namespace, as another user.
        yield f"meta skuid != {self.uid} meta l4proto {{ tcp, udp }} th dport {_DNS_PORT} ct mark set 1 accept"
        # No `allow` opens the way to other containers on the bridge.
        yield f"ip daddr != {self.bridge.gateway} ip daddr {self.bridge.subnet} {_REJECT}"
        yield from (f"{_match(one)} ct mark set 1 accept" for one in self.allow)
        yield f"ip daddr {{ {_elements((*NOT_PUBLIC, *self.deny, self.bridge.subnet))} }} {_REJECT}"
        yield f"ip daddr @host {_REJECT}"
        yield f"meta nfproto ipv6 {_REJECT}"


def addresses_of_this_machine(fib_trie: str) -> tuple[IPv4Address, ...]:
    """The addresses of the network namespace whose ``/proc/net/fib_trie`` this is, without loopback."""
    found: list[IPv4Address] = []
    address = ""
    for line in fib_trie.splitlines():
        word = line.strip()
        if word.startswith("|-- "):
            address = word.removeprefix("|-- ")
        elif word == "/32 host LOCAL":
            found.append(IPv4Address(address))
    return tuple(dict.fromkeys(one for one in found if not one.is_loopback))


def _match(destination: Destination) -> str:
    port = "" if destination.port is None else f" meta l4proto {{ tcp, udp }} th dport {destination.port}"
    return f"ip daddr {destination.network}{port}"


def _elements(networks: Iterable[IPv4Network]) -> str:
    """The elements of a set, which must not overlap."""
    return ", ".join(str(network) for network in collapse_addresses(networks))
