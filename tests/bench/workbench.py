"""The place of one measuring run: a folder, a name for everything that is made, and the removal of all of it."""

import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

import yaml
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env

from agp_agent import __version__, catalog, planner
from agp_agent.catalog import Runner
from agp_agent.engine import ContainerSpec, Mount
from agp_agent.planner import Limits, RunSpec
from agp_agent.settings import Settings
from bench.problem import BenchError
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

RUNNER: Final = "shell"
PARKED: Final = ".parked"
"""Suffix of tasks of which one runs at a time, so that the others stay in the queue."""
HAS_POOL: Final = "warm" in Settings.model_fields
"""Whether this agent can keep containers waiting."""
NO_POOL: Final[Mapping[str, str]] = {"AGP_WARM": "0"} if HAS_POOL else {}
"""For an agent under measurement that is to start every container when its task is there."""
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
        self.runners: Mapping[str, Runner] = catalog.load(None).runners
        self.runner: Runner = self.runners[RUNNER]
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

    def plan(self, runner: str = RUNNER) -> RunSpec:
        """The planner's word for one container of a runner, labelled as this run's."""
        return planner.plan(self.runners[runner], _LIMITS, {"agp.agent_id": self.agent_id})

    def warm_id(self) -> str:
        """Of an agent that keeps containers waiting, which must not be taken for what a lap left."""
        return f"{self.agent_id}-warm"

    def containers(self, agent_id: str | None = None, *, running: bool = False) -> list[str]:
        """Ids of the containers that exist of this agent (default: of all but the warm one), or of those that run."""
        filters = {"label": [f"agp.agent_id={agent_id or self.agent_id}"]} | (
            {"status": ["running"]} if running else {}
        )
        listed = self.client.containers(all=True, filters=filters)
        return [str(container["Id"]) for container in listed]

    def wait_empty(self, agent_id: str | None = None) -> None:
        """Return as soon as no such container exists."""
        while containers := self.containers(agent_id):
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

    def small_catalog(self, **more: object) -> Path:
        """A catalog with the shell runner at 32 MiB, so that many of its containers fit, and more of its keys."""
        small = {
            "image": self.runner.image,
            "match": {"suffixes": list(self.runner.match.suffixes), "shebangs": list(self.runner.match.shebangs)},
            "command": list(self.runner.command),
            "memory": "32MiB",
        }
        parked = small | {"match": {"suffixes": [PARKED]}, "max_running": 1}
        file = self.folder / f"catalog-{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump({"runners": {RUNNER: small | more, "parked": parked}}))
        return file

    def warm_catalog(self, runner: str) -> Path:
        """A catalog in which one container of this runner waits, and which is the built-in one in all else."""
        built_in = yaml.safe_load(
            files("agp_agent").joinpath("catalog.yaml").read_text().replace("{version}", __version__)
        )
        file = self.folder / f"catalog-{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump({"runners": {runner: built_in["runners"][runner] | {"warm": 1}}}))
        return file

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
        for container_id in self.containers() + self.containers(self.warm_id()):
            with contextlib.suppress(APIError):
                self.client.remove_container(container_id, v=True, force=True)
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the clean-up that follows is not interrupted
    raise KeyboardInterrupt
