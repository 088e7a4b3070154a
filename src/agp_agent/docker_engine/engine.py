"""``DockerEngine``: the port's verbs, each a call of the SDK in a thread, or a stream of our own."""

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace

from docker import APIClient
from docker.errors import APIError, NotFound
from docker.tls import TLSConfig

from agp_agent.docker_engine import attach, bridges, files, helpers, reading, record
from agp_agent.docker_engine.calls import EngineCalls
from agp_agent.docker_engine.creation import Creation
from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.errors import CONFLICT, explanation
from agp_agent.docker_engine.events import EventWatch
from agp_agent.docker_engine.http import get_chunks
from agp_agent.docker_engine.images import Images
from agp_agent.docker_engine.read_back import Known, check_apparmor
from agp_agent.engine import (
    Attachment,
    Bridge,
    ContainerLog,
    ContainerSpec,
    ContainerState,
    EngineInfo,
    Helped,
    History,
    Image,
    Mount,
    OwnedContainer,
    PullPolicy,
    Signal,
)
from agp_agent.errors import EngineError, EngineReplaced, EngineUnavailable
from agp_agent.lacks import Lack

_FIRST_CONTACT_S = 2.0
_KILLED_CODE = 137
_LATE_NEWS_S = 0.3
_RECHECK_S = 1.0
_LONGEST_RETRY_S = 10.0
_REMOVAL_ATTEMPTS = 60
_REMOVAL_PAUSE_S = 0.2


class DockerEngine:
    """A ``ContainerEngine`` over Docker's API (1.41 and newer, the version is agreed with the engine).

    It costs one thread for events and at most eight for calls, however many containers run. It is made without
    contact: the engine is asked when it is first needed. Make it on a running event loop.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        tls: TLSConfig | None = None,
        timeout_s: float = 30.0,
        pull_timeout_s: float = 600.0,
        accepted: frozenset[Lack] = frozenset(),
    ) -> None:
        """Name the engine, or None for the local socket.

        Args:
            base_url: as DOCKER_HOST has it.
            tls: from ``docker.utils.kwargs_from_env`` or None.
            timeout_s: how long one call may take.
            pull_timeout_s: how long one pull of an image may take.
            accepted: what containers may lack where the engine cannot do it.

        Raises:
            ConfigurationError: the address is none.
        """
        endpoint = Endpoint.parse(base_url, tls)
        self._accepted = accepted
        self._calls = EngineCalls(endpoint, timeout_s)
        self._events = EventWatch(lambda: endpoint.client(timeout_s), self._begin_anew)
        self._unstarted = set[str]()
        """Containers made here that nobody has started yet: of those inspect says nothing new."""
        self._images = Images(self._calls, pull_timeout_s)
        self._bridges = asyncio.Lock()
        self._known = Known()

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        timeout_s: float = 30.0,
        pull_timeout_s: float = 600.0,
        accepted: frozenset[Lack] = frozenset(),
    ) -> "DockerEngine":
        """The engine that DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, as Docker's own tools read them."""
        endpoint = Endpoint.from_environment(environ)
        return cls(
            endpoint.url, tls=endpoint.tls, timeout_s=timeout_s, pull_timeout_s=pull_timeout_s, accepted=accepted
        )

    @property
    def epoch(self) -> int:
        """Grows with every interruption; without contact to the engine no two readings are equal."""
        return self._events.epoch

    def image_news(self) -> asyncio.Event:
        """An event of the caller's own: some image came, moved or went."""
        return self._events.image_news()

    async def open(self) -> None:
        """Start listening to events; returns once the engine was tried, at the latest after two seconds."""
        self._events.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_CONTACT_S):
                await self._events.first_attempt()

    async def aclose(self) -> None:
        """End all threads and connections; calls that run are waited for, as long as their timeouts say."""
        await self._images.aclose()
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def close() -> None:
            self._events.close()
            self._calls.close()
            loop.call_soon_threadsafe(closed.set)

        thread = threading.Thread(target=close, name="engine-close")
        thread.start()
        await closed.wait()
        thread.join()

    def _begin_anew(self) -> None:
        """Contact is back: whatever was known may not be so any more."""
        self._calls.renew()
        self._known.forget()
        self._unstarted.clear()

    async def describe(self) -> EngineInfo:
        """Ask the engine who it is. Raises also ``EngineReplaced``."""
        try:
            return await self._calls.run(lambda client: reading.engine_info(client.info(), str(client.api_version)))
        except EngineUnavailable:
            if not (endpoint := self._calls.endpoint).is_replaced:
                raise
            raise EngineReplaced(
                f"{endpoint}: the engine has made its socket anew, and what is mounted here is the old one; "
                "this process ends, and its next start finds the new one."
            ) from None

    async def image(self, name: str, pull: PullPolicy) -> Image:
        """Find or fetch an image; many callers share one pull."""
        return await self._images.get(name, pull)

    async def create(self, spec: ContainerSpec) -> str:
        """Create, read back, compare. A caller that is cancelled leaves no container behind."""
        creation = Creation(spec, self._known, self._accepted)
        future = self._calls.submit(creation.run)
        try:
            made = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            left = creation.abandon()
            if left is not None:
                self._calls.submit(lambda client: client.remove_container(left, v=True, force=True))
            raise
        self._unstarted.add(made)
        return made

    async def attach(self, container_id: str) -> Attachment:
        """Open the container's streams over a connection of their own."""
        version = await self._calls.run(lambda client: client.api_version)
        return await attach.attach(self._calls.endpoint, version, container_id, self._calls.timeout_s)

    async def start(self, container_id: str) -> None:
        """Start it, unless it has ended: Docker itself would run an ended container again."""
        is_new = container_id in self._unstarted
        self._unstarted.discard(container_id)  # before it is tried: of a call that failed nobody knows

        def start(client: APIClient) -> None:
            if not is_new and reading.container_state(client.inspect_container(container_id)).ended:
                raise EngineError(f"container {container_id} has ended: it is never started again")
            client.start(container_id)
            check_apparmor(client, container_id, self._known)

        await self._calls.run(start)

    async def inspect(self, container_id: str) -> ContainerState:
        """The truth about the container now."""
        state = reading.container_state(await self._calls.run(lambda client: client.inspect_container(container_id)))
        return replace(state, killed=self._events.killed(container_id))

    async def wait(self, container_id: str) -> ContainerState:
        """Return once inspect says that it has ended; woken by events, not by a clock."""
        retry_s = _RECHECK_S / 2
        patience_s: float | None
        rung, running_in = False, -1
        with self._events.waiting(container_id) as bell:
            while True:
                bell.clear()
                epoch = self.epoch
                try:
                    state = await self.inspect(container_id)
                except EngineUnavailable:
                    retry_s = patience_s = min(2 * retry_s, _LONGEST_RETRY_S)
                else:
                    if state.ended:
                        return replace(await self._with_late_news(state), seen_ending=running_in == epoch)
                    running_in = epoch
                    # An event came and it still runs: one look more, should the engine tell before it knows.
                    patience_s = _RECHECK_S if rung else None
                rung = await _rings(bell, patience_s)

    async def _with_late_news(self, state: ContainerState) -> ContainerState:
        """An engine may tell of the end before it tells that memory was the reason: a bare 137 is looked at twice."""
        if state.exit_code != _KILLED_CODE or state.oom_killed or state.killed:
            return state
        await asyncio.sleep(_LATE_NEWS_S)
        try:
            return await self.inspect(state.container_id)
        except EngineError:  # what is known stands
            return state

    async def spoiled(self, container_id: str) -> None:
        """Return once it does not run and wait any more; woken by events, as ``wait`` is."""
        rung = False
        with self._events.waiting(container_id) as bell:
            while True:
                bell.clear()
                try:
                    state = await self.inspect(container_id)
                except EngineError:
                    return
                if not state.running or state.paused:
                    return
                rung = await _rings(bell, _RECHECK_S if rung else None)

    async def signal(self, container_id: str, signal: Signal) -> bool:
        """Send a signal to its first process, which passes TERM on."""

        def kill(client: APIClient) -> bool:
            try:
                client.kill(container_id, signal.value)
            except NotFound:
                raise
            except APIError:
                if client.inspect_container(container_id)["State"]["Running"]:
                    raise
                return False
            return True

        return await self._calls.run(kill)

    async def history(self, container_id: str) -> History:
        """Read the engine's last events (dockerd: the latest 256 of all kinds since it started).

        Over a new connection: while it stops, and its containers with it, an engine still serves those it has.
        """

        def events(_client: APIClient) -> bytes:
            with closing(self._calls.endpoint.client(self._calls.timeout_s)) as client:
                # The engine's own clock: an end in its future would make it wait, one in its past would hide events.
                now = reading.unix_time(client.info()["SystemTime"])
                return b"".join(get_chunks(client, {"since": "1", "until": now}, "events"))

        lines = (await self._calls.run(events)).splitlines()
        return reading.history(container_id, map(json.loads, lines))

    async def log(self, container_id: str) -> ContainerLog:
        """The ``local`` log driver's record; see ``record.joined`` for what it can and cannot know."""
        return await self._calls.run(lambda client: record.read_record(client, container_id))

    async def remove(self, container_id: str) -> None:
        """Kill and remove; where another removal is under way its end is waited for."""
        self._unstarted.discard(container_id)
        for _ in range(_REMOVAL_ATTEMPTS):
            if await self._calls.run(lambda client: _removed(client, container_id)):
                return
            await asyncio.sleep(_REMOVAL_PAUSE_S)
        raise EngineError(f"container {container_id} is being removed, and the engine does not come to an end with it")

    async def owned(self, labels: Mapping[str, str]) -> list[OwnedContainer]:
        """All containers that carry every one of these labels."""
        filters = {"label": _label_filter(labels)}
        listed = await self._calls.run(lambda client: client.containers(all=True, filters=filters))
        return [reading.owned_container(one) for one in listed]

    async def mounts(self, container_id: str) -> list[Mount]:
        """The folders on the engine's host behind a container's bind mounts and volumes."""
        return reading.host_mounts(await self._calls.run(lambda client: client.inspect_container(container_id)))

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a named volume, unless it exists."""
        await self._calls.run(lambda client: client.create_volume(name, labels=dict(labels)))

    async def remove_volume(self, name: str) -> None:
        """Remove a named volume, if it exists."""

        def remove(client: APIClient) -> None:
            with suppress(NotFound):
                client.remove_volume(name)

        await self._calls.run(remove)

    async def owned_volumes(self, labels: Mapping[str, str]) -> list[str]:
        """Names of all volumes that carry every one of these labels."""
        filters = {"label": _label_filter(labels)}
        answer = await self._calls.run(lambda client: client.volumes(filters=filters))
        return [volume["Name"] for volume in answer["Volumes"] or ()]

    async def put_file(self, mount: Mount, image: str, path: str, data: bytes, labels: Mapping[str, str]) -> None:
        """Write a file into a mount; the helper container is removed even when the caller is cancelled."""
        await self._calls.run(lambda client: files.put_file(client, mount, image, path, data=data, labels=labels))

    async def get_file(self, mount: Mount, image: str, path: str, labels: Mapping[str, str]) -> bytes:
        """Read a small file of a mount; the helper container is removed even when the caller is cancelled."""
        return await self._calls.run(lambda client: files.get_file(client, mount, image, path, labels))

    async def ensure_bridge(self, name: str, labels: Mapping[str, str]) -> Bridge:
        """Make the bridge where it is missing; one call at a time, for an engine may take a name twice."""
        async with self._bridges:
            return await self._calls.run(lambda client: bridges.ensure_bridge(client, name, labels))

    async def remove_bridge(self, name: str) -> None:
        """Remove the bridge, if it exists."""
        await self._calls.run(lambda client: bridges.remove_bridge(client, name))

    async def run_beside(
        self, container_id: str, image: str, command: tuple[str, ...], labels: Mapping[str, str]
    ) -> Helped:
        """Run a helper in a container's network namespace; it is removed even when the caller is cancelled."""
        return await self._calls.run(
            lambda client: helpers.run_beside(client, container_id, image, command, labels, self._accepted, self._known)
        )


async def _rings(bell: asyncio.Event, patience_s: float | None) -> bool:
    """Wait for the bell; False when it stayed silent for so long."""
    try:
        async with asyncio.timeout(patience_s):
            await bell.wait()
    except TimeoutError:
        return False
    return True


def _label_filter(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in labels.items()]


def _removed(client: APIClient, container_id: str) -> bool:
    """Remove it. False: somebody else is removing it right now."""
    try:
        client.remove_container(container_id, v=True, force=True)
    except NotFound:
        return True
    except APIError as error:
        if error.status_code == CONFLICT and "already in progress" in explanation(error):
            return False
        raise
    return True
