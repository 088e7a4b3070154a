"""What only the real engine can show."""

import asyncio
import hashlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agp_agent.docker_engine import DockerEngine, Endpoint
from agp_agent.docker_engine.attach import attach
from agp_agent.engine import PullPolicy, Tmpfs
from agp_agent.errors import EngineError, EngineUnavailable
from contract.line import Line
from contract.rig import RELEASE, DockerRig, docker_rig, everything
from contract.scripts import Step, say
from support.certificates import certify


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DockerRig]:
    """The engine, reached directly."""
    async with docker_rig(tmp_path, DockerEngine.from_environment(os.environ)) as ready:
        yield ready


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    """A line to the engine that is not open yet."""
    line = Line(tmp_path / "line.sock", Endpoint.from_environment(os.environ))
    yield line
    await line.cut()


def shell(script: str) -> Step:
    """A playbook for the real shell only."""
    return Step("", script)


def open_files() -> int:
    """How many file descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


class TestResources:
    """Threads, connections and memory do not grow."""

    async def test_no_thread_stays_behind(self, tmp_path: Path) -> None:
        """After closing there are as many threads as before opening, with everything used in between."""
        before = threading.active_count()
        async with docker_rig(tmp_path, DockerEngine.from_environment(os.environ)) as rig:
            await asyncio.gather(*(rig.run(say("hello")) for _ in range(4)))
            assert threading.active_count() > before
            await rig.engine.aclose()
            assert threading.active_count() == before

    async def test_threads_do_not_grow_with_containers(self, rig: DockerRig) -> None:
        """Twelve prepared containers that are watched cost no more threads than the pool and the event stream."""
        before = threading.active_count()
        prepared = await asyncio.gather(*(rig.prepared() for _ in range(12)))
        waiters = [asyncio.create_task(rig.engine.wait(container_id)) for container_id, _ in prepared]
        await asyncio.sleep(0.2)
        assert threading.active_count() <= before + 8
        for _, attachment in prepared:
            await attachment.aclose()
        assert {state.exit_code for state in await asyncio.gather(*waiters)} == {125}

    async def test_file_descriptors_stay_flat(self, rig: DockerRig) -> None:
        """Fifty containers later no connection more is open."""
        await asyncio.gather(*(rig.run(say("hello")) for _ in range(10)))
        before = open_files()
        for _ in range(5):
            runs = await asyncio.gather(*(rig.run(say("hello")) for _ in range(10)))
            assert {run.output for run in runs} == {b"hello\n"}
        assert open_files() < before + 10  # the SDK's pool may still have been filling

    async def test_twenty_megabytes_arrive_byte_for_byte(self, rig: DockerRig) -> None:
        """Through the attachment, however far the engine's own log has rotated meanwhile."""
        script = "head -c 20000000 /dev/urandom >/work/x; sha256sum </work/x | head -c 64; cat /work/x"
        run = await rig.run(shell(script))
        told, data = run.output[:64], run.output[64:]
        assert len(data) == 20_000_000
        assert hashlib.sha256(data).hexdigest().encode() == told


class TestAbsence:
    """An engine that is not there, or does not answer."""

    async def test_an_absent_engine_is_unavailable_and_may_come_later(self, line: Line) -> None:
        """Nothing fails for good: the same object works once the engine is there."""
        engine = DockerEngine.from_environment({"DOCKER_HOST": f"unix://{line.path}"})
        await engine.open()
        for call in (engine.describe(), engine.image("x", PullPolicy.NEVER), engine.owned({}), engine.attach("x")):
            with pytest.raises(EngineUnavailable, match="set DOCKER_HOST"):
                await call
        await line.open()
        assert (await engine.describe()).version
        await engine.aclose()

    async def test_an_engine_that_stands_still_is_unavailable(self, tmp_path: Path) -> None:
        """It takes connections and answers nothing, as when its process is stopped."""
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(tmp_path / "engine.sock"))
            silent.listen()
            engine = DockerEngine(f"unix://{tmp_path}/engine.sock", timeout_s=0.3)
            with pytest.raises(EngineUnavailable, match="no answer in time"):
                await engine.describe()
            await engine.aclose()


class TestRemote:
    """An engine behind TCP, as a sidecar or another host offers it."""

    @pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS with certificates on both sides"])
    async def test_the_whole_walk_works_over_tcp(
        self, rig: DockerRig, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, secure: bool
    ) -> None:
        """Calls, events and attached streams, whatever proxies and authorities other programs use."""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        environ = {"DOCKER_HOST": f"tcp://127.0.0.1:{await line.open_tcp(certified(tmp_path) if secure else None)}"}
        if secure:
            environ |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
        remote = DockerRig(tmp_path, DockerEngine.from_environment(environ))
        remote.labels = rig.labels
        await remote.engine.open()
        run = await remote.run(say("far away"))
        assert run.output == b"far away\n"
        container_id, attachment = await remote.prepared()
        await attachment.aclose()
        assert (await remote.engine.wait(container_id)).exit_code == 125
        await remote.engine.aclose()

    async def test_a_stranger_is_not_trusted(self, line: Line, tmp_path: Path) -> None:
        """A certificate that nobody vouches for is a refusal, by calls and by attach."""
        for name in ("theirs", "ours"):
            (tmp_path / name).mkdir()
        certified(tmp_path / "ours")
        port = await line.open_tcp(certified(tmp_path / "theirs"))
        environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "ours")}
        endpoint = Endpoint.from_environment({"DOCKER_HOST": f"tcp://127.0.0.1:{port}", **environ})
        engine = DockerEngine(endpoint.url, tls=endpoint.tls)
        with pytest.raises(EngineUnavailable, match="certificate verify failed"):
            await engine.describe()
        with pytest.raises(EngineUnavailable, match="certificate verify failed"):
            await attach(endpoint, "1.41", "x", timeout_s=5)
        await engine.aclose()


def certified(folder: Path) -> ssl.SSLContext:
    """Make ca.pem, cert.pem and key.pem in the folder; what a server needs that asks its clients for the same."""
    certify(folder, "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class TestLeftovers:
    """Whoever goes away leaves nothing behind."""

    @pytest.mark.parametrize("delay_s", [0, 0.005, 0.02, 0.05])
    async def test_a_cancelled_create_leaves_no_container(self, rig: DockerRig, delay_s: float) -> None:
        """At whatever moment it is cancelled."""
        spec = rig.spec()
        creating = asyncio.create_task(rig.engine.create(spec))
        await asyncio.sleep(delay_s)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        if creating.cancelled():
            await rig.engine.aclose()
            fresh = DockerEngine.from_environment(os.environ)
            assert await fresh.owned(rig.labels) == []
            await fresh.aclose()

    async def test_a_cancelled_put_leaves_no_helper(self, rig: DockerRig) -> None:
        """The helper container is removed although nobody waits any more."""
        putting = asyncio.create_task(rig.engine.put_file(rig.folder(), rig.image, "x", b"1", rig.labels))
        await asyncio.sleep(0.005)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        await rig.engine.aclose()
        fresh = DockerEngine.from_environment(os.environ)
        assert await fresh.owned(rig.labels) == []
        await fresh.aclose()


class TestContainers:
    """What the engine makes of a spec."""

    async def test_the_lockdown_is_real_inside(self, rig: DockerRig) -> None:
        """The kernel says what the container may do."""
        script = (
            'grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status; id -u; id -G; hostname; ulimit -n -c;'
            " ls /sys/class/net; touch /x 2>&1; echo x >/tmp/x && echo tmp; touch /playbook/x 2>&1; echo $AGP_WORD"
        )
        lines = (await rig.run(shell(script))).output.decode().splitlines()
        fields = [" ".join(line.split()) for line in lines]
        assert "CapEff: 0000000000000000" in fields
        assert "CapBnd: 0000000000000000" in fields
        assert "NoNewPrivs: 1" in fields
        assert "Seccomp: 2" in fields
        assert fields[4:7] == ["20007", "20007", "runner"]
        assert "lo" in fields
        assert not any(field.startswith("eth") for field in fields)
        assert sum("Read-only file system" in field for field in fields) == 2
        assert "tmp" in fields
        assert fields[-1] == "with = and spaces"

    async def test_a_container_that_cannot_be_started_has_not_ended(self, rig: DockerRig) -> None:
        """The error is told by start, and kept in inspect."""
        container_id = await rig.engine.create(replace(rig.spec(), tmpfs={"/proc/nowhere": Tmpfs(2**20)}))
        with pytest.raises(EngineError, match="refused"):
            await rig.engine.start(container_id)
        state = await rig.engine.inspect(container_id)
        assert (state.running, state.ended) == (False, False)
        assert state.error

    async def test_only_small_files_are_read(self, rig: DockerRig) -> None:
        """What a mount holds cannot fill the agent's memory."""
        mount = rig.folder()
        Path(mount.source, "large").write_bytes(bytes(17 * 2**20))
        with pytest.raises(EngineError, match="is larger than"):
            await rig.engine.get_file(mount, rig.image, "large", rig.labels)

    async def test_an_agent_that_dies_takes_its_prepared_container_along(self, rig: DockerRig) -> None:
        """The connection is cut off as by SIGKILL; another agent sees the end and an empty log."""
        container_id, attachment = await rig.prepared(say("never"))
        other = DockerEngine.from_environment(os.environ)
        await other.open()
        waiter = asyncio.create_task(other.wait(container_id))
        await attachment.aclose()
        assert (await waiter).exit_code == 125
        assert (await other.log(container_id)).output == b""
        await other.aclose()

    async def test_a_second_agent_reads_what_the_first_one_left(self, rig: DockerRig) -> None:
        """Log and history are the engine's, not the connection's."""
        container_id, attachment = await rig.prepared(say("kept"))
        await attachment.send(RELEASE)
        await everything(attachment)
        await attachment.aclose()
        await rig.engine.wait(container_id)
        other = DockerEngine.from_environment(os.environ)
        assert (await other.log(container_id)).output == b"kept\n"
        assert (await other.history(container_id)).died
        assert (await other.inspect(container_id)).exit_code == 0
        await other.aclose()
