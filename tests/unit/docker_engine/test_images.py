"""Finding and pulling images."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.docker_engine.calls import EngineCalls
from agp_agent.docker_engine.endpoint import Endpoint
from agp_agent.docker_engine.images import Images
from agp_agent.engine import PullPolicy
from agp_agent.errors import EngineUnavailable, ImageUnavailable
from fakes.docker_api import Answer, DockerApi, Route, answer

NAME = "registry.test/agp/x:1"
PINNED = "registry.test/agp/x@sha256:3"
FOUND = answer({"Id": "sha256:1", "RepoDigests": ["registry.test/agp/x@sha256:2"]})
INSPECT = f"GET /images/{NAME}/json"
PULL = "POST /images/create"


def pulling(api: DockerApi, *lines: dict[str, str], arrives: bool = True) -> Route:
    """A pull that says these lines, after which the image is there."""

    async def chunks() -> AsyncIterator[bytes]:
        for line in lines:
            await asyncio.sleep(0.01)
            yield json.dumps(line).encode() + b"\r\n"
        if arrives:
            api.routes[INSPECT] = FOUND

    return lambda: Answer(200, chunks())


async def forever() -> AsyncIterator[bytes]:
    """A pull that says one thing and then nothing more."""
    yield b'{"status":"Pulling"}\r\n'
    await asyncio.Event().wait()


@pytest.fixture
async def images(api: DockerApi) -> AsyncIterator[Images]:
    """Images of the stand-in, which has none yet."""
    api.routes[INSPECT] = answer({"message": f"No such image: {NAME}"}, 404)
    calls = EngineCalls(Endpoint.parse(api.url), timeout_s=5)
    images = Images(calls, pull_timeout_s=0.5)
    yield images
    await images.aclose()
    await asyncio.to_thread(calls.close)


async def test_one_pull_serves_all_who_wait(api: DockerApi, images: Images) -> None:
    """Also when one of them goes away."""
    api.routes[PULL] = pulling(api, {"status": "Pulling"}, {"status": "Done"})
    first, *others = [asyncio.create_task(images.get(NAME, PullPolicy.MISSING)) for _ in range(5)]
    await api.asked(PULL)
    first.cancel()
    found = await asyncio.gather(*others)
    assert {image.digest for image in found} == {"sha256:2"}
    assert api.requests.count(PULL) == 1


async def test_always_pulls_what_is_there(api: DockerApi, images: Images) -> None:
    """Each time anew."""
    api.routes[INSPECT] = FOUND
    api.routes[PULL] = pulling(api, {"status": "Image is up to date"})
    await images.get(NAME, PullPolicy.ALWAYS)
    await images.get(NAME, PullPolicy.ALWAYS)
    assert api.requests.count(PULL) == 2


async def test_missing_does_not_pull_what_is_there(api: DockerApi, images: Images) -> None:
    """The registry is not asked."""
    api.routes[INSPECT] = FOUND
    await images.get(NAME, PullPolicy.MISSING)
    assert PULL not in api.requests


async def test_never_does_not_pull(api: DockerApi, images: Images) -> None:
    """And says why there is no image."""
    with pytest.raises(ImageUnavailable, match="its pull policy is never"):
        await images.get(NAME, PullPolicy.NEVER)
    assert PULL not in api.requests


async def test_an_error_inside_the_answer_is_seen(api: DockerApi, images: Images) -> None:
    """The engine hides it behind a 200."""
    api.routes[PULL] = pulling(api, {"status": "Pulling"}, {"error": "toomanyrequests:\n slow down"}, arrives=False)
    with pytest.raises(ImageUnavailable, match="is not available: toomanyrequests: slow down"):
        await images.get(NAME, PullPolicy.MISSING)


async def test_a_refusal_is_told(api: DockerApi, images: Images) -> None:
    """In the engine's words; a later attempt pulls again."""
    api.routes[PULL] = answer({"message": "pull access denied"}, 404)
    with pytest.raises(ImageUnavailable, match="pull access denied"):
        await images.get(NAME, PullPolicy.MISSING)
    api.routes[PULL] = pulling(api)
    assert (await images.get(NAME, PullPolicy.MISSING)).digest == "sha256:2"


async def test_an_image_that_does_not_come_by_its_pull_is_told(api: DockerApi, images: Images) -> None:
    """A registry that says yes and brings nothing."""
    api.routes[PULL] = pulling(api, {"status": "Done"}, arrives=False)
    with pytest.raises(ImageUnavailable):
        await images.get(NAME, PullPolicy.MISSING)


async def test_an_image_of_another_digest_is_not_used(api: DockerApi, images: Images) -> None:
    """Whatever the engine takes for the one that was asked for."""
    api.routes[f"GET /images/{PINNED.replace('@', '%40')}/json"] = FOUND
    with pytest.raises(ImageUnavailable, match="the engine has sha256:2 in its place, and it is not used"):
        await images.get(PINNED, PullPolicy.NEVER)


async def test_an_image_that_is_named_by_its_id_is_never_pulled(api: DockerApi, images: Images) -> None:
    """No registry has it; Docker Hub would be asked for a repository called sha256."""
    api.routes["GET /images/sha256:9/json"] = answer({"message": "No such image: sha256:9"}, 404)
    for policy in PullPolicy:
        with pytest.raises(ImageUnavailable, match="it is not on the engine"):
            await images.get("sha256:9", policy)
    api.routes["GET /images/sha256:9/json"] = answer({"Id": "sha256:9", "RepoDigests": None})
    for policy in PullPolicy:
        assert (await images.get("sha256:9", policy)).digest == "sha256:9"
    assert "POST /images/create" not in api.requests


async def test_a_name_that_is_none_is_told(api: DockerApi, images: Images) -> None:
    """It is the image that is wrong, not the engine."""
    api.routes["GET /images/https://registry.test/x/json"] = answer({"message": "No such image"}, 404)
    with pytest.raises(ImageUnavailable, match="this is no name of an image"):
        await images.get("https://registry.test/x", PullPolicy.MISSING)


async def test_credentials_that_cannot_be_had_are_told(
    api: DockerApi, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the registry is asked; calls that need none go on."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"auths": {"registry.test": {"auth": "?"}}}')
    with pytest.raises(ImageUnavailable, match=f"image {NAME} is not available: {tmp_path}/config.json cannot be used"):
        await images.get(NAME, PullPolicy.MISSING)
    assert PULL not in api.requests
    api.routes[INSPECT] = FOUND
    assert (await images.get(NAME, PullPolicy.MISSING)).digest == "sha256:2"


async def test_a_pull_is_bounded_in_time(api: DockerApi, images: Images) -> None:
    """One that stands still is given up, and its thread is free again."""
    api.routes[PULL] = lambda: Answer(200, forever())
    with pytest.raises(ImageUnavailable, match="took longer than"):
        await images.get(NAME, PullPolicy.MISSING)


async def test_closing_gives_pulls_up(api: DockerApi, images: Images) -> None:
    """At once, not after their time."""
    api.routes[PULL] = lambda: Answer(200, forever())
    waiter = asyncio.create_task(images.get(NAME, PullPolicy.MISSING))
    await api.asked(PULL)
    await images.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_an_absent_engine_is_not_a_missing_image(api: DockerApi, images: Images) -> None:
    """The image may well be there: only the engine is not."""
    await api.close()
    with pytest.raises(EngineUnavailable):
        await images.get(NAME, PullPolicy.MISSING)
