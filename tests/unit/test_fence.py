"""The fence: which rules come of a runner's allow, in which order, and how they are known again."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agp_agent import destinations
from agp_agent.engine import Bridge
from agp_agent.fence import NOT_PUBLIC, Fence, addresses_of_this_machine

BRIDGE = Bridge("agp-0", IPv4Network("172.30.0.0/24"), IPv4Address("172.30.0.1"))
FENCE = Fence(BRIDGE, 20007)

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 172.18.0.0/16 2 0 2
           |-- 172.18.0.0
              /16 link UNICAST
           |-- 172.18.0.2
              /32 host LOCAL
        |-- 172.18.255.255
           /32 link BROADCAST
     |-- 203.0.113.7
        /32 host LOCAL
Local:
           |-- 127.0.0.1
              /32 host LOCAL
           |-- 172.18.0.2
              /32 host LOCAL
"""


def fence(*allow: str) -> Fence:
    """A fence with these destinations."""
    return replace(FENCE, allow=tuple(destinations.parse(one) for one in allow))


def listing(made: Fence) -> str:
    """What the kernel shows of rules that are in force, as far as it matters here."""
    return "\n".join(made.rules)


class TestRules:
    """The lines for nftables."""

    def test_everything_is_dropped_that_no_rule_lets_through(self) -> None:
        """In both directions: nobody connects to a task either."""
        assert [rule for rule in FENCE.rules if "policy" in rule] == [
            "type filter hook input priority filter; policy drop;",
            "type filter hook output priority filter; policy drop;",
        ]

    def test_what_is_allowed_stands_before_what_is_refused(self) -> None:
        """And neighbours before both: no allow opens the way to them."""
        rules = fence("10.20.0.0/16:22", "192.168.1.7").rules
        neighbours = rules.index("ip daddr != 172.30.0.1 ip daddr 172.30.0.0/24 reject with icmpx admin-prohibited")
        port = rules.index("ip daddr 10.20.0.0/16 meta l4proto { tcp, udp } th dport 22 ct mark set 1 accept")
        address = rules.index("ip daddr 192.168.1.7/32 ct mark set 1 accept")
        (private,) = (number for number, rule in enumerate(rules) if "10.0.0.0/8" in rule)
        assert neighbours < port < address < private
        assert rules[private].endswith("reject with icmpx admin-prohibited")

    @pytest.mark.parametrize("network", NOT_PUBLIC)
    def test_what_is_not_public_is_refused(self, network: IPv4Network) -> None:
        """Each of them, however networks are put together."""
        (rule,) = (rule for rule in FENCE.rules if "169.254.0.0/16" in rule)
        refused = [IPv4Network(one) for one in rule.partition("{ ")[2].partition(" }")[0].split(", ")]
        assert any(network.subnet_of(one) for one in refused)

    def test_the_lists_that_isolation_asks_for_are_in_it(self) -> None:
        """Metadata, Azure's host agent, carriers and tailnets, RFC 1918."""
        named = (
            "169.254.0.0/16", "168.63.129.16", "100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"
        )  # fmt: skip
        assert set(map(IPv4Network, named)) <= set(NOT_PUBLIC)

    def test_addresses_of_the_host_are_refused_once(self) -> None:
        """They may lie in what is refused anyway: nftables takes no elements that overlap."""
        deny = (IPv4Network("203.0.113.7"), IPv4Network("10.1.1.1"), IPv4Network("203.0.113.7"))
        (rule,) = (rule for rule in replace(FENCE, deny=deny).rules if "203.0.113.7" in rule)
        assert rule.count("203.0.113.7/32") == 1
        assert "10.1.1.1" not in rule

    def test_the_bridge_is_refused_whatever_its_addresses(self) -> None:
        """An engine may give it a public subnet: its gateway is the host."""
        bridge = Bridge("agp-0", IPv4Network("198.51.100.0/24"), IPv4Address("198.51.100.1"))
        (rule,) = (rule for rule in replace(FENCE, bridge=bridge).rules if "169.254.0.0/16" in rule)
        assert "198.51.100.0/24" in rule

    def test_nothing_leaves_with_a_route_of_its_own(self) -> None:
        """Whatever is allowed: IP options (loose source routing) could lead on to what is not."""
        rules = fence("10.1.1.1").rules
        assert rules.index("ip hdrlength != 5 reject with icmpx admin-prohibited") < rules.index(
            "ip daddr 10.1.1.1/32 ct mark set 1 accept"
        )

    def test_there_is_no_way_by_ipv6(self) -> None:
        """The bridge has none."""
        assert "meta nfproto ipv6 reject with icmpx admin-prohibited" in FENCE.rules

    def test_name_servers_are_open_to_the_engine_alone(self) -> None:
        """It asks them from inside the container's network, as another user than the task."""
        (rule,) = (rule for rule in FENCE.rules if "dport 53" in rule)
        assert rule.startswith("meta skuid != 20007 ")

    def test_what_the_host_answers_itself_is_dropped(self) -> None:
        """Its address is kept; the drop is a rule of its own, so that a full set changes nothing."""
        rules = FENCE.rules
        kept = rules.index("meta l4proto != icmp ip ttl { 64, 128, 255 } add @host { ip saddr }")
        assert rules[kept + 1] == "meta l4proto != icmp ip ttl { 64, 128, 255 } drop"
        assert rules.index("ct mark 1 accept") < kept < rules.index("ct state established,related accept")


class TestStands:
    """Whether the kernel's listing is of these rules."""

    def test_it_knows_its_own_rules(self) -> None:
        """All of them."""
        assert FENCE.stands(listing(FENCE))

    @pytest.mark.parametrize("other", [fence("10.1.1.1"), replace(FENCE, uid=20008)])
    def test_it_knows_others_for_others(self, other: Fence) -> None:
        """Rules for another runner or another user are not its own."""
        assert not FENCE.stands(listing(other))

    @pytest.mark.parametrize(
        "shown", ["", "table inet agp_fence {\n}", listing(FENCE).replace("policy drop", "policy accept")]
    )
    def test_nothing_or_less_is_no_fence(self, shown: str) -> None:
        """A mark alone is not enough."""
        assert not FENCE.stands(shown)


class TestAllows:
    """What the canary need not try."""

    @pytest.mark.parametrize(
        ("allow", "address", "port", "allowed"),
        [
            ("10.20.0.0/16:22", "10.20.3.4", 22, True),
            ("10.20.0.0/16:22", "10.20.3.4", 23, False),
            ("10.20.0.0/16:22", "10.21.3.4", 22, False),
            ("10.20.0.0/16", "10.20.3.4", 23, True),
            ("172.30.0.1:8470", "172.30.0.1", 8470, True),
            ("172.16.0.0/12", "172.30.0.1", 8470, True),
            ("172.16.0.0/12", "172.30.0.2", 8470, False),
        ],
    )
    def test_what_is_named_and_nothing_else(self, allow: str, address: str, port: int, *, allowed: bool) -> None:
        """Gateways as any other address, neighbours never."""
        assert fence(allow).allows(IPv4Address(address), port) is allowed


def test_the_machine_s_own_addresses_are_read_without_loopback() -> None:
    """Each once, public ones too."""
    assert addresses_of_this_machine(FIB_TRIE) == (IPv4Address("172.18.0.2"), IPv4Address("203.0.113.7"))
