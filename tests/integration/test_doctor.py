"""``agp-agent doctor`` on the real engine: it finds what was really broken, and nothing stays."""

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent import __version__
from support.agent_process import AgentProcess
from support.cli import Ended, command_line, written
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.leaps import Leaps
from support.lesser_kernel import NO_SECCOMP, OLD_KERNEL
from support.namespaces import with_address, with_tmpfs
from support.own_engine import OwnEngine
from support.waiting import eventually

CHECKS_OF_A_MACHINE = {
    "configuration", "engine", "socket", "runtime", "kernel", "cgroups", "live restore", "root", "seccomp",
    "access control", "log driver", "disk", "clock", "address", "dashboard", "neighbours",
    "runner shell", "runner python", "runner ansible",
}  # fmt: skip


@pytest.fixture
def configured(environment: dict[str, str], dashboard: DashboardStub, tmp_path: Path) -> dict[str, str]:
    """The environment of an agent that could serve."""
    return environment | {
        "AGP_TOKEN": secrets.token_urlsafe(32),
        "AGP_DASHBOARD_TOKEN": dashboard.token,
        "AGP_DASHBOARD_URL": dashboard.url,
        "AGP_STATE_DIR": str(tmp_path / "state"),
    }


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path, engine: EngineSide) -> Iterator[None]:
    """No container of the doctor and no temporary folder is there afterwards."""
    yield
    eventually(lambda: engine.containers("doctor", label="agp.agent_id") == [], "containers removed")
    assert not list(tmp_path.glob("tmp/*"))


def checks(ended: Ended) -> dict[str, Any]:
    """The findings by their check."""
    return {one["check"]: one for one in json.loads(ended.stdout)["checks"]}


def test_a_machine_that_is_fit_may_have_warnings(configured: dict[str, str]) -> None:
    """Every check is there; none fails; each runner's container was made and read back; exit code 0."""
    ended = command_line(configured)("doctor", "--json")
    found = checks(ended)
    assert set(found) == CHECKS_OF_A_MACHINE
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    for runner in ("shell", "python", "ansible"):
        assert found[f"runner {runner}"]["level"] == "ok"
    assert found["dashboard"]["level"] == "ok"
    assert all(one["means"] and one["mend"] for one in found.values() if one["level"] != "ok")
    assert not Path(configured["AGP_STATE_DIR"]).exists()


def test_a_proxy_that_answers_is_not_taken_for_the_dashboard(
    configured: dict[str, str], dashboard: DashboardStub
) -> None:
    """It says who answered, that the dashboard may not, and not the proxy's password."""
    place = dashboard.url.partition("://")[2]
    behind = {"AGP_DASHBOARD_URL": "https://dashboard.invalid", "AGP_DASHBOARD_PROXY": f"http://me:hunter2@{place}"}
    ended = command_line(configured | behind)("doctor", "--json")
    found = checks(ended)["dashboard"]
    assert found["level"] == "warn"
    assert f"the proxy http://{place}" in found["said"]
    assert "hunter2" not in ended.stdout + ended.stderr


def test_people_get_lines_and_a_count(configured: dict[str, str]) -> None:
    """In a pipe: level, check, what was found; the last line counts."""
    ended = command_line(configured)("doctor")
    lines = ended.stdout.splitlines()
    assert len(lines) == len(CHECKS_OF_A_MACHINE) + 1
    assert lines[1].startswith("ok      engine ")
    assert lines[-1].endswith("0 fail. The attempts to escape: agp-agent doctor --escape.")


@pytest.mark.parametrize(
    ("settings", "check", "level", "said"),
    [
        ({"AGP_TOKEN": ""}, "configuration", "fail", "AGP_TOKEN (not set)"),
        ({"AGP_DASHBOARD_URL": ""}, "configuration", "fail", "AGP_DASHBOARD_URL (not set)"),
        ({"AGP_DASHBOARD_URL": "http://127.0.0.1:9"}, "dashboard", "warn", "refused"),
        ({"AGP_DASHBOARD_URL": "https://127.0.0.1:9"}, "dashboard", "warn", "refused"),
        ({"AGP_HOST": "203.0.113.9"}, "address", "fail", "203.0.113.9"),
        ({"AGP_INTERFACE": "none0"}, "address", "fail", "none0"),
        ({"AGP_HOST": "0.0.0.0"}, "address", "warn", "0.0.0.0"),  # noqa: S104
        ({"DOCKER_HOST": "unix:///nowhere/docker.sock"}, "engine", "fail", "/nowhere/docker.sock"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:9"}, "socket", "fail", "open to whoever"),
    ],
)
def test_what_is_really_broken_is_found(
    configured: dict[str, str], settings: dict[str, str], check: str, level: str, said: str
) -> None:
    """The level, in words that name it; exit code 1 where it is a failure. A setting that is empty here is not set."""
    given = {name: value for name, value in (configured | settings).items() if value}
    ended = command_line(given)("doctor", "--json")
    found = checks(ended)[check]
    assert (found["level"], said in found["said"]) == (level, True), found
    assert ended.returncode == (1 if level == "fail" else 0), ended.stdout


@pytest.mark.parametrize(("size", "level", "exit_code"), [("16m", "fail", 1), ("512m", "warn", 0)])
def test_a_disk_that_is_full_or_soon_will_be_is_found(
    configured: dict[str, str], tmp_path: Path, size: str, level: str, exit_code: int
) -> None:
    """Where less is free than the agent needs to take a task on, and where two weeks of results may not fit."""
    state = tmp_path / "state"
    state.mkdir()
    ended = command_line(configured)("doctor", "--json", wrapper=with_tmpfs(state, size))
    assert (checks(ended)["disk"]["level"], ended.returncode) == (level, exit_code)


def test_runners_are_tried_for_real(configured: dict[str, str], tmp_path: Path) -> None:
    """An image that is missing is a warning where it would be pulled, a failure where it never is."""
    catalog = """\
runners:
  later: {image: "127.0.0.1:9/later:1", command: [sh, "{playbook}"]}
  never: {image: "127.0.0.1:9/never:1", pull: never, command: [sh, "{playbook}"]}
  ours: {image: "agp/runner-ours:1", pull: missing, command: [sh, "{playbook}"]}
"""
    ended = command_line(configured)("doctor", "--json", AGP_CATALOG=written(tmp_path, "catalog.yaml", catalog))
    found = checks(ended)
    assert (found["runner later"]["level"], found["runner never"]["level"]) == ("warn", "fail")
    assert (found["runner ours"]["level"], "anybody may have it" in found["runner ours"]["means"]) == ("warn", True)
    assert (found["runner shell"]["level"], ended.returncode) == ("ok", 1)


def test_a_runner_with_a_network_is_tried_with_its_fence(
    configured: dict[str, str], tmp_path: Path, engine: EngineSide
) -> None:
    """The fence stands, or the runner fails with the reason; the doctor's own bridge is gone afterwards."""
    catalog = f"""\
runners:
  net: {{image: "agp/runner-shell:{__version__}", network: outbound, command: [sh, "{{playbook}}"]}}
"""
    given = configured | {"AGP_CATALOG": str(written(tmp_path, "catalog.yaml", catalog))}
    fenced = checks(command_line(given)("doctor", "--json"))["runner net"]
    unfenced = checks(command_line(given)("doctor", "--json", AGP_FENCE_IMAGE="127.0.0.1:9/fence:1"))["runner net"]
    assert (fenced["level"], unfenced["level"]) == ("ok", "fail"), (fenced, unfenced)
    assert "fence" in unfenced["said"]
    assert engine.client.networks.list(filters={"label": "agp.agent_id=doctor"}) == []


def test_an_agent_of_the_same_name_is_found(
    configured: dict[str, str], dashboard: DashboardStub, tmp_path: Path
) -> None:
    """The containers of the running agent itself are not strangers; those of another state directory are."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, {"AGP_AGENT_ID": "twin"}) as agent:
        own = configured | {"AGP_STATE_DIR": str(agent.state)}
        agent.accept_task("own", "until [ -e /work/go ]; do sleep 0.05; done")
        container = agent.container_of("own")
        assert checks(command_line(own)("doctor", "--json"))["neighbours"]["level"] == "ok"
        stranger = agent.engine.client.containers.create(
            f"agp/runner-shell:{__version__}",
            name=f"agp-stranger-{secrets.token_hex(4)}",
            labels={"agp.agent_id": "twin", "agp.instance": "other"},
        )
        try:
            found = checks(command_line(own)("doctor", "--json"))["neighbours"]
        finally:
            stranger.remove()
        assert (found["level"], stranger.name in found["means"]) == ("warn", True)
        agent.engine.let_go(container)
        dashboard.result("own")


def test_another_engine_is_judged_by_what_it_says(configured: dict[str, str]) -> None:
    """Live-restore is on there, nothing was loaded into it, and its socket is everybody's."""
    with OwnEngine() as own:
        own.start(live_restore=True)
        path = Path(own.docker_host.removeprefix("unix://"))
        path.chmod(0o666)
        ended = command_line(configured)("doctor", "--json", DOCKER_HOST=own.docker_host)
    found = checks(ended)
    assert (found["live restore"]["level"], found["socket"]["level"]) == ("ok", "fail")
    assert "has mode 0666" in found["socket"]["said"]
    assert (found["runner shell"]["level"], ended.returncode) == ("fail", 1), "built-in images are never pulled"


def test_an_engine_on_an_old_kernel_is_found(configured: dict[str, str]) -> None:
    """With what else is usual of an engine that nobody looked after: it ends tasks when it restarts, and has a root."""
    with OwnEngine() as own:
        own.start(wrapper=OLD_KERNEL)
        found = checks(command_line(configured)("doctor", "--json", DOCKER_HOST=own.docker_host))
    assert (found["kernel"]["level"], found["kernel"]["said"][:4]) == ("warn", "2.6.")
    assert (found["live restore"]["level"], found["root"]["level"]) == ("warn", "warn")


def test_an_engine_without_seccomp_is_found_and_runs_nothing(configured: dict[str, str]) -> None:
    """The doctor's own containers are refused as a task's would be; with seccomp the same engine has them."""
    with OwnEngine() as own:
        own.start().load_runner_images()
        control = checks(command_line(configured)("doctor", "--json", DOCKER_HOST=own.docker_host))
        own.stop()
        own.start(wrapper=NO_SECCOMP)
        ended = command_line(configured)("doctor", "--json", DOCKER_HOST=own.docker_host)
    found = checks(ended)
    assert [control[check]["level"] for check in ("seccomp", "runner shell")] == ["ok", "ok"]
    assert [found[check]["level"] for check in ("seccomp", "runner shell")] == ["fail", "fail"], found
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("version", "level", "told"),
    [
        ("1.1.11", "warn", "CVE-2024-21626"),
        ("1.2.7", "warn", "CVE-2025-31133"),
        ("1.2.8", "ok", ""),
        ("1.4.0-rc.1", "warn", "holes of runc's releases alone"),
    ],
)
def test_a_runtime_with_known_holes_is_found(
    configured: dict[str, str], tmp_path: Path, version: str, level: str, told: str
) -> None:
    """By the number that the engine's program gives itself."""
    program = tmp_path / "programs/usr/bin/runc"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' 'runc version {version}' 'commit: {version}' 'spec: 1.0.2-dev'\n")
    program.chmod(0o755)
    with OwnEngine(programs=tmp_path / "programs") as own:
        own.start()
        found = checks(command_line(configured)("doctor", "--json", DOCKER_HOST=own.docker_host))["runtime"]
    assert found["said"].startswith(f"runc {version}")
    assert (found["level"], told in found["means"]) == (level, True), found


def test_results_that_would_go_nowhere_are_told(configured: dict[str, str]) -> None:
    """Beside the configuration, which fails for the same reason: what it means for results stands there."""
    configured.pop("AGP_DASHBOARD_URL")
    found = checks(command_line(configured)("doctor", "--json"))["dashboard"]
    assert (found["level"], found["means"]) == ("warn", "Results go nowhere.")


def test_clocks_that_do_not_agree_are_found(configured: dict[str, str], tmp_path: Path) -> None:
    """This machine's is an hour ahead of the engine's."""
    leaps = Leaps(tmp_path / "leaps")
    leaps.leap(60)
    found = checks(command_line(configured)("doctor", "--json", **leaps.environment))["clock"]
    assert found["level"] == "warn"
    assert -3602 < float(found["said"].split()[4]) < -3598


def test_an_address_of_the_tailnet_without_its_device_is_told(configured: dict[str, str]) -> None:
    """Whoever stands beside this machine can reach it there; with the device nobody can, and all is well."""
    tailnet = configured | {"AGP_HOST": "100.64.0.9"}
    doctor = command_line(tailnet)
    found = checks(doctor("doctor", "--json", wrapper=with_address("100.64.0.9", "tailscale0")))["address"]
    assert (found["level"], "static route" in found["means"]) == ("warn", True)
    bound = doctor("doctor", "--json", wrapper=with_address("100.64.0.9", "tailscale0"), AGP_INTERFACE="tailscale0")
    assert checks(bound)["address"]["level"] == "ok"


def test_an_engine_that_is_silent_does_not_hang_it(configured: dict[str, str], tmp_path: Path) -> None:
    """Something that takes connections and never answers is told after ten seconds."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen(16)
        ended = command_line(configured)("doctor", "--json", DOCKER_HOST=f"unix://{tmp_path}/deaf.sock")
    assert (checks(ended)["engine"]["level"], ended.returncode) == ("fail", 1)


def test_the_attempts_to_escape_are_made_and_held(configured: dict[str, str]) -> None:
    """On the operator's own engine, each in a container as tasks get; JSON tells all, exit code 0."""
    ended = command_line(configured)("doctor", "--json", "--escape")
    attempts = json.loads(ended.stdout)["escape"]
    assert [one["number"] for one in attempts] == [n for n in range(1, 26) if n not in (17, 18)]
    assert {one["verdict"] for one in attempts} == {"held"}, [one for one in attempts if one["verdict"] != "held"]
    assert ended.returncode == 0
