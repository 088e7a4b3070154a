"""Images: found on the engine, or pulled, once for any number of waiters."""

import asyncio
import threading
import time
from contextlib import suppress
from typing import TypeAlias

from docker import APIClient
from docker.auth import resolve_repository_name
from docker.errors import APIError, DockerException, ImageNotFound, InvalidRepository
from docker.types.daemon import CancellableStream
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException

from agp_agent.docker_engine import credentials, reading
from agp_agent.docker_engine.calls import EngineCalls
from agp_agent.docker_engine.credentials import CredentialsUnusable
from agp_agent.docker_engine.errors import explanation
from agp_agent.docker_engine.http import inspect_image, json_lines, url
from agp_agent.docker_engine.translate import Json
from agp_agent.engine import Image, PullPolicy
from agp_agent.errors import ImageUnavailable

_Progress: TypeAlias = "CancellableStream[Json]"  # a string: only the stubs make it generic
_IMAGE_ID = "sha256:"
_PULLS_AT_ONCE = 2
"""Pulls take minutes: they may not take all threads of the engine."""


class Images:
    """Finds images, and lets all who want the same missing one wait for one pull."""

    def __init__(self, calls: EngineCalls, pull_timeout_s: float) -> None:
        self._calls = calls
        self._pull_timeout_s = pull_timeout_s
        self._pulling: dict[str, tuple[asyncio.Task[None], _Pull]] = {}
        self._slots = asyncio.Semaphore(_PULLS_AT_ONCE)

    async def get(self, name: str, policy: PullPolicy) -> Image:
        """Find the image, or fetch it as the policy allows. What is named by its id alone is in no registry."""
        by_id = name.startswith(_IMAGE_ID)
        always = policy is PullPolicy.ALWAYS and not by_id
        found = None if always else await self._calls.run(lambda client: _find(client, name))
        if found is None and policy is not PullPolicy.NEVER and not by_id:
            await self._pulled(name)
            found = await self._calls.run(lambda client: _find(client, name))
        if found is None:
            raise _unavailable(name, f"it is not on the engine, and its pull policy is {policy}")
        return found

    async def aclose(self) -> None:
        """Give up all pulls. Idempotent."""
        tasks = [task for task, _ in self._pulling.values()]
        for task, pull in self._pulling.values():
            pull.give_up()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pulled(self, name: str) -> None:
        if name not in self._pulling:
            pull = _Pull(name, self._pull_timeout_s)
            task = asyncio.create_task(self._pull(pull), name=f"pull {name}")
            self._pulling[name] = task, pull
            task.add_done_callback(lambda done: self._forget(name, done))
        task, _ = self._pulling[name]
        await asyncio.shield(task)

    def _forget(self, name: str, done: asyncio.Task[None]) -> None:
        del self._pulling[name]
        if not done.cancelled():
            done.exception()  # where every waiter was cancelled, nobody else looks at it

    async def _pull(self, pull: "_Pull") -> None:
        async with self._slots:
            try:
                async with asyncio.timeout(self._pull_timeout_s):
                    await self._calls.run(pull.run)
            except TimeoutError as error:
                pull.give_up()
                raise _unavailable(pull.name, f"pulling it took longer than {self._pull_timeout_s:g} s") from error


class _Pull:
    """One pull, in one thread, that another thread can end.

    Not the SDK's ``pull``: that one waits for ever, and cannot be ended from outside.
    """

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._given_up = threading.Event()
        self._stream: _Progress | None = None

    def give_up(self) -> None:
        """End it now."""
        self._given_up.set()
        if self._stream is not None:
            with suppress(OSError, DockerException, ValueError, AttributeError):
                self._stream.close()

    def run(self, client: APIClient) -> None:
        """Pull to the end. Blocks."""
        try:
            self._run(client)
        except APIError as error:
            raise _unavailable(self.name, explanation(error)) from error
        except (RequestException, OSError, ValueError, AttributeError) as error:
            if not self._given_up.is_set():
                raise
            raise _unavailable(self.name, "its pull was given up") from error

    def _run(self, client: APIClient) -> None:
        repository, tag = parse_repository_tag(self.name)
        try:
            registry, _ = resolve_repository_name(repository)
            header = credentials.header_for(registry)
        except InvalidRepository as error:
            raise _unavailable(self.name, f"this is no name of an image ({error})") from error
        except CredentialsUnusable as error:
            raise _unavailable(self.name, str(error)) from error
        response = client.post(
            url(client, "images", "create"),
            params={"fromImage": repository, "tag": tag or "latest"},
            headers={"X-Registry-Auth": header} if header else {},
            stream=True,
            timeout=(client.timeout, self._timeout_s),
        )
        with response:
            self._stream = json_lines(response)
            self._follow(self._stream)

    def _follow(self, progress: _Progress) -> None:
        """Read the progress, in which the engine hides errors behind its 200."""
        deadline = time.monotonic() + self._timeout_s
        for line in progress:
            if "error" in line:
                raise _unavailable(self.name, " ".join(str(line["error"]).split()))
            if self._given_up.is_set() or time.monotonic() > deadline:
                raise _unavailable(self.name, "its pull was given up")


def _find(client: APIClient, name: str) -> Image | None:
    try:
        image = reading.image(name, inspect_image(client, name))
    except ImageNotFound:
        return None
    _, pin = reading.repository_and_pin(name)
    if pin is not None and image.digest != pin:
        raise _unavailable(name, f"the engine has {image.digest} in its place, and it is not used")
    return image


def _unavailable(name: str, reason: str) -> ImageUnavailable:
    return ImageUnavailable(f"image {name} is not available: {reason}", reason)
