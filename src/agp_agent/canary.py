"""The loop that tries the fence of every network runner from within: what must not answer, does not.

It runs at the first contact with the engine, at every change of the catalog, and every ten minutes. A runner whose
fence does not hold is refused until it does; one that was never tried waits. What is tried: the bridge's gateway,
the clouds' metadata addresses, private and shared ones, the agent's own API and a neighbour on the same bridge, minus
what ``allow`` names. Each must be refused by the fence itself: that nobody answers is no proof of it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final, NamedTuple

import structlog

from agp_agent import clock, planner
from agp_agent.catalog import Catalogs
from agp_agent.engine import Attachment, Bridge, ContainerEngine, ContainerSpec, Stream
from agp_agent.errors import EngineError, EngineUnavailable, ImageUnavailable, NotFenced
from agp_agent.executor import release_lines
from agp_agent.fence import Fence
from agp_agent.fencing import Fencing
from agp_agent.planner import Limits, RunSpec
from agp_agent.reach import Proof, Reach, subject_of
from agp_agent.readiness import Readiness

log = structlog.get_logger(__name__)

_PATIENCE_S: Final = 30.0
_NOT_PUBLIC: Final = (
    (IPv4Address("169.254.169.254"), "the metadata address"),
    (IPv4Address("168.63.129.16"), "Azure's host agent"),
    (IPv4Address("100.100.100.200"), "a shared address"),  # Alibaba's metadata; tailnets are there, too
    (IPv4Address("10.255.255.254"), "a private address"),
    (IPv4Address("172.31.255.254"), "a private address"),
    (IPv4Address("192.168.255.254"), "a private address"),
)
_HTTP_PORT: Final = 80
_DNS_PORT: Final = 53
_ADDRESSES: Final = 32
"""Of the agent's own, as many are tried."""
_NEIGHBOUR_PORT: Final = 8472
_CONTROL: Final = "127.0.0.1 8471"
"""What the probe tries first: itself. It must answer, or the rest says nothing."""
_HELD: Final = "fenced"
"""At once, by the kernel. Silence is none: where nobody listens, or a firewall drops, it is so without a fence."""


class Periods(NamedTuple):
    """How long until a runner is tried again."""

    held_s: float = 600.0
    refused_s: float = 60.0
    unclear_s: float = 2.0
    """After a try that came to no end, because the engine was away."""


Targets = Mapping[tuple[IPv4Address, int], str]
"""What is tried → what that is, for people."""


class Canary:
    """Writes ``Reach``. Its containers are as locked down as a task's, and carry the agent's labels."""

    def __init__(
        self,
        engine: ContainerEngine,
        fencing: Fencing,
        catalogs: Catalogs,
        readiness: Readiness,
        reach: Reach,
        *,
        limits: Limits,
        labels: dict[str, str],
        uids: range,
        port: int,
        periods: Periods = Periods(),  # noqa: B008  it cannot be changed
    ) -> None:
        """``port`` is that of the agent's API, or 0 where it has none; ``uids`` are those of tasks."""
        self._engine = engine
        self._fencing = fencing
        self._catalogs = catalogs
        self._readiness = readiness
        self._reach = reach
        self._limits = limits
        self._labels = labels
        self._uids = uids
        self._port = port or _HTTP_PORT
        self._periods = periods
        self._changed = catalogs.subscribe()
        self._due_s: dict[Hashable, float] = {}
        """When each runner is tried again, by the event loop's clock."""

    async def run(self) -> None:
        """Try what is due, then sleep until something is, the catalog changes or somebody waits for a proof."""
        while True:
            if self._changed.is_set():
                self._due_s.clear()
            self._changed.clear()
            self._reach.asked.clear()
            await self._try_what_is_due()
            await self._pause()

    async def _pause(self) -> None:
        now_s = asyncio.get_running_loop().time()
        next_s = min(self._due_s.values(), default=now_s + self._periods.held_s)
        waiters = [asyncio.create_task(event.wait()) for event in (self._changed, self._reach.asked)]
        try:
            await asyncio.wait(waiters, timeout=max(0.0, next_s - now_s), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    async def _try_what_is_due(self) -> None:
        loop, specs = asyncio.get_running_loop(), self._specs()
        for gone in self._reach.keep(specs):
            self._readiness.warn(_part(gone.runner), None)
        self._due_s = {subject: due_s for subject, due_s in self._due_s.items() if subject in specs}
        for subject, spec in specs.items():
            if self._due_s.get(subject, loop.time()) <= loop.time():
                again_s = await self._try(spec)
                self._due_s[subject] = loop.time() + again_s

    def _specs(self) -> dict[Hashable, RunSpec]:
        """Every plan with a network: of the catalog in force, and of runs that were accepted under an earlier one."""
        runners = self._catalogs.current.runners.values()
        current = [planner.plan(runner, self._limits, self._labels) for runner in runners]
        return {subject_of(spec): spec for spec in (*current, *self._reach.wanted) if spec.outbound}

    async def _try(self, spec: RunSpec) -> float:
        """Try one runner; how long until the next time."""
        if "engine" in self._readiness.problems:
            return self._periods.unclear_s
        try:
            proof = await self.prove(spec)
        except EngineUnavailable as error:
            log.warning("network not tried; trying again", runner=spec.runner, why=str(error))
            return self._periods.unclear_s
        await self._tell(spec, proof)
        return self._periods.held_s if proof.problem is None else self._periods.refused_s

    async def prove(self, spec: RunSpec) -> Proof:
        """Try the fence of one plan from within, once. Raises ``EngineUnavailable``: that says nothing of the fence."""
        found: Mapping[str, str] = {}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                problem, found = await self._probe(spec)
        except EngineUnavailable:
            raise
        except TimeoutError:
            problem = f"its network could not be tried within {_PATIENCE_S:g} s"
        except EngineError as error:
            problem = str(error)
        return Proof(spec.runner, problem, clock.wall_ms(), found)

    async def _tell(self, spec: RunSpec, proof: Proof) -> None:
        before = self._reach.of(spec)
        self._readiness.warn(_part(spec.runner), proof.problem)  # audited as a degradation, and in `/status`
        if proof.problem is not None:
            log.error("runner refused: its tasks end with an error", runner=spec.runner, why=proof.problem)
        elif before is None or before.problem is not None:
            log.info("network tried: its fence holds", runner=spec.runner, tried=len(proof.found))
            _warn_of_little(spec, proof)
        await self._reach.set(spec, proof)

    # --- one try -----------------------------------------------------------------------------------------------------

    async def _probe(self, spec: RunSpec) -> tuple[str | None, Mapping[str, str]]:
        """Why the fence does not hold, or None; and what was found."""
        await self._helper_image()
        bridge = await self._fencing.bridge()
        uid = secrets.choice(self._uids)
        async with self._neighbour(spec, bridge, uid) as neighbour:
            fence = await self._fencing.fence_for(spec, uid)
            targets = dict(self._targets(fence, neighbour))
            words = [word for address, port in targets for word in (str(address), str(port))]
            container = self._container(spec, bridge, uid, ("agp-probe", *words))
            async with self._started(container) as (container_id, attachment):
                await self._fencing.fence_in(container_id, spec, uid)
                await attachment.send(release_lines(secrets.token_hex(16), {}))
                return judge((await _printed(attachment)).splitlines(), targets)

    async def _helper_image(self) -> None:
        try:
            await self._fencing.find_image()
        except ImageUnavailable as error:
            raise NotFenced(f"its network cannot be tried: {error}; AGP_FENCE_IMAGE names it") from error

    def _targets(
        self, fence: Fence, neighbour: tuple[IPv4Address, int]
    ) -> Iterator[tuple[tuple[IPv4Address, int], str]]:
        """What must not answer. Neighbours never; all else unless ``allow`` names it."""
        gateway = fence.bridge.gateway
        yield neighbour, "a neighbour"
        candidates = [
            ((gateway, self._port), "the agent's API at the bridge's gateway"),
            ((gateway, _DNS_PORT), "the bridge's gateway"),
            *(((address, _HTTP_PORT), what) for address, what in _NOT_PUBLIC),
            *(((address, self._port), "the agent's API") for address in self._fencing.own_addresses()[:_ADDRESSES]),
        ]
        for target, what in candidates:
            if not fence.allows(*target):
                yield target, what

    @contextlib.asynccontextmanager
    async def _neighbour(self, spec: RunSpec, bridge: Bridge, uid: int) -> AsyncIterator[tuple[IPv4Address, int]]:
        """Another container on the bridge that listens, which it has tried itself. It has no fence that could help."""
        listener = self._container(spec, bridge, uid, ("agp-listen", str(_NEIGHBOUR_PORT)))
        async with self._started(replace(listener, runtime=None)) as (_, attachment):
            await attachment.send(release_lines(secrets.token_hex(16), {}))
            line = await _first_line(attachment)
            address, _, port = line.partition(" ")
            if not port.isdecimal():
                raise EngineError(
                    f"its network cannot be tried: no neighbour could be set up ({line.strip() or 'it said nothing'})"
                )
            yield IPv4Address(address), int(port)

    def _container(self, spec: RunSpec, bridge: Bridge, uid: int, command: tuple[str, ...]) -> ContainerSpec:
        """A container of the runner's kind and network, without anything else that is the runner's."""
        return replace(
            spec.container,
            name=f"agp-canary-{secrets.token_hex(8)}",
            image=self._fencing.image,
            command=command,
            uid=uid,
            env={},
            mounts=(),
            tmpfs={},
            network=bridge.name,
        )

    @contextlib.asynccontextmanager
    async def _started(self, container: ContainerSpec) -> AsyncIterator[tuple[str, Attachment]]:
        """A container for as long as the body runs; its entry waits for the release."""
        try:
            container_id = await self._engine.create(container)
            async with contextlib.aclosing(await self._engine.attach(container_id)) as attachment:
                await self._engine.start(container_id)
                yield container_id, attachment
        finally:
            await asyncio.shield(self._engine.remove(container.name))  # whatever ends the try, also a second time


def _part(runner: str) -> str:
    return f"network of runner {runner}"


def _warn_of_little(spec: RunSpec, proof: Proof) -> None:
    """The neighbour is tried in any case; alone it says little of what lies beyond the bridge."""
    if len(proof.found) == 1:
        log.warning("allow names all that could be tried beside a neighbour: the proof says little", runner=spec.runner)


def judge(lines: list[str], targets: Targets) -> tuple[str | None, dict[str, str]]:
    """What a probe's lines mean. Whatever is missing or unclear counts as not held."""
    found = {" ".join(words[:2]): " ".join(words[2:]) for line in lines if len(words := line.split()) > 2}  # noqa: PLR2004
    if found.pop(_CONTROL, "") != "answered":
        return "its network could not be tried: the probe did not even reach itself", found
    wrong = [
        f"{what} ({address} port {port}) {found.get(f'{address} {port}') or 'was not tried'}"
        for (address, port), what in targets.items()
        if found.get(f"{address} {port}") != _HELD
    ]
    return (f"its network is not fenced in: {'; '.join(wrong)}" if wrong else None), found


async def _printed(attachment: Attachment) -> str:
    """All that a container prints, to its end."""
    output = b"".join([data async for stream, data in attachment.frames() if stream is Stream.OUTPUT])
    return output.decode("utf-8", "replace")


async def _first_line(attachment: Attachment) -> str:
    """The first line that a container prints, or what it printed until its end."""
    output = b""
    async for stream, data in attachment.frames():
        output += data if stream is Stream.OUTPUT else b""
        if b"\n" in output:
            break
    return output.partition(b"\n")[0].decode("utf-8", "replace")
