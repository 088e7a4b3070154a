"""The place of one measuring run: a folder, a name for everything that is made, and the removal of all of it."""

import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env

from agp_agent import catalog, planner
from agp_agent.catalog import Runner
from agp_agent.engine import ContainerSpec, Mount
from agp_agent.planner import Limits, RunSpec
from bench.problem import BenchError
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

RUNNER: Final = "shell"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LIMITS: Final = Limits(task_timeout_s=3600, stop_grace_s=10, output_limit_bytes=4 * 2**20)
"""The agent's defaults."""
_REMOVAL_S: Final = 60
_NOWHERE: Final = "http://127.0.0.1:9"
"""For an agent that has no result to deliver."""


def say(text: str) -> None:
    """Tell the person who waits; the table alone goes to stdout."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


class Workbench:
    """Use it as a context manager: at its end no container, file or process of the run is left."""

    def __init__(self, parent: Path) -> None:
        """``parent`` should be on the disk that an agent would use: most figures hang on it.

        Raises:
            BenchError: the engine, its image or the folder is not there.
        """
        self.agent_id = f"bench-{secrets.token_hex(4)}"
        self.runner: Runner = catalog.load(None).runners[RUNNER]
        try:
            self.client = APIClient(version="auto", **kwargs_from_env())
            self.client.inspect_image(self.runner.image)  # type: ignore[no-untyped-call]  # untyped in the stubs
        except DockerException as error:
            raise BenchError(
                f"The engine or its image {self.runner.image} is not there: {error}; run `make demo` once."
            ) from None
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="agp-bench-", dir=parent)).resolve()
        except OSError as error:
            raise BenchError(f"{parent} cannot be used: {error.strerror}; give another folder with --dir.") from None
        self.folder.chmod(0o755)

    def agent(
        self,
        name: str,
        dashboard: DashboardStub | None,
        settings: Mapping[str, str] | None = None,
        *,
        ready: bool = True,
    ) -> AgentProcess:
        """The agent under measurement: the real command as a process of its own, on a state of its own."""
        url, token = (dashboard.url, dashboard.token) if dashboard else (_NOWHERE, secrets.token_urlsafe(32))
        own = {"AGP_AGENT_ID": self.agent_id, "AGP_DRAIN_TIMEOUT_S": "2"}
        return AgentProcess(self.folder / name, url, token, {**own, **(settings or {})}, ready=ready)

    def plan(self) -> RunSpec:
        """The planner's word for one container of the shell runner, labelled as this run's."""
        return planner.plan(self.runner, _LIMITS, {"agp.agent_id": self.agent_id})

    def containers(self, *, running: bool = False) -> list[str]:
        """Ids of this run's containers that exist, or of those that run."""
        filters = {"label": [f"agp.agent_id={self.agent_id}"]} | ({"status": ["running"]} if running else {})
        listed = self.client.containers(all=True, filters=filters)
        return [str(container["Id"]) for container in listed]

    def wait_empty(self) -> None:
        """Return as soon as no container of this run exists."""
        while containers := self.containers():
            for container_id in containers:
                with contextlib.suppress(NotFound):
                    self.client.wait(container_id, timeout=_REMOVAL_S, condition="removed")

    def removal_s(self, since_s: float) -> float:
        """When the last container of this run since ``since_s`` was removed, by the wall clock, as the engine says."""
        return max(eventually(lambda: self._removals(since_s), "the engine's event of a removal"))

    def _removals(self, since_s: float) -> list[float]:
        filters = {"label": [f"agp.agent_id={self.agent_id}"], "event": ["destroy"]}
        events = self.client.events(  # type: ignore[call-overload]  # takes fractions of seconds as text, too
            since=f"{since_s:.9f}", until=f"{time.time():.9f}", filters=filters, decode=True
        )
        return [int(event["timeNano"]) / 1e9 for event in events]

    def slot(self, spec: RunSpec, script: str) -> ContainerSpec:
        """A container of a rival: its playbook in a folder of its own, and the rest exactly as the agent asks."""
        folder = self.folder / f"rival-{secrets.token_hex(4)}"
        folder.mkdir()
        folder.chmod(0o755)
        playbook = folder / spec.playbook_file
        playbook.write_text(script)
        playbook.chmod(0o444)
        mount = Mount("bind", str(folder), planner.PLAYBOOK_DIR)
        return spec.in_slot(folder.name, 20000, mount)

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for container_id in self.containers():
            with contextlib.suppress(APIError):
                self.client.remove_container(container_id, v=True, force=True)
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the clean-up that follows is not interrupted
    raise KeyboardInterrupt
