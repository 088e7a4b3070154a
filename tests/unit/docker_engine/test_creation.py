"""Creating a container whose caller may go away."""

import asyncio
import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

import pytest

from agp_agent.docker_engine import DockerEngine
from agp_agent.docker_engine.calls import EngineCalls
from agp_agent.docker_engine.creation import Creation
from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.read_back import Known
from agp_agent.docker_engine.translate import creation
from agp_agent.engine import ContainerSpec
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable, LockdownRefused
from agp_agent.lacks import Lack
from fakes.docker_api import DockerApi, answer

CREATE = "POST /containers/create"
REMOVE = "DELETE /containers/abc"
SPEC = ContainerSpec(
    name="agp-slot-1",
    image="x:1",
    command=("run",),
    uid=20007,
    labels={},
    env={},
    mounts=(),
    tmpfs={},
    memory_bytes=2**26,
    cpus=1,
    pids=64,
    log_limit_bytes=2**20,
)


@pytest.fixture
def calls(api: DockerApi) -> Iterator[EngineCalls]:
    """Calls to an engine that makes what it is asked for."""
    config = copy.deepcopy(creation(SPEC))
    host = config.pop("HostConfig")
    host["MaskedPaths"] = [
        *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi"),
        *("/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
    ]
    host["ReadonlyPaths"] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    host |= {"NetworkMode": "default", "Runtime": "runc"}
    api.routes["GET /info"] = answer({"DefaultRuntime": "runc"})
    api.routes[CREATE] = answer({"Id": "abc"}, 201)
    api.routes["GET /containers/abc/json"] = answer({"Image": "sha256:1", "Config": config, "HostConfig": host})
    api.routes["GET /images/sha256:1/json"] = answer({"Config": {"Env": None}})
    api.routes[REMOVE] = answer({}, 200)
    calls = EngineCalls(Endpoint.parse(api.url), timeout_s=5)
    yield calls
    calls.close()


async def test_hands_the_container_to_its_caller(api: DockerApi, calls: EngineCalls) -> None:
    """And to nobody else: it is not removed."""
    assert await calls.run(Creation(SPEC, Known()).run) == "abc"
    assert REMOVE not in api.requests


async def test_every_container_is_read_back_and_its_image_once(api: DockerApi, calls: EngineCalls) -> None:
    """An image's id is a hash of it; after an interruption it is asked for again."""
    known = Known()
    for _ in range(3):
        await calls.run(Creation(SPEC, known).run)
    assert api.requests.count("GET /containers/abc/json") == 3
    assert api.requests.count("GET /images/sha256:1/json") == 1
    known.forget()
    await calls.run(Creation(SPEC, known).run)
    assert api.requests.count("GET /images/sha256:1/json") == 2


async def test_what_was_made_just_now_is_started_without_another_look(api: DockerApi, calls: EngineCalls) -> None:
    """But only once: whoever starts it again has it looked at, for Docker would run an ended one again."""
    del calls
    api.routes["POST /containers/abc/start"] = answer({}, 200)
    engine = DockerEngine(api.url, timeout_s=5)
    try:
        made = await engine.create(SPEC)
        looks = api.requests.count("GET /containers/abc/json")
        await engine.start(made)
        assert api.requests.count("GET /containers/abc/json") == looks
        ended = {"Running": False, "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0, "OOMKilled": False, "Error": ""}
        api.routes["GET /containers/abc/json"] = answer({"Id": "abc", "State": ended})
        with pytest.raises(EngineError, match="has ended"):
            await engine.start(made)
        assert api.requests.count("POST /containers/abc/start") == 1
    finally:
        await engine.aclose()


async def test_what_was_removed_before_its_start_is_forgotten(api: DockerApi, calls: EngineCalls) -> None:
    """It is no more one of those that need no look before they are started; else they would be kept for ever."""
    del calls
    engine = DockerEngine(api.url, timeout_s=5)
    try:
        made = await engine.create(SPEC)
        await engine.remove(made)
        api.routes["GET /containers/abc/json"] = answer({"message": "No such container: abc"}, 404)
        with pytest.raises(ContainerMissing):
            await engine.start(made)
        assert "POST /containers/abc/start" not in api.requests
    finally:
        await engine.aclose()


async def test_removes_what_nobody_waits_for(api: DockerApi, calls: EngineCalls) -> None:
    """The caller went away before it was made: there is nothing for the caller to see to."""
    making = Creation(SPEC, Known())
    assert making.abandon() is None
    with pytest.raises(EngineError, match="nobody waits"):
        await calls.run(making.run)
    assert api.requests.count(REMOVE) == 1


async def test_tells_what_was_made_to_a_caller_that_goes_away_late(api: DockerApi, calls: EngineCalls) -> None:
    """Then exactly one of the two removes it: the caller."""
    making = Creation(SPEC, Known())
    await calls.run(making.run)
    assert making.abandon() == "abc"
    assert REMOVE not in api.requests


async def test_removes_what_is_weaker(api: DockerApi, calls: EngineCalls) -> None:
    """Even where the removal fails, the difference is what is told."""
    api.routes["GET /images/sha256:1/json"] = answer({"Config": {"Env": ["SURPRISE=1"]}})
    api.routes[REMOVE] = answer({"message": "busy"}, 500)
    with pytest.raises(LockdownRefused, match=r"Config\.Env"):
        await calls.run(Creation(SPEC, Known()).run)
    assert api.requests.count(REMOVE) == 1


@pytest.mark.parametrize(
    ("field", "value", "way_out"),
    [
        ("MemorySwap", -1, " (AGP_ACCEPT_DEGRADED=swap accepts that)"),
        ("LogConfig", {"Type": "journald"}, " (AGP_ACCEPT_DEGRADED=log-driver accepts that)"),
        ("ReadonlyRootfs", False, ""),
    ],
)
async def test_names_what_may_be_accepted(
    api: DockerApi, calls: EngineCalls, field: str, value: object, way_out: str
) -> None:
    """Where the engine cannot do better; a weaker root is nothing that anybody can accept."""
    made = json.loads(cast("bytes", api.routes["GET /containers/abc/json"]().body))
    made["HostConfig"][field] = value
    api.routes["GET /containers/abc/json"] = answer(made)
    with pytest.raises(LockdownRefused, match=re.escape(f"HostConfig.{field}; it was removed again{way_out}") + "$"):
        await calls.run(Creation(SPEC, Known()).run)


@pytest.mark.parametrize("lacking", [True, False])
async def test_only_what_the_engine_lacks_is_let_go(api: DockerApi, calls: EngineCalls, *, lacking: bool) -> None:
    """Acceptance alone changes nothing: an engine that can do it must."""
    api.routes["GET /info"] = answer({"SwapLimit": not lacking})
    made = json.loads(cast("bytes", api.routes["GET /containers/abc/json"]().body))
    made["HostConfig"]["MemorySwap"] = -1
    api.routes["GET /containers/abc/json"] = answer(made)
    accepting = Creation(SPEC, Known(), frozenset({Lack.SWAP, Lack.PIDS}))
    if lacking:
        assert await calls.run(accepting.run) == "abc"
    else:
        with pytest.raises(LockdownRefused, match="MemorySwap"):
            await calls.run(accepting.run)


async def test_what_the_engine_cannot_do_is_refused_unless_it_is_accepted(api: DockerApi, calls: EngineCalls) -> None:
    """By its own word, before anything is made: an engine without control groups shows limits that it does not keep."""
    api.routes["GET /info"] = answer({"SwapLimit": False, "PidsLimit": False})
    said = "the engine says that it cannot do: pids (AGP_ACCEPT_DEGRADED=pids,swap accepts that)"
    with pytest.raises(LockdownRefused, match=re.escape(said)):
        await calls.run(Creation(SPEC, Known(), frozenset({Lack.SWAP})).run)
    assert CREATE not in api.requests


async def test_a_missing_runtime_is_told_with_those_that_there_are(api: DockerApi, calls: EngineCalls) -> None:
    """Any other refusal of a container with a runtime is told as it is."""
    api.routes[CREATE] = answer({"message": "Unknown runtime specified runsc"}, 400)
    api.routes["GET /info"] = answer({"Runtimes": {"runc": {}, "crun": {}}})
    with pytest.raises(EngineError, match=r"^the engine has no runtime runsc; it has crun, runc$"):
        await calls.run(Creation(replace(SPEC, runtime="runsc"), Known()).run)
    with pytest.raises(EngineError, match="Unknown runtime specified"):
        await calls.run(Creation(replace(SPEC, runtime="runc"), Known()).run)


async def test_removes_what_cannot_be_read_back(api: DockerApi, calls: EngineCalls) -> None:
    """A container that nobody has checked is not used."""
    api.routes["GET /containers/abc/json"] = answer({"message": "boom"}, 503)
    with pytest.raises(EngineUnavailable):
        await calls.run(Creation(SPEC, Known()).run)
    assert api.requests.count(REMOVE) == 1


async def test_a_container_runs_by_the_default_runtime_as_the_engine_tells_it(
    api: DockerApi, calls: EngineCalls
) -> None:
    """Where its runner names none; an engine that was given another default meanwhile is asked again."""
    known = Known()
    assert await calls.run(Creation(SPEC, known).run) == "abc"
    api.routes["GET /info"] = answer({"DefaultRuntime": "kata"})
    assert await calls.run(Creation(SPEC, known).run) == "abc"
    assert api.requests.count("GET /info") == 1  # not for every container
    made = json.loads(cast("bytes", api.routes["GET /containers/abc/json"]().body))
    made["HostConfig"]["Runtime"] = "kata"
    api.routes["GET /containers/abc/json"] = answer(made)
    assert await calls.run(Creation(SPEC, known).run) == "abc"
    made["HostConfig"]["Runtime"] = "sysbox"
    api.routes["GET /containers/abc/json"] = answer(made)
    with pytest.raises(LockdownRefused, match=r"HostConfig\.Runtime; it was removed again$"):
        await calls.run(Creation(SPEC, known).run)
    assert api.requests.count(REMOVE) == 1


@pytest.mark.parametrize("said", [{}, {"BuildahVersion": ""}, {"BuildahVersion": "1.28.2"}])
async def test_only_podman_may_call_its_runtime_oci(
    api: DockerApi, calls: EngineCalls, said: Mapping[str, str]
) -> None:
    """It calls all of them so; with Docker it is the name that somebody gave to another runtime."""
    api.routes["GET /info"] = answer({"DefaultRuntime": "crun", **said})
    made = json.loads(cast("bytes", api.routes["GET /containers/abc/json"]().body))
    made["HostConfig"]["Runtime"] = "oci"
    api.routes["GET /containers/abc/json"] = answer(made)
    if said.get("BuildahVersion"):
        assert await calls.run(Creation(SPEC, Known()).run) == "abc"
    else:
        with pytest.raises(LockdownRefused, match=r"HostConfig\.Runtime; it was removed again$"):
            await calls.run(Creation(SPEC, Known()).run)


async def test_calls_after_closing_are_refused(calls: EngineCalls) -> None:
    """With a sentence of the port's, not of the thread pool's."""
    await asyncio.to_thread(calls.close)
    with pytest.raises(EngineUnavailable, match="closed"):
        await calls.run(lambda client: client.info())
