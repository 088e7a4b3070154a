"""Calls are counted by what was asked and how that went, and go through as they are."""

import asyncio

import pytest

from agp_agent.counted_engine import CALLS, counted
from agp_agent.errors import ContainerMissing, EngineError, EngineUnavailable
from fakes.fake_engine import FakeEngine
from fakes.fake_host import FakeHost


async def test_calls_are_counted_by_how_they_went() -> None:
    """The answer and the error are the engine's own."""
    inside = FakeEngine(FakeHost())
    engine, calls = counted(inside)
    assert await engine.describe() == await inside.describe()
    assert isinstance(engine.image_news(), asyncio.Event)
    await engine.remove("nobody")
    for error, result in (
        (EngineUnavailable("away"), "unavailable"),
        (ContainerMissing("gone"), "missing"),
        (EngineError("no"), "refused"),
    ):

        async def fails(_container_id: str, error: EngineError = error) -> None:
            raise error

        failing, seen = counted(inside)
        inside.remove = fails  # type: ignore[method-assign,assignment]
        with pytest.raises(type(error)):
            await failing.remove("c")
        assert dict(seen) == {("remove", result): 1}
    assert dict(calls) == {("describe", "ok"): 1, ("remove", "ok"): 1}


def test_every_call_of_the_port_is_counted() -> None:
    """A closed list, so that the number of series is."""
    assert {"create", "start", "wait", "signal", "log", "remove", "describe", "image", "owned", "history"} <= set(CALLS)
    assert not {"open", "aclose", "epoch", "image_news"} & set(CALLS)
