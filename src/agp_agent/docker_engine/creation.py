"""Creating one container: ask, read back, compare, and leave nothing behind where that went wrong."""

import threading
from contextlib import suppress

from docker import APIClient
from docker.errors import APIError

from agp_agent.docker_engine.http import create_container
from agp_agent.docker_engine.read_back import Known, not_asked_for, read_back
from agp_agent.docker_engine.translate import FIELDS_OF, Json, creation
from agp_agent.engine import ContainerSpec
from agp_agent.errors import EngineError, LockdownRefused
from agp_agent.lacks import Lack


class Creation:
    """Runs in a thread, while its caller may go away: then whoever learns it last removes the container."""

    def __init__(self, spec: ContainerSpec, known: Known, accepted: frozenset[Lack] = frozenset()) -> None:
        """``accepted``: what the container may lack where the engine cannot do it; ``known``: what need not be asked.

        The container itself is read back each time.
        """
        self._spec = spec
        self._known = known
        self._accepted = accepted
        self._lock = threading.Lock()
        self._abandoned = False
        self._made: str | None = None

    def abandon(self) -> str | None:
        """The caller goes away. Returns the container that is already made: the caller must see to its removal."""
        with self._lock:
            self._abandoned = True
            return self._made

    def run(self, client: APIClient) -> str:
        """Create and check the container. Blocks."""
        if not self._spec.name:
            raise EngineError("a container needs a name: the engine would invent one, and no second could be refused")
        body = creation(self._spec, not_asked_for(client, self._accepted, self._known))
        container_id = self._create(client, body)
        try:
            self._compare(client, body, container_id)
            self._hand_over(container_id)
        except BaseException:
            _remove(client, container_id)
            raise
        return container_id

    def _create(self, client: APIClient, body: Json) -> str:
        try:
            return create_container(client, body, self._spec.name)
        except APIError as error:
            runtime = self._spec.runtime
            if runtime is None or runtime in (known := client.info().get("Runtimes") or {}):
                raise
            raise EngineError(f"the engine has no runtime {runtime}; it has {', '.join(sorted(known))}") from error

    def _compare(self, client: APIClient, body: Json, container_id: str) -> None:
        if wrong := read_back(client, body, container_id, self._known):
            raise LockdownRefused(
                f"the engine made a container that differs from what was asked for in {', '.join(wrong)}; "
                f"it was removed again{_way_out(wrong)}",
            )

    def _hand_over(self, container_id: str) -> None:
        with self._lock:
            if self._abandoned:
                raise EngineError("nobody waits for this container any more")
            self._made = container_id


def _way_out(wrong: tuple[str, ...]) -> str:
    """What an operator can do where the engine cannot do better: accept it, if that is all."""
    names: dict[str, Lack] = {
        f"HostConfig.{field}": lack for lack, (*_, field) in FIELDS_OF.items() if lack is not Lack.MEMORY
    }
    names["HostConfig.Memory"] = Lack.MEMORY
    if not all(field in names for field in wrong):
        return ""
    return f" (AGP_ACCEPT_DEGRADED={','.join(sorted({names[field] for field in wrong}))} accepts that)"


def _remove(client: APIClient, container_id: str) -> None:
    """Remove it as far as the engine lets us: the error that led here is the one to be told."""
    with suppress(APIError, OSError):
        client.remove_container(container_id, v=True, force=True)
