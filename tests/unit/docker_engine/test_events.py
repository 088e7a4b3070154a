"""The event stream and those who wait for it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import pytest

from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.events import EventWatch
from fakes.docker_api import Answer, DockerApi


class Stream:
    """An event stream that says what it is told."""

    def __init__(self, api: DockerApi) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        api.routes["GET /events"] = lambda: Answer(200, self._chunks())

    def say(self, container_id: str, action: str = "die") -> None:
        """Send an event."""
        event = {"Type": "container", "Action": action, "Actor": {"ID": container_id}}
        self._queue.put_nowait(json.dumps(event).encode() + b"\n")

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._queue.get()


@pytest.fixture
def stream(api: DockerApi) -> Stream:
    """What the stand-in's event stream says."""
    return Stream(api)


@pytest.fixture
async def watch(api: DockerApi) -> AsyncIterator[EventWatch]:
    """A watch on the stand-in."""
    contacts: list[None] = []
    watch = EventWatch(lambda: Endpoint.parse(api.url).client(5), lambda: contacts.append(None))
    yield watch
    await asyncio.to_thread(watch.close)


async def rung(bell: asyncio.Event) -> None:
    """Wait for the bell, and reset it."""
    async with asyncio.timeout(10):
        await bell.wait()
    bell.clear()


async def test_wakes_whose_container_ended(watch: EventWatch, stream: Stream) -> None:
    """Only those who wait for that container; all of them."""
    with watch.waiting("a") as one, watch.waiting("a") as two, watch.waiting("b") as other:
        watch.start()
        await asyncio.gather(rung(one), rung(two), rung(other))  # contact
        stream.say("a")
        await asyncio.gather(rung(one), rung(two))
        assert not other.is_set()
        stream.say("b", "destroy")
        await rung(other)


async def test_events_of_strangers_are_ignored(watch: EventWatch, stream: Stream) -> None:
    """Nobody waits for them."""
    with watch.waiting("a") as bell:
        watch.start()
        await rung(bell)
        stream.say("stranger")
        stream.say("a")
        await rung(bell)


async def test_an_unbroken_stream_is_one_epoch(watch: EventWatch, stream: Stream) -> None:
    """However many events come."""
    watch.start()
    await watch.first_attempt()
    before = watch.epoch
    with watch.waiting("a") as bell:
        stream.say("a")
        await rung(bell)
    assert watch.epoch == before


@pytest.mark.usefixtures("stream")
async def test_a_break_is_a_new_epoch_and_wakes_everybody(watch: EventWatch, api: DockerApi) -> None:
    """What happened in between was missed: all must look again."""
    with watch.waiting("a") as bell:
        watch.start()
        await rung(bell)
        before = watch.epoch
        await api.close()
        await api.open()
        await rung(bell)
        assert watch.epoch > before


async def test_a_kill_is_remembered_after_the_engine_that_told_of_it(
    watch: EventWatch, api: DockerApi, stream: Stream
) -> None:
    """An engine that is stopped kills its containers, tells of it, and is gone; nobody is woken by that alone."""
    with watch.waiting("a") as bell:
        watch.start()
        await rung(bell)
        stream.say("a", "kill")
        stream.say("b")
        stream.say("a")
        await rung(bell)
        await api.close()
        await api.open()
        await rung(bell)
        assert (watch.killed("a"), watch.killed("b")) == (True, False)


async def test_without_contact_no_two_epochs_are_equal(watch: EventWatch, api: DockerApi) -> None:
    """Nobody can say whether it is the same engine."""
    await api.close()
    watch.start()
    await watch.first_attempt()
    assert watch.epoch < watch.epoch < watch.epoch


async def test_an_engine_that_comes_later_is_found(watch: EventWatch, api: DockerApi, stream: Stream) -> None:
    """The watch never gives up."""
    await api.close()
    with watch.waiting("a") as bell:
        watch.start()
        await watch.first_attempt()
        await api.open()
        await rung(bell)
        stream.say("a")
        await rung(bell)


async def test_every_contact_is_reported(api: DockerApi, stream: Stream) -> None:
    """So that calls too are made with the engine that answers now."""
    contacts: list[str] = []
    watch = EventWatch(
        lambda: Endpoint.parse(api.url).client(5), lambda: contacts.append(threading.current_thread().name)
    )
    watch.start()
    await watch.first_attempt()
    with watch.waiting("a") as bell:
        stream.say("a")
        await rung(bell)
    await asyncio.to_thread(watch.close)
    assert contacts == ["engine-events"]


async def test_an_engine_without_events_is_no_contact(watch: EventWatch) -> None:
    """A refusal of the stream is waited out like an absent engine."""
    watch.start()
    await watch.first_attempt()
    assert watch.epoch < watch.epoch


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("absent", [False, True])
async def test_closing_ends_the_thread(watch: EventWatch, api: DockerApi, *, absent: bool) -> None:
    """In the middle of a stream, and while the engine is away; twice is once."""
    if absent:
        await api.close()
    watch.start()
    watch.start()
    await watch.first_attempt()
    await asyncio.to_thread(watch.close)
    await asyncio.to_thread(watch.close)
    assert not any(thread.name == "engine-events" for thread in threading.enumerate())


async def test_closing_what_never_began_is_nothing(api: DockerApi) -> None:
    """An engine that was never opened has no thread."""
    EventWatch(lambda: Endpoint.parse(api.url).client(5), lambda: None).close()
