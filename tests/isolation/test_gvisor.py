"""A runner with ``runtime: runsc``: its playbooks run on gVisor's kernel, under the same lockdown as all others.

Whether gVisor can run on this machine is found out first, without the agent. Where it can, its playbooks run; where it
cannot, every task must end with the engine's own reason. Either way all is asserted.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from agp_agent import __version__
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.own_engine import OwnEngine
from support.test_tools import tool
from support.waiting import eventually

IMAGE: Final = f"agp/runner-shell:{__version__}"
RUNNERS: Final = {
    "plain": {},
    "gvisor": {"runtime": "runsc"},
    "broken": {"runtime": "broken"},
    "unknown": {"runtime": "kata"},
}
REFUSED: Final = "the container engine refused the container: "
LOOK: Final = """\
id -u
uname -r
echo file >/work/file && cat /work/file
for place in / /etc /usr/bin /playbook; do (: >$place/probe) 2>/dev/null && echo "wrote to $place"; done
grep -E '^(NoNewPrivs|CapEff|CapBnd)' /proc/self/status
echo to stderr >&2
exit 7
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    """An engine of the tests' own with gVisor, and with a runtime that cannot run anything.

    gVisor gets no network of its own making: its older releases take every network namespace of a new kernel for the
    host's, and refuse; and these containers have none.
    """
    runtimes = {"runsc": [tool("runsc"), "--network=none"], "broken": ["/bin/false"]}
    with OwnEngine(runtimes) as engine:
        engine.start()
        engine.load_runner_images(IMAGE)
        yield engine


@pytest.fixture(scope="module")
def why_not(engine: OwnEngine) -> str | None:
    """What the engine says when gVisor is asked for by hand; None: it runs here."""
    command = ("docker", "--host", engine.docker_host, "run", "--rm", "--network=none", "--runtime=runsc")
    ended = subprocess.run((*command, "--entrypoint=true", IMAGE), capture_output=True, text=True, check=False)
    return None if ended.returncode == 0 else ended.stderr


@pytest.fixture(scope="module")
def dashboard() -> Iterator[DashboardStub]:
    """A dashboard on loopback."""
    with DashboardStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def agent(
    engine: OwnEngine, dashboard: DashboardStub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    """An agent of that engine, with a runner for each runtime."""
    folder: Path = tmp_path_factory.mktemp("gvisor")
    runner = {"image": IMAGE, "command": ["agp-shell", "{playbook}"]}
    catalog = {name: runner | more | {"match": {"suffixes": [f".{name}"]}} for name, more in RUNNERS.items()}
    (folder / "catalog.yaml").write_text(json.dumps({"runners": catalog}))  # JSON is YAML
    settings = {"AGP_CATALOG": folder / "catalog.yaml", "DOCKER_HOST": engine.docker_host}
    with AgentProcess(folder, dashboard.url, dashboard.token, settings, docker_host=engine.docker_host) as process:
        yield process


@dataclass
class Bench:
    """The agent, its dashboard, and whether gVisor can run here."""

    agent: AgentProcess
    dashboard: DashboardStub
    why_not: str | None

    def run(self, runner: str, content: str) -> dict[str, Any]:
        """The result of a playbook that a runner was given."""
        task_id = f"{runner} {secrets.token_hex(4)}"
        self.agent.accept_task(task_id, content, f"playbook.{runner}")
        return self.dashboard.result(task_id)

    def is_told(self, result: dict[str, Any]) -> bool:
        """Whether gVisor cannot run here; then the result must say so, and nothing may have been printed."""
        if self.why_not is None:
            return False
        assert result["error"].startswith(REFUSED), (result, self.why_not)
        assert result["output"] == ""
        return True


@pytest.fixture
def bench(agent: AgentProcess, dashboard: DashboardStub, why_not: str | None) -> Bench:
    """All of it for one test."""
    return Bench(agent, dashboard, why_not)


def test_a_playbook_runs_on_gvisors_kernel_under_the_same_lockdown(bench: Bench) -> None:
    """Control arm: without ``runtime`` the same playbook sees the host's kernel. All else is the same."""
    host_kernel = os.uname().release
    plain, on_gvisor = bench.run("plain", LOOK), bench.run("gvisor", LOOK)
    assert _seen(plain) == ("exit code 7", host_kernel)
    if not bench.is_told(on_gvisor):
        error, kernel = _seen(on_gvisor)
        assert error == "exit code 7"
        assert kernel != host_kernel


def test_a_playbook_on_gvisor_is_cancelled_by_term(bench: Bench) -> None:
    """The signal reaches it, and what it prints then is kept."""
    script = "trap 'echo bye; exit 3' TERM; echo begin; sleep 600 & wait"
    if bench.why_not is not None:
        assert bench.is_told(bench.run("gvisor", script))
        return
    bench.agent.accept_task("cancelled", script, "playbook.gvisor")
    container_id = bench.agent.container_of("cancelled")
    bench.agent.engine.wait_printed(container_id, b"begin\n")
    assert bench.agent.engine.inspect(container_id)["HostConfig"]["Runtime"] == "runsc"
    bench.agent.cancel("cancelled")
    result = bench.dashboard.result("cancelled")
    assert (result["error"], result["output"]) == ("cancelled", "begin\nbye\n")


def test_memory_is_limited_on_gvisor_too(bench: Bench) -> None:
    """By the host's control group: gVisor's own kernel is in it, with all that the playbook took."""
    result = bench.run("gvisor", "head -c 900M /dev/zero | tail | wc -c")
    if not bench.is_told(result):
        assert (result["error"], result["output"]) == ("killed: out of memory (limit 512 MiB)", "")


def test_a_runtime_that_the_engine_does_not_have_is_named_with_those_that_it_has(bench: Bench) -> None:
    """One sentence from which the operator can act."""
    result = bench.run("unknown", LOOK)
    assert result["error"].startswith(f"{REFUSED}the engine has no runtime kata; it has broken, ")
    assert result["error"].endswith(", runc, runsc")


def test_a_runtime_that_cannot_run_anything_here_is_told_in_its_own_words(bench: Bench) -> None:
    """Such as gVisor without the kernel's features that it needs. Nothing is left of the container."""
    result = bench.run("broken", LOOK)
    assert result["error"].startswith(f"{REFUSED}the engine refused (400): ")
    assert "/bin/false did not terminate successfully" in result["error"]
    eventually(lambda: bench.agent.containers_of_tasks() == 0, "nothing left of it")


def _seen(result: dict[str, Any]) -> tuple[str, str]:
    """How ``LOOK`` ended, and the kernel that it saw; all else that it saw is the lockdown's."""
    uid, kernel, file, *rest = result["output"].splitlines()
    assert 20000 <= int(uid) <= 20255
    assert file == "file"
    assert {"CapEff:\t" + "0" * 16, "CapBnd:\t" + "0" * 16, "to stderr"} <= set(rest)
    assert not [line for line in rest if line.startswith("wrote to")]
    return str(result["error"]), kernel
