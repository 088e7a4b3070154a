"""The development dashboard as a process: real HTTP, real signals, a real file."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from agp_agent.dev_dashboard.client import send_task
from agp_agent.models import Playbook, Task

TOKEN = "token-of-the-integration-test"
BODY = {"task_id": "t", "status": "completed", "output": "\x1b[2Jhello\n", "error": None}
PROGRAM = """
import sys
from pathlib import Path
from agp_agent.dev_dashboard import run_dashboard
run_dashboard(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]) if sys.argv[4] else None)
"""


@dataclass(frozen=True)
class Running:
    """A dashboard that printed its link."""

    process: subprocess.Popen[str]
    url: str
    key: str

    def report(self, body: object, key: str) -> httpx.Response:
        """Deliver a result as an agent does."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": key}
        return httpx.post(f"{self.url}/api/v1/agents/report_result", json=body, headers=headers, trust_env=False)

    def connect(self) -> socket.socket:
        """Open a bare connection."""
        address = httpx.URL(self.url)
        return socket.create_connection((address.host, address.port))

    def results(self) -> list[dict[str, object]]:
        """Read what it received."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        response = httpx.get(f"{self.url}/api/v1/results", headers=headers, trust_env=False)
        results: list[dict[str, object]] = response.raise_for_status().json()["results"]
        return results

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """End it, expect exit code 0, and return what else it printed."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, printed
        return printed


@contextmanager
def dashboard(db_path: Path | str = "", host: str = "127.0.0.1") -> Iterator[Running]:
    """Start a dashboard on a free port and wait for its link."""
    command = [sys.executable, "-c", PROGRAM, host, "0", TOKEN, str(db_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            link = next(found for line in lines if (found := re.fullmatch(r"Page: +(\S+)/\?key=(\S+)\n", line)))
            yield Running(process, link[1], link[2])
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_result_is_received_shown_and_the_stop_is_clean(number: signal.Signals) -> None:
    """A piped dashboard prints plain lines without control characters and ends with 0, open connections or not."""
    with dashboard() as running, running.connect() as idle:
        assert running.report(BODY, "k").json() == {"message": "Result received"}
        assert running.report(BODY, "k").status_code == 200
        idle.sendall(b"GET / HTTP/1.1\r\n")
        printed = running.stop(number)
    assert re.search(r"Z completed t\n  \| \\x1b\[2Jhello\n\S+ completed t \(again: received 2 times", printed)
    assert "\x1b" not in printed


def test_a_signal_right_after_the_link_is_not_lost() -> None:
    """A script may stop the dashboard at once."""
    with dashboard() as running:
        running.stop()


def test_the_page_opens_with_the_link_only() -> None:
    """The link's cookie opens the page; the key works once, and not at another start."""
    with dashboard() as running, httpx.Client(base_url=running.url, trust_env=False) as browser:
        running.report(BODY, "k")
        assert browser.get("/").status_code == 401
        assert browser.get("/", params={"key": running.key}).status_code == 200
        assert browser.get("/desk").json()["tasks"][0]["task_id"] == "t"
        assert httpx.get(running.url, params={"key": running.key}, trust_env=False).status_code == 401
        assert "server" not in browser.get("/").headers
    with dashboard() as other:
        assert httpx.get(other.url, params={"key": running.key}, trust_env=False).status_code == 401


def test_a_restart_on_the_same_file_forgets_nothing(tmp_path: Path) -> None:
    """After SIGTERM and after SIGKILL the results are there, and a repeated key is still a duplicate."""
    path = tmp_path / "results.db"
    with dashboard(path) as running:
        running.report(BODY, "first")
        running.stop()
    with dashboard(path) as running:
        running.report(BODY, "second")
        running.process.kill()
        running.process.wait()
    with dashboard(path) as running:
        assert running.report(BODY, "first").status_code == 200
        assert [(one["idempotency_key"], one["times_received"]) for one in running.results()] == [
            ("second", 1),
            ("first", 2),
        ]


def test_an_agent_that_dies_while_sending_leaves_no_trace() -> None:
    """Half a body is no result, and no traceback."""
    with dashboard() as running:
        with running.connect() as agent:
            head = f"POST /api/v1/agents/report_result HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            agent.sendall(f'{head}Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{{"task_id'.encode())
        assert running.results() == []
        assert "Traceback" not in running.stop()


def test_a_reader_that_went_away_does_not_cost_a_result() -> None:
    """With nobody at the other end of its output the dashboard goes on receiving."""
    with dashboard() as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        for key in ("one", "two"):
            assert running.report(BODY, key).status_code == 200
        assert len(running.results()) == 2
        running.process.terminate()
        assert running.process.wait(20) == 0


def test_ipv6_loopback_is_served_under_its_link() -> None:
    """The printed link works as it is."""
    with dashboard(host="::1") as running:
        assert running.url.startswith("http://[::1]:")
        assert running.report(BODY, "k").status_code == 200


def test_a_wildcard_is_named_as_loopback() -> None:
    """Nobody can open 0.0.0.0."""
    with dashboard(host="0.0.0.0") as running:  # noqa: S104 - what is tested; a free port for a moment
        assert running.url.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_one_sentence() -> None:
    """The error names address and remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-c", PROGRAM, "127.0.0.1", port, TOKEN, ""]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"ConfigurationError: The dashboard cannot listen on 127.0.0.1 port {port}" in ended.stderr


def test_the_sending_half_speaks_real_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not asked; the dashboard itself answers that it is no agent."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with dashboard() as running:
        status, body = send_task(running.url, TOKEN, Task(task_id="t", playbook=Playbook(name="a.sh", content="true")))
    assert status == 404
    assert isinstance(body, dict)
    assert "nothing at this address" in body["detail"]
