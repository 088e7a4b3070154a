"""The fence itself on the real engine: what the host does not tell, name servers, and everything that can go wrong."""

import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from agp_agent import planner
from agp_agent.docker_engine import DockerEngine
from agp_agent.engine import Attachment
from agp_agent.errors import ContainerMissing, NotFenced
from agp_agent.executor import release_lines
from agp_agent.fencing import Fencing
from agp_agent.planner import Limits, RunSpec
from contract.rig import everything
from isolation.network_tries import FENCE_IMAGE, FENCED, OPEN, REACHED, catalog_of, trying, verdicts
from support.elsewhere import HERE, PRIVATE, Elsewhere, listening_here

pytest_plugins = ("isolation.network_world",)

HOST_PORT = 8092
UID = 20100


@pytest.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    """The engine as the product sees it."""
    adapter = DockerEngine.from_environment(os.environ)
    await adapter.open()
    yield adapter
    await adapter.aclose()


class Box:
    """One container of a network runner, made step by step."""

    def __init__(self, engine: DockerEngine, fencing: Fencing, spec: RunSpec) -> None:
        """Nothing is made yet."""
        self.engine = engine
        self.fencing = fencing
        self.spec = spec
        self.container_id = ""
        self._attachment: Attachment | None = None

    async def start(self, script: str, dns: tuple[str, ...] = ()) -> str:
        """Make and start it; its entry waits, and there is no fence."""
        name = f"agp-fencing-{secrets.token_hex(6)}"
        bridge = await self.fencing.bridge()
        container = replace(
            self.spec.container, name=name, uid=UID, command=("bash", "-c", script), network=bridge.name, dns=dns
        )
        self.container_id = await self.engine.create(container)
        self._attachment = await self.engine.attach(self.container_id)
        await self.engine.start(self.container_id)
        return self.container_id

    async def release(self) -> str:
        """Let it go, and read what it prints."""
        assert self._attachment is not None
        await self._attachment.send(release_lines(secrets.token_hex(16), {}))
        output, _ = await everything(self._attachment)
        return output.decode()

    async def aclose(self) -> None:
        """Remove it, and its network."""
        if self._attachment is not None:
            await self._attachment.aclose()
        for container in await self.engine.owned(self.spec.container.labels):
            await self.engine.remove(container.container_id)
        await self.fencing.aclose()


MakeBox = Callable[..., Box]


@pytest.fixture
async def box(engine: DockerEngine, tmp_path: Path) -> AsyncIterator[MakeBox]:
    """Makes boxes, by agents that know no address of this machine: as if each ran in a container of its own."""
    (tmp_path / "fib_trie").write_text("Main:\n")
    made: list[Box] = []

    def make(image: str = FENCE_IMAGE, allow: tuple[str, ...] = ()) -> Box:
        labels = {"agp.agent_id": "fencing", "agp.instance": secrets.token_hex(6)}
        runner = catalog_of(net={"allow": list(allow)}).runners["net"]
        spec = planner.plan(runner, Limits(60, 10, 2**20), labels)
        made.append(Box(engine, Fencing(engine, labels, image=image, fib_trie=tmp_path / "fib_trie"), spec))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


async def test_the_host_s_public_address_gives_itself_away(box: MakeBox, elsewhere: Elsewhere) -> None:
    """Nobody told the fence of it. No connection comes about, and after a first attempt it is refused at once."""
    del elsewhere  # its wire gives the host that address
    twice = trying({"first": (HERE, HOST_PORT)}).replace("exit 0", "") + trying({"second": (HERE, HOST_PORT)})
    with listening_here(HERE, HOST_PORT):
        fenced = box()
        container_id = await fenced.start(twice)
        await fenced.fencing.fence_in(container_id, fenced.spec, UID)
        assert verdicts(await fenced.release()) == dict.fromkeys(("first", "second"), FENCED)
        unfenced = box()
        await unfenced.start(twice)
        assert verdicts(await unfenced.release()) == dict.fromkeys(("first", "second"), REACHED)


async def test_a_private_name_server_answers_the_engine_and_nobody_else(box: MakeBox, elsewhere: Elsewhere) -> None:
    """Names are resolved although the host's name server is behind the fence; the task cannot speak to it itself."""
    elsewhere.receive(PRIVATE, 53, _answer)
    elsewhere.listen(PRIVATE, 53)
    script = "getent hosts far.away.test\n" + trying({"direct": (PRIVATE, 53)})
    fenced = box()
    container_id = await fenced.start(script, dns=(PRIVATE,))
    await fenced.fencing.fence_in(container_id, fenced.spec, UID)
    output = await fenced.release()
    assert output.split() == ["203.0.113.9", "far.away.test", "direct", *FENCED.split()]
    control = box()
    await control.start(script, dns=(PRIVATE,))
    assert (await control.release()).split() == ["203.0.113.9", "far.away.test", "direct", REACHED]


def _answer(query: bytes) -> bytes:
    """A name server that knows one address for every name (A), and nothing else."""
    end = query.index(b"\0", 12) + 5
    question, kind = query[12:end], query[end - 4 : end - 2]
    count = b"\0\1" if kind == b"\0\1" else b"\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((203, 0, 113, 9)) if kind == b"\0\1" else b""
    return query[:2] + b"\x81\x80\0\1" + count + b"\0\0\0\0" + question + record


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("echo this kernel has no nftables >&2; exit 7", r"its helper ended with 7 \(this kernel has no nftables\)"),
        ("exit 3", r"its helper ended with 3 \(it said nothing\)"),
        ("exit 0", "the kernel does not show the rules it was given"),
        ("nft add table inet agp_fence; nft list ruleset", "the kernel does not show the rules it was given"),
    ],
)
async def test_a_fence_that_does_not_stand_is_an_error(
    box: MakeBox, sham: Callable[[str], str], program: str, why: str
) -> None:
    """Whatever the helper's exit code says: the rules must be seen."""
    made = box(sham(program))
    container_id = await made.start("echo never")
    with pytest.raises(NotFenced, match=why):
        await made.fencing.fence_in(container_id, made.spec, UID)
    assert [one.container_id for one in await made.engine.owned(made.spec.container.labels)] == [container_id]


async def test_a_missing_image_is_an_error_that_names_the_setting(box: MakeBox) -> None:
    """The operator learns which image, and where its name stands."""
    made = box("127.0.0.1:1/agp/no-such-fence:1")
    container_id = await made.start("echo never")
    with pytest.raises(NotFenced, match=r"no-such-fence:1 is not available: .*; AGP_FENCE_IMAGE names it"):
        await made.fencing.fence_in(container_id, made.spec, UID)


async def test_a_container_that_is_gone_is_an_error(box: MakeBox) -> None:
    """There is nothing to fence in."""
    made = box()
    await made.fencing.bridge()
    with pytest.raises(NotFenced) as caught:
        await made.fencing.fence_in("agp-no-such-container", made.spec, UID)
    assert isinstance(caught.value.__cause__, ContainerMissing)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"options": {"com.docker.network.bridge.enable_icc": "true"}}, "enable_icc"),
        ({"options": {"com.docker.network.bridge.enable_icc": "false"}}, "enable_ip_masquerade"),
        ({"internal": True}, "Internal"),
        ({"attachable": True}, "Attachable"),
        ({"labels": {}}, "Labels"),
    ],
)
async def test_a_network_that_differs_is_refused(
    box: MakeBox, client: docker.DockerClient, options: dict[str, Any], field: str
) -> None:
    """It has the agent's name for it and is weaker, or is not the agent's: it is named, and left alone."""
    made = box()
    labels = {name: made.spec.container.labels[name] for name in ("agp.agent_id", "agp.instance")}
    arguments: dict[str, Any] = {"labels": labels} | options
    network = client.networks.create(made.fencing.bridge_name, **arguments)
    try:
        with pytest.raises(NotFenced, match=rf"{network.name} is not the agent's own as it should be: .*{field}"):
            await made.fencing.bridge()
        network.reload()
    finally:
        network.remove()


async def test_everything_that_is_allowed_is_in_the_rules(box: MakeBox, elsewhere: Elsewhere) -> None:
    """A runner with hundreds of destinations is fenced in as any other."""
    del elsewhere
    many = tuple(f"10.{one}.{other}.0/24:{OPEN}" for one in range(20, 30) for other in range(40))
    made = box(allow=(*many, f"{PRIVATE}:{OPEN}"))
    container_id = await made.start(trying({"named": (PRIVATE, OPEN), "other": (PRIVATE, OPEN + 1)}))
    await made.fencing.fence_in(container_id, made.spec, UID)
    assert verdicts(await made.release()) == {"named": REACHED, "other": FENCED}
