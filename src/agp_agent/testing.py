r"""For the test suites of those who write a dashboard: the agent's image as a container, and a place for its results.

Needs the extra ``testing`` (testcontainers), a Docker engine, and the images ``agp/agent`` and ``agp/runner-…`` on it::

    with ResultInbox() as inbox, AgentContainer(inbox.url, inbox.token) as agent:
        assert agent.send("task 1", "echo hello\n", name="hello.sh").status == 202
        assert inbox.wait("task 1").output == "hello\n"

In place of the inbox goes the address of your own dashboard, as containers reach it, and the token that it takes.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import httpx
import uvicorn
from docker.errors import ImageNotFound, NotFound
from testcontainers.core.container import DockerContainer

from agp_agent import __version__
from agp_agent.agent_client import task_path
from agp_agent.dev_dashboard.client import Answer, send_task
from agp_agent.dev_dashboard.server import create_app
from agp_agent.dev_dashboard.serving import listen, server_config
from agp_agent.dev_dashboard.store import ReceivedResult, ResultStore
from agp_agent.models import Playbook, Task, TaskResult

SOCKET: Final = "/var/run/docker.sock"
STATE: Final = "/var/lib/agp-agent"
PORT: Final = 8470
HOST_ALIAS: Final = "host.docker.internal"
"""What a container calls the machine that it runs on."""
PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.05


class AgentContainer:
    """One agent, in a container of its image, locked down as the README says; gone when the ``with`` ends.

    It runs tasks on the engine whose socket it is given, beside itself. Its own state is in a volume of its own.
    """

    def __init__(
        self,
        dashboard_url: str,
        dashboard_token: str,
        *,
        image: str = f"agp/agent:{__version__}",
        agent_id: str | None = None,
        volumes: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        socket_group: int | None = None,
    ) -> None:
        """Prepare it; nothing is started.

        Args:
            dashboard_url: where it reports to, as seen from a container: ``host.docker.internal`` is this machine.
            dashboard_token: what it sends there; your dashboard checks it.
            image: the agent's image, which must be on the engine.
            agent_id: what it calls itself; by default a random name.
            volumes: what is mounted, paths or volumes of the host to paths inside, in place of a volume for its state.
            environment: further settings of the agent, such as ``{"AGP_MAX_RUNNING": "2"}``.
            socket_group: the group that owns the engine's socket on its host; by default that of this machine's.

        Raises:
            ValueError: there is no such socket here, and no group was given.
        """
        self.agent_id = agent_id or f"agp-testing-{secrets.token_hex(4)}"
        self.token = secrets.token_urlsafe(32)
        """What your dashboard sends to it."""
        self.url = ""
        """Where this machine reaches it, once it is started."""
        self._volume = None if volumes else self.agent_id
        self._docker = DockerContainer(image).with_exposed_ports(PORT)
        self._docker.with_envs(
            AGP_TOKEN=self.token,
            AGP_DASHBOARD_URL=dashboard_url,
            AGP_DASHBOARD_TOKEN=dashboard_token,
            AGP_AGENT_ID=self.agent_id,
            AGP_HOST="0.0.0.0",  # noqa: S104  inside a container, whose ports the engine publishes
            **(environment or {}),
        )
        for source, target in {SOCKET: SOCKET, **(volumes or {self.agent_id: STATE})}.items():
            self._docker.with_volume_mapping(source, target, "rw")
        self._docker.with_kwargs(
            # A volume of its own belongs to the image's user; folders of the host belong to whoever runs this.
            user=f"{os.getuid()}:{os.getgid()}" if volumes and os.geteuid() != 0 else None,
            group_add=[_group_of_the_socket() if socket_group is None else socket_group],
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            extra_hosts={HOST_ALIAS: "host-gateway"},
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def container(self) -> Any:
        """The container as the Docker SDK knows it now (``docker.models.containers.Container``)."""
        container = self._docker.get_wrapped_container()
        container.reload()
        return container

    def start(self) -> None:
        """Start it, and return once it is ready.

        Raises:
            LookupError: the engine has no such image. It is never pulled: it gets the engine's socket.
            TimeoutError: it does not become ready; with its log.
        """
        try:
            self._docker.get_docker_client().client.images.get(self._docker.image)
        except ImageNotFound:
            remedy = "`make images` builds it, `docker load` brings it; it is never pulled"
            raise LookupError(f"the engine has no image {self._docker.image}: {remedy}.") from None
        try:
            self._docker.start()
            self.connect()
        except BaseException:
            self.stop()
            raise

    def connect(self) -> None:
        """Find its port on this machine, which is another one after each start, and return once it is ready."""
        _until(self._find_port, "its port to be published", self.log)
        _until(self._is_ready, "the agent to become ready", self.log)

    def stop(self) -> None:
        """End it, and remove it; where its state goes with it, its tasks do, too: no other agent would end them."""
        container = self._docker.get_wrapped_container()
        if container is not None:
            container.stop(timeout=int(PATIENCE_S))
        self._docker.stop()
        if self._volume is not None:
            self._remove_what_is_left(self._volume)

    def _remove_what_is_left(self, volume: str) -> None:
        engine = self._docker.get_docker_client().client
        its: dict[str, str | list[str] | bool] = {"label": f"agp.agent_id={self.agent_id}"}
        for left in engine.containers.list(all=True, filters=its):
            left.remove(force=True)
        for network in engine.networks.list(filters=its):
            network.remove()
        for playbook in engine.volumes.list(filters=its):
            playbook.remove()
        with contextlib.suppress(NotFound):  # it never came to be
            engine.volumes.get(volume).remove()

    def log(self) -> str:
        """All that it has written: lines of JSON."""
        return bytes(self._docker.get_wrapped_container().logs()).decode(errors="replace")

    def send(self, task_id: str, content: str, name: str = "playbook.sh") -> Answer:
        """Send a task as a dashboard does; the suffix of ``name`` decides its runner."""
        return send_task(self.url, self.token, Task(task_id=task_id, playbook=Playbook(name=name, content=content)))

    def get(self, path: str) -> httpx.Response:
        """Ask one of its own endpoints, such as ``/status``, with the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.url}{path}", headers=headers, trust_env=False, timeout=PATIENCE_S)

    def task(self, task_id: str) -> dict[str, Any]:
        """What ``GET /tasks/{id}`` says."""
        answer = self.get(task_path(task_id))
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _find_port(self) -> bool:
        container = self.container
        bound = container.ports.get(f"{PORT}/tcp")
        if bound:
            self.url = f"http://{self._docker.get_container_host_ip()}:{bound[0]['HostPort']}"
        elif container.status == "exited":
            raise TimeoutError(f"The agent ended at its start:\n{self.log()}")
        return bool(bound)

    def _is_ready(self) -> bool:
        if self.container.status != "running":
            raise TimeoutError(f"The agent ended at its start:\n{self.log()}")
        try:
            return self.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:  # the engine's proxy listens before the agent does
            return False


class ResultInbox:
    """A place that agents report to: the development dashboard, which keeps each result for the test, once."""

    def __init__(self, host: str = "0.0.0.0", port: int = 0) -> None:  # noqa: S104  containers must reach it
        """Listen at once; ``url`` is what containers reach it by, and only who sends ``token`` is heard."""
        self.token = secrets.token_urlsafe(32)
        self._results: dict[str, list[TaskResult]] = {}
        self._arrived = threading.Condition()
        self._store = ResultStore(None)
        listener = listen(host, port)
        self.url = f"http://{HOST_ALIAS}:{listener.getsockname()[1]}"
        app = create_app(self._store, self.token, secrets.token_urlsafe(32), self._received)
        self._server = uvicorn.Server(server_config(app))
        run = {"sockets": [listener]}
        self._thread = threading.Thread(target=self._server.run, kwargs=run, name="result-inbox", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join()
        self._store.close()

    def results(self, task_id: str) -> list[TaskResult]:
        """All that came in for a task, an attempt each."""
        with self._arrived:
            return list(self._results.get(task_id, ()))

    def wait(self, task_id: str, *, number: int = 1, timeout_s: float = PATIENCE_S) -> TaskResult:
        """Return the ``number``-th result of a task as soon as it is there; raises ``TimeoutError``."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._results.get(task_id, ())) >= number, timeout_s):
                raise TimeoutError(f"No result of {task_id!r} came within {timeout_s:g} s.")
            return self._results[task_id][number - 1]

    def _received(self, came: ReceivedResult) -> None:
        if came.times_received > 1:
            return  # a delivery whose acknowledgement was lost
        result = TaskResult(task_id=came.task_id, status=came.status, output=came.output, error=came.error)
        with self._arrived:
            self._results.setdefault(result.task_id, []).append(result)
            self._arrived.notify_all()


def _group_of_the_socket() -> int:
    try:
        return Path(SOCKET).stat().st_gid
    except OSError:
        raise ValueError(
            f"There is no {SOCKET} here: give socket_group, the group that owns it on the engine's host "
            f"(`stat -c %g {SOCKET}` there)."
        ) from None


def _until(holds: Callable[[], bool], what: str, log: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {PATIENCE_S:g} s for {what}; its log:\n{log()}")
        time.sleep(_PAUSE_S)
