"""Reads a container back from the engine and compares it with what was asked for. Calls block."""

import threading
from typing import Any, Final

from docker import APIClient

from agp_agent.docker_engine.http import inspect_image
from agp_agent.docker_engine.reading import lacks
from agp_agent.docker_engine.translate import Json, confined_by_apparmor, differences
from agp_agent.errors import LockdownRefused
from agp_agent.lacks import Lack, listed

_RUNTIME: Final = "HostConfig.Runtime"
_PODMANS_RUNTIME: Final = "oci"
"""What Podman calls the runtime of every container, where Docker names the one that it has."""
_CONFIGS_MAX: Final = 64
"""Images in use at a time are far fewer."""


class Known:
    """What the engine says of itself and its images, asked once for each contact: each container is held against it."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._info: Json = {}
        self._configs: dict[str, Json] = {}  # of several threads, so each step stands by itself

    def forget(self) -> None:
        """The engine was away: the next one may be another."""
        with self._lock:
            self._client = None
        self._configs.clear()

    def image_config(self, client: APIClient, image_id: str) -> Json:
        """What an image brings with it, by its id: that is a hash of it."""
        config = self._configs.get(image_id)
        if config is None:
            config = inspect_image(client, image_id)["Config"]
            if len(self._configs) >= _CONFIGS_MAX:
                self._configs.clear()
            self._configs[image_id] = config
        return config

    def default_runtimes(self, client: APIClient, *, anew: bool = False) -> frozenset[str]:
        """Its names for what runs containers that ask for no other; ``anew``: it may have been set again meanwhile.

        None where it does not tell.
        """
        told = self._told(client, anew=anew)
        default = told.get("DefaultRuntime")
        if not default:
            return frozenset()
        is_podman = bool(told.get("BuildahVersion"))  # Docker's answer has no such field
        return frozenset({default, _PODMANS_RUNTIME} if is_podman else {default})

    def lacks(self, client: APIClient) -> frozenset[Lack]:
        """What it says that it cannot do."""
        return lacks(self._told(client))

    def has_apparmor(self, client: APIClient) -> bool:
        """Whether its containers are confined by AppArmor."""
        return any(str(one).startswith("name=apparmor") for one in self._told(client).get("SecurityOptions") or ())

    def _told(self, client: APIClient, *, anew: bool = False) -> Any:
        with self._lock:
            if client is self._client and not anew:
                return self._info
        info: Json = client.info()
        with self._lock:
            self._client, self._info = client, info
        return info


def not_asked_for(client: APIClient, accepted: frozenset[Lack], known: Known) -> frozenset[Lack]:
    """What the engine cannot do and its operator accepts to be missing.

    Raises:
        LockdownRefused: it says that it cannot do something else, too. An engine without control groups takes a limit,
            shows it when it is read back, and holds no container to it.
    """
    lacking = known.lacks(client)
    if refused := lacking - accepted:
        raise LockdownRefused(
            f"the engine says that it cannot do: {listed(refused)} "
            f"(AGP_ACCEPT_DEGRADED={','.join(sorted(lacking))} accepts that)"
        )
    return lacking


def read_back(client: APIClient, asked: Json, container_id: str, known: Known) -> tuple[str, ...]:
    """Names of the fields in which a container that was made, and not started, differs from what was asked for."""
    inspected = client.inspect_container(container_id)
    image = known.image_config(client, inspected["Image"])
    wrong = differences(asked, inspected, image, known.default_runtimes(client))
    if _RUNTIME in wrong:  # engines take another default without a restart
        wrong = differences(asked, inspected, image, known.default_runtimes(client, anew=True))
    return wrong


def check_apparmor(client: APIClient, container_id: str, known: Known) -> None:
    """See that a container that was just started is confined, where the engine has AppArmor.

    It cannot be asked for before: Docker chooses the profile at the start.

    Raises:
        LockdownRefused: it is not; it was killed.
    """
    if not known.has_apparmor(client):
        return
    inspected = client.inspect_container(container_id)
    if confined_by_apparmor(inspected):
        return
    client.remove_container(container_id, v=True, force=True)
    profile = inspected.get("AppArmorProfile") or "none"
    raise LockdownRefused(
        f"the engine started a container under the AppArmor profile {profile} instead of its own; it was removed again"
    )
