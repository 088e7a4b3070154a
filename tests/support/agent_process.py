"""The agent as its operators run it: ``agp-agent serve`` in a process of its own, with its own state and tokens."""

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx

from support.engine_side import EngineSide
from support.secret_files import write_secret
from support.waiting import PATIENCE_S, eventually

COMMAND: Final = str(Path(sys.executable).with_name("agp-agent"))
"""The command as it is installed beside this Python."""

WARM: Final = os.environ.get("AGP_TEST_WARM", "0")
"""How many containers of each runner wait for a task, where a test does not say it."""

NEVER_RELEASED: Final = 125
"""What an entry ends with that was never released."""

GENESIS: Final = "0" * 64


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment without anything that would configure an agent, but with what names the engine."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    config = home / "agent.yaml"
    if not config.exists():
        config.write_text("{}\n")  # hides one that may be in /etc
    return kept | {"HOME": str(home), "AGP_CONFIG": str(config)}


class AgentProcess:
    """One agent. ``start``, ``stop``, ``kill`` and again ``start`` as often as wanted; all on the same state.

    As a context manager it is started on entry. On exit it is stopped in any case, and unless the test had failed
    already it must have ended with exit code 0 and have left nothing on the engine.
    """

    def __init__(
        self,
        folder: Path,
        dashboard_url: str,
        dashboard_token: str,
        settings: Mapping[str, object] | None = None,
        *,
        wrapper: Sequence[str] = (),
        ready: bool = True,
        docker_host: str | None = None,
    ) -> None:
        """Prepare everything; nothing is started.

        Args:
            folder: where state and log go; made where it is missing.
            dashboard_url: where results are delivered to.
            dashboard_token: what the agent sends there.
            settings: further environment variables by their full names. A file of tokens (``AGP_TOKEN_FILE``,
                ``AGP_DASHBOARD_TOKEN_FILE``) takes the place of the token, and is written with it if it is missing.
            wrapper: a command that executes the agent's, such as ``unshare``.
            ready: whether entering waits for /readyz.
            docker_host: address of the engine on which the agent's containers are, where the environment names another.
                The agent itself is told by ``settings`` (``DOCKER_HOST``): there may be a proxy between the two.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.token = secrets.token_urlsafe(32)
        self.dashboard_token = dashboard_token
        self.environment = clean_environment(folder) | {
            "AGP_TOKEN": self.token,
            "AGP_DASHBOARD_TOKEN": dashboard_token,
            "AGP_DASHBOARD_URL": dashboard_url,
            "AGP_HOST": "127.0.0.1",
            "AGP_PORT": "0",
            "AGP_STATE_DIR": str(self.state),
            "AGP_STOP_GRACE_S": "1",
            "AGP_WARM": WARM,
            "AGP_WARM_BEFORE_READY": str(WARM != "0").lower(),
        }
        self.environment |= {name: str(value) for name, value in (settings or {}).items()}
        for name in ("AGP_TOKEN", "AGP_DASHBOARD_TOKEN"):
            if (file := self.environment.get(f"{name}_FILE")) is not None:
                token = self.environment.pop(name)
                if not Path(file).exists():
                    write_secret(Path(file), f"{token}\n")
        self.command = (*wrapper, COMMAND, "serve")
        self._ready = ready
        self.log_path = folder / "agent.log"
        self.log_path.touch()
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.docker_host = docker_host
        self.engine = EngineSide(docker_host)
        self.http = httpx.Client(trust_env=False, timeout=PATIENCE_S)
        self.port = 0
        self._instance = ""

    # --- its life --------------------------------------------------------------------------------------------------

    def start(self, *, ready: bool = True) -> Self:
        """Start the process; return once it listens and, with ``ready``, once /readyz says so."""
        self.launch()
        return self.connect(ready=ready)

    def launch(self) -> None:
        """Start the process, and wait for nothing."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self._log_start = self.log_path.stat().st_size
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def connect(self, *, ready: bool = True) -> Self:
        """Return once it listens and, with ``ready``, once /readyz says so."""
        self.port = int(self.wait_log("listening")["port"])
        self._instance = self._read_instance()
        self.http.base_url = f"http://127.0.0.1:{self.port}"
        if ready:
            self.wait_ready()
        return self

    def _read_instance(self) -> str:
        try:
            return str(json.loads((self.state_inside / "agent.lock").read_text())["instance"])
        except FileNotFoundError as error:  # a process that is dying sees no files any more
            raise AssertionError(f"the agent ended just after it listened:\n{self.log_text()}") from error

    def wait_ready(self) -> None:
        """Return once /readyz answers 200."""

        def look() -> bool:
            self._check_running()
            return self.http.get("/readyz").status_code == 200

        eventually(look, "ready")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """End it by SIGTERM and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self._process is not None, "it was never started"
        return self._process

    def _check_running(self) -> None:
        assert self.process.poll() is None, f"the agent ended:\n{self.log_text()}"

    def __enter__(self) -> Self:
        try:
            return self.start(ready=self._ready)
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        code, left = self.close()
        if kind is None:
            assert code == 0, f"exit code {code}:\n{self.log_text()}"
            assert left == [], f"left behind: {left}"

    def close(self) -> tuple[int, list[str]]:
        """Make sure that nothing of it is left; return its exit code, and what it had left behind."""
        code = 0
        try:
            if self._process is not None and self._process.poll() is None:
                code = self.stop()
            elif self._process is not None and self._process.returncode != -signal.SIGKILL:  # not the test's own doing
                code = self._process.returncode
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self.http.close()
            left = self.leftovers()
            self.engine.close()
        return code, left

    def leftovers(self) -> list[str]:
        """What is left of it on the engine and in its folders; removed from the engine by this."""
        if not self._instance:
            return []
        waited = self._waited()
        files = [path for folder in ("slots", "spool") for path in self.state.glob(f"{folder}/*")]
        left = [str(path) for path in files if path.name not in waited]
        return left + [name for name in self.engine.purge(self._instance) if name not in waited]

    def _waited(self) -> set[str]:
        """Containers that no task claimed of an agent that was killed, or had no engine: the next one removes them."""
        if self.environment["AGP_WARM"] == "0":
            return set()
        ended = {str(one.name): one.attrs["State"] for one in self.engine.containers(self._instance)}
        return {name for name, state in ended.items() if state["ExitCode"] == NEVER_RELEASED and not state["Running"]}

    def left_of_tasks(self) -> list[str]:
        """What is there on the engine and in its folders that belongs to some task; what waits for one does not."""
        is_up = self.process.poll() is None
        state = self.state_inside if is_up else self.state
        containers = sorted(str(one.name) for one in self.engine.containers(self.instance))
        volumes, spools = self.engine.volumes(self.instance), [path.name for path in (state / "spool").iterdir()]
        slots = sorted(path.name for path in (state / "slots").iterdir())
        if slots == containers and set(volumes) <= set(slots) and len(slots) == (self.waiting() if is_up else 0):
            return spools
        return [*containers, *volumes, *slots, *spools]

    def containers_of_tasks(self) -> int:
        """How many containers there are beside those that wait for a task, while it runs."""
        return len(self.engine.containers(self.instance)) - self.waiting()

    def waiting(self) -> int:
        """How many containers wait for a task."""
        runners = self.request("GET", "/status").json()["runners"]
        return sum(runner["warm"]["ready"] for runner in runners.values())

    # --- what it says ----------------------------------------------------------------------------------------------

    @property
    def instance(self) -> str:
        """The label of everything it makes on the engine."""
        assert self._instance, "it never listened"
        return self._instance

    @property
    def state_inside(self) -> Path:
        """The state directory as the running process sees it, be it in a mount namespace of its own."""
        return Path(f"/proc/{self.process.pid}/root{self.state}")

    def log_text(self) -> str:
        """Everything it ever printed."""
        return self.log_path.read_text()

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log of the process that was started last, or its lines that may be of this event.

        A line that is not JSON stands as ``event`` alone.
        """
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            whole = log.read().rpartition(b"\n")[0]
        return _lines(whole.decode(), event)

    def wait_log(self, event: str, **fields: object) -> dict[str, Any]:
        """Return the first line of the running process's log with this event and these fields."""

        def look() -> dict[str, Any] | None:
            found = _first(self.log_lines(event), event, fields)
            if found is None:
                self._check_running()
            return found

        found = eventually(look, f"log line {event!r} {fields}")
        assert found is not None
        return found

    def audit(self, event: str | None = None, **fields: object) -> list[dict[str, Any]]:
        """The audit trail on disk, or the lines with this event and these fields."""
        whole = (self.state / "audit.jsonl").read_bytes().rpartition(b"\n")[0]
        lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if event is None or _first([line], event, fields)]

    def wait_audited(self, event: str, **fields: object) -> dict[str, Any]:
        """Return the first such line of the log's audit events: they are there before they are on disk."""

        def look() -> dict[str, Any] | None:
            return _first(_lines(self.log_text(), event), event, fields)

        found = eventually(look, f"audit event {event!r} {fields}")
        assert found is not None
        return found

    def audit_heads(self) -> dict[int, str]:
        """The hash of every line of the trail by its number; asserts that the chain holds."""
        previous, heads = GENESIS, dict[int, str]()
        for number, line in enumerate((self.state / "audit.jsonl").read_bytes().splitlines(), 1):
            document = json.loads(line)
            assert (document["seq"], document["prev"]) == (number, previous)
            previous = heads[number] = hashlib.sha256(line).hexdigest()
        return heads

    # --- what it is told -------------------------------------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        """What a dashboard sends."""
        return {"Authorization": f"Bearer {self.token}"}

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request with the right token."""
        headers = self.headers | arguments.pop("headers", {})
        return self.http.request(method, path, headers=headers, **arguments)

    def post_task(
        self, task_id: str, content: str, name: str = "playbook.sh", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a task."""
        body = {"task_id": task_id, "playbook": {"name": name, "content": content}}
        return self.request("POST", "/execute_task", json=body, headers=dict(headers or {}))

    def accept_task(self, task_id: str, content: str, name: str = "playbook.sh") -> None:
        """Send a task that must be accepted."""
        answer = self.post_task(task_id, content, name)
        assert answer.status_code == 202, answer.text

    def cancel(self, encoded_task_id: str) -> httpx.Response:
        """Ask for the end of a task; the id is percent-encoded already."""
        return self.request("POST", f"/tasks/{encoded_task_id}/cancel")

    def container_of(self, task_id: str) -> str:
        """The id of the container in which a task was last started, as soon as it is."""
        self.wait_audited("task started", task_id=task_id)
        lines = _lines(self.log_text(), "task started")
        started = [line for line in lines if _first([line], "task started", {"task_id": task_id})]
        return str(started[-1]["container_id"])


def _lines(text: str, event: str | None) -> list[dict[str, Any]]:
    """Lines of a log; those that do not have the words of ``event`` are not even parsed, for logs are read often."""
    words = "" if event is None else json.dumps(event)[1:-1]
    return [_parsed(line) for line in text.splitlines() if words in line]


def _parsed(line: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError:
        return {"event": line}
    return document if isinstance(document, dict) else {"event": line}


def _first(lines: list[dict[str, Any]], event: str, fields: Mapping[str, object]) -> dict[str, Any] | None:
    wanted = {"event": event, **fields}
    return next((line for line in lines if all(line.get(key) == value for key, value in wanted.items())), None)
