"""The engine as a test sees it: beside the agent, through a client of its own."""

import contextlib
from collections.abc import Iterator
from typing import Any, Self

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from support.waiting import eventually


class EngineSide:
    """Looks at what an agent made on the engine, and disturbs it."""

    def __init__(self, docker_host: str | None = None) -> None:
        """Connect to the engine that the environment names, or to the one at an address as DOCKER_HOST has it."""
        self.client = docker.DockerClient(docker_host) if docker_host else docker.from_env()

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def containers(self, instance: str, *, running: bool = False, label: str = "agp.instance") -> list[Container]:
        """All containers of an agent's instance, or the running ones, the oldest first; or by another label of its."""
        filters: dict[str, str | list[str] | bool] = {"label": f"{label}={instance}"}
        found = self.client.containers.list(all=not running, filters=filters, ignore_removed=True)
        return sorted(found, key=lambda container: str(container.attrs["Created"]))

    def volumes(self, instance: str, *, label: str = "agp.instance") -> list[str]:
        """Names of all volumes of an agent's instance, or by another label of its."""
        filters = {"label": f"{label}={instance}"}
        return [str(volume.name) for volume in self.client.volumes.list(filters=filters)]

    def networks(self, instance: str, *, label: str = "agp.instance") -> list[str]:
        """Names of all networks of an agent's instance, or by another label of its."""
        found = self.client.networks.list(filters={"label": f"{label}={instance}"})
        return [str(network.name) for network in found]

    def wait_no_volumes(self, instance: str) -> None:
        """Return once an agent's instance has no volume any more."""
        eventually(lambda: not self.volumes(instance), "volumes removed")

    def purge(self, instance: str, *, label: str = "agp.instance") -> list[str]:
        """Remove all that an instance left; return the names of it, which should be none."""
        containers, volumes = self.containers(instance, label=label), self.volumes(instance, label=label)
        networks = self.networks(instance, label=label)
        for container in containers:
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
        for name in volumes:
            with contextlib.suppress(NotFound):
                self.client.volumes.get(name).remove()
        for name in networks:
            with contextlib.suppress(NotFound):
                self.client.networks.get(name).remove()
        return [*(str(container.name) for container in containers), *volumes, *networks]

    def inspect(self, container_id: str) -> dict[str, Any]:
        """All that the engine says of a container."""
        inspected: dict[str, Any] = self.client.api.inspect_container(container_id)
        return inspected

    def printed(self, container_id: str) -> bytes:
        """What the container printed so far, by the engine's own log."""
        return bytes(self.client.api.logs(container_id, stdout=True, stderr=False))

    def wait_printed(self, container_id: str, text: bytes) -> None:
        """Return once the container has printed ``text``."""
        eventually(lambda: text in self.printed(container_id), f"{text!r} in the output of {container_id[:12]}")

    def let_go(self, container_id: str, file: str = "/work/go") -> None:
        """Tell a playbook that waits for a file to go on."""
        created = self.client.api.exec_create(container_id, ["touch", file])
        self.client.api.exec_start(created["Id"])

    def wait_ended(self, container_id: str) -> None:
        """Return once the container does not run any more."""
        eventually(lambda: not self.inspect(container_id)["State"]["Running"], f"end of {container_id[:12]}")

    def wait_removed(self, container_id: str) -> None:
        """Return once there is no such container any more."""
        eventually(lambda: not self.exists(container_id), f"removal of {container_id[:12]}")

    def exists(self, container_id: str) -> bool:
        """Whether there still is such a container."""
        try:
            self.inspect(container_id)
        except NotFound:
            return False
        return True


@contextlib.contextmanager
def nothing_left(engine: EngineSide, instance: str) -> Iterator[None]:
    """Assert at the end that nothing of this instance is left on the engine; remove it in any case."""
    try:
        yield
    except BaseException:
        engine.purge(instance)
        raise
    left = engine.purge(instance)
    assert left == [], f"left on the engine: {left}"
