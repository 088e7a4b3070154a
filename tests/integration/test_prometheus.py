"""A real Prometheus scrapes a running agent, and evaluates the alerts of the documentation."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import RECEIVED, DashboardStub, Reply
from support.disks import fill
from support.leaps import Leaps
from support.namespaces import with_tmpfs
from support.test_tools import tool
from support.waiting import eventually

FOLDER: Final = Path(__file__).parents[2] / "docs" / "prometheus"


class Prometheus:
    """One process of it, which scrapes one agent every second and knows the alerts."""

    def __init__(self, folder: Path, agent: AgentProcess) -> None:
        """Start it on a free port of loopback."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (folder / "token").write_text(agent.token)
        scrape = {
            "job_name": "agp-agent",
            "authorization": {"credentials_file": str(folder / "token")},
            "static_configs": [{"targets": [f"127.0.0.1:{agent.port}"]}],
        }
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(FOLDER / "alerts.yaml")],
            "scrape_configs": [scrape],
        }
        (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                (
                    tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ),
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        self._http.close()

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers; None where it is not up yet."""
        try:
            answer = self._http.get(path, params=query)
        except httpx.TransportError:
            return None
        return answer.json()["data"] if answer.status_code == 200 else None

    def value(self, expression: str) -> float | None:
        """The value of an expression that has one series, or None."""
        found = self.ask("/api/v1/query", query=expression)
        series = found["result"] if found else []
        return float(series[0]["value"][1]) if series else None

    def wait(self, expression: str, value: float) -> None:
        """Return once it has this value."""
        eventually(lambda: self.value(expression) == value, f"{expression} is {value}")

    def alerts(self) -> dict[str, str]:
        """The alerts that are pending or firing, by name."""
        found = self.ask("/api/v1/alerts")
        return {one["labels"]["alertname"]: one["state"] for one in (found or {"alerts": []})["alerts"]}


@pytest.fixture(scope="module")
def agent(folder: Path, dashboard: DashboardStub) -> Iterator[AgentProcess]:
    """A running agent."""
    with AgentProcess(folder, dashboard.url, dashboard.token) as agent:
        yield agent


@pytest.fixture
def prometheus(agent: AgentProcess, tmp_path: Path) -> Iterator[Prometheus]:
    """One that scrapes it."""
    made = Prometheus(tmp_path, agent)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")])
def test_the_alerts_are_sound_and_fire_when_they_should(command: tuple[str, ...]) -> None:
    """By Prometheus' own checker, and by its own evaluation of series in time."""
    done = subprocess.run((tool("promtool"), *command), cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_prometheus_sees_what_happens_to_an_agent(
    prometheus: Prometheus, agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """Well, with a dead letter, paused, with its engine away, and gone: each shows, and its alert wakes."""
    prometheus.wait('up{job="agp-agent"}', 1)
    prometheus.wait("agp_ready", 1)
    rules = prometheus.ask("/api/v1/rules")["groups"][0]["rules"]
    eventually(lambda: all(one["health"] == "ok" for one in rules_of(prometheus)), "all rules can be evaluated")
    assert len(rules) == 9
    assert prometheus.alerts() == {}

    dashboard.script("given up", Reply(400, b'{"detail":"no"}'))
    agent.accept_task("given up", "true")
    prometheus.wait('agp_results{delivery="dead_letter"}', 1)
    eventually(lambda: prometheus.alerts().get("AgpDeadLetters") == "firing", "the alert of dead letters")
    prometheus.wait('agp_tasks_finished_total{outcome="succeeded",reason="exit_code"}', 1)

    agent.request("POST", "/pause")
    prometheus.wait("agp_paused", 1)
    prometheus.wait("agp_ready", 0)
    eventually(lambda: prometheus.alerts().get("AgpPaused") == "pending", "the alert of a pause")
    agent.request("POST", "/resume")

    agent.stop()
    prometheus.wait('up{job="agp-agent"}', 0)
    eventually(lambda: prometheus.alerts().get("AgpAgentDown") == "pending", "the alert of an agent that is down")
    agent.environment["AGP_PORT"] = str(agent.port)
    agent.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    agent.start(ready=False)
    prometheus.wait('agp_problem{part="engine"}', 1)
    eventually(lambda: prometheus.alerts().get("AgpEngineDown") == "pending", "the alert of an engine that is away")


def rules_of(prometheus: Prometheus) -> list[dict[str, Any]]:
    """The rules as it has them now."""
    found: list[dict[str, Any]] = prometheus.ask("/api/v1/rules")["groups"][0]["rules"]
    return found


def test_prometheus_sees_a_full_queue_a_short_disk_and_what_is_not_delivered(tmp_path: Path) -> None:
    """Each is really so, one after the other: its alert wakes with it, and sleeps again."""
    state = tmp_path / "agent/state"
    state.mkdir(parents=True)
    leaps = Leaps(tmp_path / "leaps")
    settings: dict[str, object] = {"AGP_MAX_QUEUED": 1, "AGP_WARM": 0, **leaps.environment}
    with (
        DashboardStub() as dashboard,
        AgentProcess(
            tmp_path / "agent", dashboard.url, dashboard.token, settings, wrapper=with_tmpfs(state, "128m")
        ) as agent,
        closing(Prometheus(tmp_path, agent)) as prometheus,
    ):
        prometheus.wait("agp_ready", 1)
        agent.request("POST", "/pause")
        agent.accept_task("waits", "true")
        wakes_and_sleeps(prometheus, "AgpQueueFull", lambda: agent.request("POST", "/resume"))

        fill(agent.state_inside / "fill")
        wakes_and_sleeps(prometheus, "AgpDiskShort", (agent.state_inside / "fill").unlink)

        dashboard.reply = Reply(503)
        agent.accept_task("kept", "true")
        prometheus.wait('agp_results{delivery="pending"}', 1)
        leaps.leap(11)

        def deliver() -> None:
            dashboard.reply = Reply(200, RECEIVED)
            agent.request("POST", "/tasks/kept/delivery/retry")

        wakes_and_sleeps(prometheus, "AgpResultsUndelivered", deliver)


def wakes_and_sleeps(prometheus: Prometheus, alert: str, mend: Callable[[], object]) -> None:
    """It is on its way to fire; and no more, once what it tells of was mended."""
    eventually(lambda: prometheus.alerts().get(alert) in {"pending", "firing"}, f"{alert} wakes")
    mend()
    eventually(lambda: alert not in prometheus.alerts(), f"{alert} sleeps")
