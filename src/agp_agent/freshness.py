"""What a container that waits stands on: its image, the files that it mounts, the addresses that it is fenced from.

One that waits is as good as one that is made now only while all of that is the same.
"""

import asyncio
from collections.abc import Iterable

from agp_agent.engine import ContainerEngine, PullPolicy
from agp_agent.errors import EngineError, ImageUnavailable
from agp_agent.executor import Executor, Prepared
from agp_agent.warm import Warm


class Freshness:
    """Knows what the tags of the runners led to when it last looked."""

    def __init__(self, engine: ContainerEngine, executor: Executor) -> None:
        """Nothing was looked at yet."""
        self._engine = engine
        self._executor = executor
        self._images: dict[str, str] = {}

    def is_known(self, names: Iterable[str]) -> bool:
        """Whether all these images were looked at."""
        return self._images.keys() >= set(names)

    def is_there(self, name: str) -> bool:
        """Whether the image was on the engine."""
        return bool(self._images.get(name))

    def is_missing(self, name: str) -> bool:
        """Whether it was looked for, and was not there."""
        return self._images.get(name) == ""

    def is_of_today(self, prepared: Prepared) -> bool:
        """Whether it was made of what its image's name leads to."""
        return self._images.get(prepared.spec.container.image) == prepared.image.image_id

    def note(self, prepared: Prepared) -> None:
        """It was made just now, so this is what its image's name leads to."""
        self._images[prepared.spec.container.image] = prepared.image.image_id

    async def look_at_images(self, names: Iterable[str]) -> None:
        """See what these lead to now. Nothing waits for an image that is not there, and nothing is pulled ahead."""
        for name in names:
            try:
                self._images[name] = (await self._engine.image(name, PullPolicy.NEVER)).image_id
            except ImageUnavailable:
                self._images[name] = ""
            except EngineError:
                return

    async def has_new_ground(self, warm: Warm) -> bool:
        """Whether its mounts lead to other files now, or this machine has other addresses."""
        return bool(await asyncio.to_thread(self._executor.ground, warm.prepared.spec) != warm.ground)
