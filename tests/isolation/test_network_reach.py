"""What a task with a network reaches, and what not, beside a container without a fence that reaches it all."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import docker
import pytest

from isolation.network_tries import (
    FENCE_IMAGE,
    FENCED,
    OPEN,
    REACHED,
    Plain,
    StartAgent,
    Target,
    address_of,
    gateway_of,
    runners,
    trying,
    verdicts,
)
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.elsewhere import HERE, METADATA, PRIVATE, PUBLIC, SHARED, Elsewhere, listening_here

pytest_plugins = ("isolation.network_world",)

NEIGHBOUR_PORT = 8099
HOST_PORT = 8090
LISTENING = f"nc -n -l -k 0.0.0.0 {NEIGHBOUR_PORT} & nc -n -z -w 1 127.0.0.1 {NEIGHBOUR_PORT} || sleep 0.5"
LISTEN = f"{LISTENING}\nnc -n -z 127.0.0.1 {NEIGHBOUR_PORT} && echo listening\nsleep 120\n"


@pytest.fixture(scope="module")
def agent(start_agent: StartAgent) -> AgentProcess:
    """An agent with a network runner that may reach nothing in particular; its API is on every address."""
    own_image = {"image": FENCE_IMAGE, "command": ["sh", "{playbook}"]}
    python = {"image": "agp/runner-python:0.2.0", "command": ["python3", "{playbook}"]}
    return start_agent(runners(net={}, nft=own_image, python=python), {"AGP_HOST": "0.0.0.0"})  # noqa: S104  the worst case is what is tested


@dataclass(frozen=True)
class Arms:
    """What the same try said in a task, and in a container without a fence."""

    task: dict[str, str]
    control: dict[str, str]


@pytest.fixture(scope="module")
def arms(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient, plain: Plain, elsewhere: Elsewhere
) -> Iterator[Arms]:
    """Try everything once in both arms."""
    del elsewhere
    agent.accept_task("neighbour", LISTEN, "listen.net")
    neighbour = agent.container_of("neighbour")
    agent.engine.wait_printed(neighbour, b"listening")
    plain_neighbour = plain.start(LISTEN)
    agent.engine.wait_printed(str(plain_neighbour.id), b"listening")
    with listening_here(HERE, HOST_PORT):
        both: dict[str, Target] = {
            "internet": (PUBLIC, OPEN),
            "metadata": (METADATA, OPEN),
            "private": (PRIVATE, OPEN),
            "mapped": (f"::ffff:{PRIVATE}", OPEN),
            "shared": (SHARED, OPEN),
            "host": (HERE, HOST_PORT),
            "api": (HERE, agent.port),
        }
        task = {
            "gateway": (gateway_of(client, neighbour), agent.port),
            "neighbour": (address_of(client, neighbour), NEIGHBOUR_PORT),
        }
        control = {
            "gateway": (gateway_of(client, str(plain_neighbour.id)), agent.port),
            "neighbour": (address_of(client, str(plain_neighbour.id)), NEIGHBOUR_PORT),
        }
        agent.accept_task("try", trying(both | task), "try.net")
        result = dashboard.result("try")
        assert result["error"] is None, result
        yield Arms(verdicts(result["output"]), verdicts(plain.run(trying(both | control))))
    agent.cancel("neighbour")
    dashboard.result("neighbour")


@pytest.mark.parametrize("name", ["metadata", "private", "mapped", "shared", "host", "api", "gateway", "neighbour"])
def test_what_is_not_public_cannot_be_reached(arms: Arms, name: str) -> None:
    """The task is told at once that there is no way; without the fence somebody answers."""
    assert (arms.task[name], arms.control[name]) == (FENCED, REACHED)


def test_the_internet_can(arms: Arms) -> None:
    """Behind the fence there still is a network."""
    assert (arms.task["internet"], arms.control["internet"]) == (REACHED, REACHED)


def test_datagrams_are_fenced_in_too(
    agent: AgentProcess, dashboard: DashboardStub, plain: Plain, elsewhere: Elsewhere
) -> None:
    """Nothing arrives at a private address, but at a public one; the control arm's does arrive."""
    word = secrets.token_hex(8)
    for address in (PRIVATE, PUBLIC):
        elsewhere.receive(address, 5353)
    script = "".join(f"echo {{0}}-{word} >/dev/udp/{address}/5353\n" for address in (PRIVATE, PUBLIC))
    agent.accept_task("datagrams", script.format("task"), "try.net")
    assert "Operation not permitted" in dashboard.result("datagrams")["output"]
    plain.run(script.format("control"))
    arrived = {(address, data.decode().strip()) for address, _, data in elsewhere.received if word.encode() in data}
    assert arrived == {(PUBLIC, f"task-{word}"), (PRIVATE, f"control-{word}"), (PUBLIC, f"control-{word}")}


UNDOING = """\
undo() { "$@" >/dev/null 2>&1 && echo "done: $*"; }
undo ip route add 10.213.7.1/32 dev eth0
undo ip route del default
undo ip address add 10.213.7.9/24 dev eth0
undo ip rule add from all lookup 1
undo ip netns add other
undo sysctl -w net.ipv4.ip_forward=1
undo unshare --net true
undo nft flush ruleset
undo ip link set eth0 down
ip -o link | cut -d: -f2
"""


OPTIONS = """\
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for options in (b"", b"\\1\\1\\1\\1", b"\\x83\\7\\4" + socket.inet_aton("{private}") + b"\\0"):
        try:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
            sender.sendto(b"{word}" + options.hex().encode(), ("{public}", 5354))
            print("sent", options.hex())
        except PermissionError:
            print("refused", options.hex())
"""


def test_nothing_leaves_with_a_route_of_its_own(
    agent: AgentProcess, dashboard: DashboardStub, plain: Plain, elsewhere: Elsewhere
) -> None:
    """IP options could lead past the destination that the fence sees: with them not even the internet is reached."""
    elsewhere.receive(PUBLIC, 5354)
    task, control = secrets.token_hex(8), secrets.token_hex(8)
    agent.accept_task("options", OPTIONS.format(word=task, private=PRIVATE, public=PUBLIC), "options.python")
    nops, route = "01010101", "830704" + "0ad50701" + "00"
    assert dashboard.result("options")["output"].splitlines() == ["sent ", f"refused {nops}", f"refused {route}"]
    script = OPTIONS.format(word=control, private=PRIVATE, public=PUBLIC)
    told = plain.run(script, image="agp/runner-python:0.2.0", entrypoint=("python3", "-c"))
    assert f"sent {nops}" in told
    arrived = {data.decode() for _, _, data in elsewhere.received}
    assert {task, control, control + nops} <= arrived
    assert not {one for one in arrived if one.startswith(task)} - {task}


def test_a_task_cannot_undo_it(agent: AgentProcess, dashboard: DashboardStub, plain: Plain) -> None:
    """No right to change links, routes, rules; where NET_ADMIN is given the same commands do something."""
    targets = {"private": (PRIVATE, OPEN)}
    agent.accept_task("undo", UNDOING + trying(targets), "undo.net")
    output = dashboard.result("undo")["output"]
    assert "done:" not in output, output
    assert verdicts(output)["private"] == FENCED
    control = plain.run(UNDOING, cap_add=["NET_ADMIN"], user="0:0")
    assert "done: ip route del default" in control
    assert "done: ip link set eth0 down" in control


def test_a_task_that_has_nft_cannot_undo_it(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Its image may have the very program that made the rules: they can be neither changed nor seen."""
    script = "for what in 'list ruleset' 'flush ruleset' 'delete table inet agp_fence'; do nft $what || echo no; done\n"
    agent.accept_task("nft", script + trying({"private": (PRIVATE, OPEN)}), "undo.nft")
    output = dashboard.result("nft")["output"]
    assert output.splitlines().count("no") == 3, output
    assert verdicts(output)["private"] == FENCED


def test_it_is_the_fence_that_holds_and_nothing_else(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient
) -> None:
    """The same task reaches it all once somebody with the right to it takes the rules away."""
    script = "echo ready\nuntil [ -e /work/go ]; do sleep 0.1; done\n"
    targets = {"private": (PRIVATE, OPEN), "metadata": (METADATA, OPEN), "shared": (SHARED, OPEN)}
    agent.accept_task("unfenced", trying(targets).replace("exit 0", script) + trying(targets), "unfenced.net")
    container = agent.container_of("unfenced")
    agent.engine.wait_printed(container, b"ready")
    client.containers.run(
        FENCE_IMAGE,
        ["flush", "ruleset"],
        entrypoint=["nft"],
        user="0:0",
        network_mode=f"container:{container}",
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN"],
        remove=True,
    )
    agent.engine.let_go(container)
    before, _, after = dashboard.result("unfenced")["output"].partition("ready\n")
    assert verdicts(before) == dict.fromkeys(targets, FENCED)
    assert verdicts(after) == dict.fromkeys(targets, REACHED)


def test_names_are_resolved(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """By the engine's own resolver inside the container, which knows the containers of this network."""
    agent.accept_task("named", "sleep 60\n", "named.net")
    name = agent.engine.inspect(agent.container_of("named"))["Name"].removeprefix("/")
    agent.accept_task("asks", f"cat /etc/resolv.conf; getent hosts {name}\n", "asks.net")
    output = dashboard.result("asks")["output"]
    assert "nameserver 127.0.0.11" in output
    assert f" {name}" in output
    agent.cancel("named")
    dashboard.result("named")


SIX = """\
ip -o link show dev eth0 | cut -d ' ' -f 2
ip -6 -o address show dev eth0 scope global
ip -6 route show default
"""


def test_there_is_no_ipv6(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient, plain: Plain
) -> None:
    """No address and no way out, although the device is there; where a network has IPv6, the same look finds both."""
    agent.accept_task("six", SIX, "six.net")
    assert re.fullmatch(r"eth0@if\d+:\n", dashboard.result("six")["output"])
    pool = docker.types.IPAMPool(subnet="fd00:a6b7:c8d9::/64", gateway="fd00:a6b7:c8d9::1")
    name, ipam = f"six-{secrets.token_hex(4)}", docker.types.IPAMConfig(pool_configs=[pool])
    network = client.networks.create(name, driver="bridge", enable_ipv6=True, ipam=ipam)
    try:
        seen = plain.run(SIX, network=name)
    finally:
        for container in client.containers.list(all=True, filters={"network": name}):
            network.disconnect(container, force=True)
        network.remove()
    assert "inet6 fd00:a6b7:c8d9::2/64" in seen
    assert "default via fd00:a6b7:c8d9::1" in seen
