"""The port's verbs where the real engine cannot be made to misbehave."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from agp_agent.docker_engine import DockerEngine
from agp_agent.engine import Signal
from agp_agent.errors import EngineError, EngineUnavailable, LockdownRefused
from fakes.docker_api import Answer, DockerApi, Route, answer

INSPECT = "GET /containers/abc/json"
REMOVE = "DELETE /containers/abc"
START = "POST /containers/abc/start"
KILL = "POST /containers/abc/kill"


def state(*, running: bool, code: int = 0, profile: str = "", oom: bool = False) -> Route:
    """An inspect answer."""
    said = {"Running": running, "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": code, "OOMKilled": oom, "Error": ""}
    return answer({"Id": "abc", "State": said, "AppArmorProfile": profile})


def refusal(status: int, sentence: str) -> Route:
    """The engine says no."""
    return answer({"message": sentence}, status)


def in_turn(*routes: Route) -> Route:
    """One answer after the other; the last one for ever."""
    rest: Iterator[Route] = iter(routes[:-1])

    def turn() -> Answer:
        return next(rest, routes[-1])()

    return turn


@pytest.fixture
async def engine(api: DockerApi) -> AsyncIterator[DockerEngine]:
    """The adapter on the stand-in."""
    engine = DockerEngine(api.url, timeout_s=5)
    yield engine
    await engine.aclose()


async def test_a_removal_under_way_is_waited_for(api: DockerApi, engine: DockerEngine) -> None:
    """The name is only free when the other removal has come to its end."""
    under_way = refusal(409, "removal of container abc is already in progress")
    api.routes[REMOVE] = in_turn(under_way, under_way, refusal(404, "No such container: abc"))
    await engine.remove("abc")
    assert api.requests.count(REMOVE) == 3


async def test_a_refused_removal_is_told(api: DockerApi, engine: DockerEngine) -> None:
    """A file system that is busy, for example."""
    api.routes[REMOVE] = refusal(500, "driver failed to remove root filesystem: device or resource busy")
    with pytest.raises(EngineError, match="device or resource busy"):
        await engine.remove("abc")


async def test_a_signal_that_is_refused_although_it_runs_is_an_error(api: DockerApi, engine: DockerEngine) -> None:
    """Not "it does not run": somebody might take that for its end."""
    api.routes[KILL] = refusal(500, "cannot kill container")
    api.routes[INSPECT] = state(running=True)
    with pytest.raises(EngineError, match="cannot kill container"):
        await engine.signal("abc", Signal.KILL)


async def test_a_signal_that_comes_too_late_reaches_nobody(api: DockerApi, engine: DockerEngine) -> None:
    """Whatever words the engine finds for it."""
    api.routes[KILL] = refusal(500, "process already finished")
    api.routes[INSPECT] = state(running=False)
    assert not await engine.signal("abc", Signal.KILL)


async def test_wait_asks_again_where_the_engine_could_not_answer(api: DockerApi, engine: DockerEngine) -> None:
    """Also without any event."""
    api.routes[INSPECT] = in_turn(refusal(503, "starting"), state(running=False, code=3))
    assert (await engine.wait("abc")).exit_code == 3


async def test_that_memory_was_the_reason_may_be_told_after_the_end(api: DockerApi, engine: DockerEngine) -> None:
    """A bare 137 is looked at once more, and no other end is; where that fails, what is known stands."""
    bare, told = state(running=False, code=137), state(running=False, code=137, oom=True)
    api.routes[INSPECT] = in_turn(bare, told)
    assert (await engine.wait("abc")).oom_killed
    api.routes[INSPECT] = in_turn(bare, refusal(404, "No such container: abc"))
    assert ((ended := await engine.wait("abc")).exit_code, ended.oom_killed) == (137, False)
    api.requests.clear()
    api.routes[INSPECT] = state(running=False, code=143)
    assert (await engine.wait("abc")).exit_code == 143
    assert api.requests.count(INSPECT) == 1


async def test_wait_looks_twice_where_an_event_came_too_early(api: DockerApi, engine: DockerEngine) -> None:
    """The engine told the end before its own inspect knew of it."""

    async def one_event() -> AsyncIterator[bytes]:
        yield b'{"Type":"container","Action":"die","Actor":{"ID":"abc"}}\n'
        await asyncio.Event().wait()

    api.routes["GET /events"] = lambda: Answer(200, one_event())
    running = state(running=True)
    api.routes[INSPECT] = in_turn(running, running, state(running=False, code=4))
    waiter = asyncio.create_task(engine.wait("abc"))
    await api.asked(INSPECT)
    await engine.open()
    assert (await waiter).exit_code == 4


async def test_history_ends_at_the_engines_own_clock(api: DockerApi, engine: DockerEngine) -> None:
    """So that the engine neither waits for the future nor leaves out what just happened."""
    api.routes["GET /info"] = answer({"SystemTime": "2026-01-01T00:00:00.5Z"})
    api.routes["GET /events"] = answer({"Action": "kill", "Actor": {"ID": "abc"}})
    assert (await engine.history("abc")).kills == 1
    assert "until=1767225600.500000000" in api.queries[-1]


async def test_an_engine_that_is_too_old_is_told(api: DockerApi, engine: DockerEngine) -> None:
    """Trying again would not help: it is no absence."""
    api.routes["GET /version"] = answer({"ApiVersion": "1.12"})
    with pytest.raises(EngineError, match="too old") as caught:
        await engine.describe()
    assert not isinstance(caught.value, EngineUnavailable)


async def test_the_engine_that_answers_now_is_asked_for_its_version(api: DockerApi, engine: DockerEngine) -> None:
    """It may have been exchanged while it was away."""
    api.routes["GET /events"] = lambda: Answer(200, _silence())
    await engine.open()
    with pytest.raises(EngineError):
        await engine.describe()
    asked = api.requests.count("GET /version")
    with engine._events.waiting("any") as contact:
        await api.close()
        await api.open()
        await contact.wait()
    with pytest.raises(EngineError):
        await engine.describe()
    assert api.requests.count("GET /version") >= asked + 2


async def _silence() -> AsyncIterator[bytes]:
    """A stream on which nothing happens."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("profile", ["", "unconfined", "lets-everything", "docker-default"])
async def test_a_started_container_is_confined_where_the_engine_has_apparmor(
    api: DockerApi, engine: DockerEngine, profile: str
) -> None:
    """Docker names the profile only then; one that has another is removed before it gets its release."""
    api.routes["GET /info"] = answer({"SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin"]})
    api.routes |= {START: answer({}, 204), REMOVE: answer({}, 204)}
    api.routes[INSPECT] = state(running=True, profile=profile)
    if profile == "docker-default":
        await engine.start("abc")
    else:
        with pytest.raises(LockdownRefused, match=f"AppArmor profile {profile or 'none'} instead of its own"):
            await engine.start("abc")
    assert (REMOVE in api.requests) == (profile != "docker-default")


async def test_without_apparmor_there_is_no_second_look(api: DockerApi, engine: DockerEngine) -> None:
    """Every start is in somebody's way."""
    api.routes["GET /info"] = answer({"SecurityOptions": ["name=seccomp,profile=builtin"]})
    api.routes |= {START: answer({}, 204), INSPECT: state(running=True)}
    await engine.start("abc")
    await engine.start("abc")
    assert (api.requests.count(INSPECT), api.requests.count("GET /info")) == (2, 1)
