"""Gives containers of ``outbound`` runners their network: the agent's own bridge, and a fence before their release.

The fence is put up by a helper container that shares the container's network namespace alone. So nothing is needed on
the engine's host: it works from a pod, with an engine beside the agent and with one on another machine.
"""

import contextlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from agp_agent.engine import OWN_IMAGES, Bridge, ContainerEngine, Image, PullPolicy
from agp_agent.errors import EngineError, EngineUnavailable, ImageUnavailable, NotFenced
from agp_agent.fence import Fence, addresses_of_this_machine
from agp_agent.planner import RunSpec

PROGRAM: Final = "/usr/local/bin/agp-fence"
_FIB_TRIE: Final = Path("/proc/net/fib_trie")


def bridge_name(labels: Mapping[str, str]) -> str:
    """What the bridge of the agent with these labels is called."""
    return f"agp-{labels['agp.instance']}"


class Fencing:
    """Makes bridge and fences. Knows no task: a container that was prepared ahead of time is fenced in as any other."""

    def __init__(
        self,
        engine: ContainerEngine,
        labels: Mapping[str, str],
        *,
        image: str,
        deny: tuple[IPv4Network, ...] = (),
        fib_trie: Path = _FIB_TRIE,
    ) -> None:
        """``labels`` are the agent's own; ``deny`` is public and refused all the same; ``image`` is the helper's."""
        self._engine = engine
        self._labels = labels
        self._deny = deny
        self._fib_trie = fib_trie
        self._has_bridge = False
        self.image = image
        # The helper is root with NET_ADMIN: nothing of the agent's own name is ever taken from a registry.
        self._pull = PullPolicy.NEVER if image.startswith(OWN_IMAGES) else PullPolicy.MISSING
        self.bridge_name = bridge_name(labels)

    async def bridge(self) -> Bridge:
        """The agent's bridge, made where it is missing and compared in any case.

        Raises:
            NotFenced: it cannot be made, or is not as it should be.
            EngineUnavailable: the engine does not answer.
        """
        try:
            bridge = await self._engine.ensure_bridge(self.bridge_name, self._labels)
        except EngineUnavailable:
            raise
        except EngineError as error:
            raise NotFenced(f"the runner has no network: {error}") from error
        self._has_bridge = True  # it is the agent's own: one of somebody else is never removed
        return bridge

    def own_addresses(self) -> tuple[IPv4Address, ...]:
        """The addresses of the machine, or the container, that this agent runs in."""
        return addresses_of_this_machine(self._fib_trie.read_text())

    async def find_image(self) -> Image:
        """The helper's image. Raises ``ImageUnavailable``: it is not there, and may not or cannot be pulled."""
        return await self._engine.image(self.image, self._pull)

    async def fence_for(self, spec: RunSpec, uid: int) -> Fence:
        """The fence of a container of this plan, as it would be now."""
        deny = (*self._deny, *(IPv4Network(address) for address in self.own_addresses()))
        return Fence(await self.bridge(), uid, spec.allow, deny)

    async def fence_in(self, container_id: str, spec: RunSpec, uid: int) -> Fence:
        """Put the fence up in a started container that was not released yet, and see that it stands.

        Raises:
            NotFenced: it does not stand; the container must not be released.
            EngineUnavailable: the engine does not answer.
        """
        fence = await self.fence_for(spec, uid)
        try:
            image = await self.find_image()
            helped = await self._engine.run_beside(container_id, image.image_id, (PROGRAM, *fence.rules), self._labels)
        except EngineUnavailable:
            raise
        except ImageUnavailable as error:
            raise NotFenced(f"the runner's network cannot be fenced in: {error}; AGP_FENCE_IMAGE names it") from error
        except EngineError as error:
            raise NotFenced(f"the runner's network cannot be fenced in: {error}") from error
        if helped.exit_code != 0:
            why = " ".join(helped.output.split())[-500:] or "it said nothing"
            raise NotFenced(f"the runner's network was not fenced in: its helper ended with {helped.exit_code} ({why})")
        if not fence.stands(helped.output):
            raise NotFenced("the runner's network was not fenced in: the kernel does not show the rules it was given")
        return fence

    async def aclose(self) -> None:
        """Remove the bridge, unless a container that is left to the next agent still uses it. Idempotent."""
        if self._has_bridge:
            self._has_bridge = False
            with contextlib.suppress(EngineError):
                await self._engine.remove_bridge(self.bridge_name)
