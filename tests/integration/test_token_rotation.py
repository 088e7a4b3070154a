"""A rotation of the token that dashboards send: without a restart, and without one request that fails."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agp_agent.tokens import fingerprint
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.secret_files import replace_secret, write_secret
from support.waiting import eventually

SENDERS = 4
MORE_REQUESTS = 50
"""Of each sender, at least, under each content of the file."""


def _byte_by_byte(path: Path, text: str) -> None:
    """The slowest way to write a file in place: every beginning of it is there for a moment."""
    with path.open("w") as file:
        for char in text:
            file.write(char)
            file.flush()
            time.sleep(0.002)


class Senders:
    """Clients that send one heartbeat after another, with the token they have been given, over kept connections."""

    def __init__(self, url: str, token: str) -> None:
        """Begin with this token."""
        self.token = token
        self.answers: Counter[int] = Counter()
        self._url = url
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def _send(self) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self._leaving.is_set():
                answer = client.post(f"{self._url}/heartbeat", headers={"Authorization": f"Bearer {self.token}"})
                self.answers[answer.status_code] += 1

    def go_on(self) -> None:
        """Return once so many more requests were answered."""
        goal = self.answers.total() + SENDERS * MORE_REQUESTS
        eventually(lambda: self.answers.total() >= goal, "more answers")

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send while this is open."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._leaving.set()
            for thread in self._threads:
                thread.join()


@pytest.mark.parametrize("write", [write_secret, replace_secret, _byte_by_byte], ids=["in place", "replaced", "slowly"])
def test_a_rotation_fails_no_request(
    dashboard: DashboardStub, tmp_path: Path, write: Callable[[Path, str], object]
) -> None:
    """Both tokens for a while, then the new one alone: every request under way is answered 200; then the old is 401."""
    file, old, new = tmp_path / "tokens", *(secrets.token_urlsafe(32) for _ in range(2))
    write_secret(file, f"{old}\n")
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, {"AGP_TOKEN_FILE": file}) as agent:
        pid, senders = agent.process.pid, Senders(f"http://127.0.0.1:{agent.port}", old)
        with senders.sending():
            senders.go_on()
            write(file, f"{old}\n{new}\n")
            senders.go_on()
            senders.token = new
            senders.go_on()
            write(file, f"{new}\n")
            senders.go_on()
            removed = agent.wait_audited("token rotated", token_fingerprints=[fingerprint(new.encode())])
            senders.go_on()
        assert set(senders.answers) == {200}
        assert agent.process.pid == pid
        assert fingerprint(old.encode()) in removed["removed"]
        assert fingerprint(new.encode()) in {one for line in agent.audit("token rotated") for one in line["added"]}
        assert agent.http.post("/heartbeat", headers={"Authorization": f"Bearer {old}"}).status_code == 401
        assert not {token for token in (old, new) if token in agent.log_text()}


def test_a_broken_file_keeps_the_old_tokens_and_says_so_loudly(dashboard: DashboardStub, tmp_path: Path) -> None:
    """An error in the log, a degradation in the trail, a warning in /status; all are over once the file is mended."""
    file, old, new = tmp_path / "tokens", *(secrets.token_urlsafe(32) for _ in range(2))
    write_secret(file, f"{old}\n")
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, {"AGP_TOKEN_FILE": file}) as agent:
        bearer = {"Authorization": f"Bearer {old}"}
        write_secret(file, f"{new}\n", 0o644)
        said = agent.wait_log("token file not used: the tokens read before it stay valid")
        assert said["level"] == "error"
        assert f"AGP_TOKEN_FILE: {file} has mode 0644, so everybody on this machine can read it" in said["why"]
        assert agent.http.post("/heartbeat", headers=bearer).status_code == 200
        assert agent.http.get("/readyz").status_code == 200  # tasks go on
        warnings = agent.http.get("/status", headers=bearer).json()["warnings"]
        assert warnings == {"AGP_TOKEN_FILE": said["why"]}
        assert agent.audit("agent degraded", part="AGP_TOKEN_FILE")[0]["why"] == said["why"]
        assert agent.http.post("/heartbeat", headers={"Authorization": f"Bearer {new}"}).status_code == 401
        file.chmod(0o640)
        agent.wait_audited("agent recovered", part="AGP_TOKEN_FILE")
        eventually(lambda: agent.http.post("/heartbeat", headers=bearer).status_code == 401, "the old token is out")
        assert agent.http.post("/heartbeat", headers={"Authorization": f"Bearer {new}"}).status_code == 200
        agent.token = new
