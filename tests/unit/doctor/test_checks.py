"""The doctor's checks, over facts: each says ok where all is well, and each warning and failure can be had."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from agp_agent.doctor.checks import CHECKS, Finding, Level, examine
from agp_agent.doctor.facts import Facts, Listening, RunnerFacts
from agp_agent.engine import EngineInfo
from agp_agent.lacks import Lack

GIB = 2**30
ENGINE = EngineInfo(
    name="host",
    version="28.5.2",
    cores=4,
    memory_bytes=8 * GIB,
    api_version="1.51",
    operating_system="Debian GNU/Linux 13",
    kernel="6.12.1",
    default_runtime="runc",
    runtime_version="v1.3.3-0-gd842d771",
    cgroup_version="2",
    live_restore=True,
    security=("seccomp", "apparmor", "userns", "cgroupns"),
)
WELL = Facts(
    endpoint="unix:///var/run/docker.sock",
    socket_mode=0o660,
    engine=ENGINE,
    clock_offset_s=0.1,
    clock_synchronised=True,
    state_dir=Path("/var/lib/agp-agent"),
    free_bytes=50 * GIB,
    listening=Listening("100.64.0.7", "tailscale0", tls=False),
    dashboard_url="https://dashboard.example",
    agent_id="a",
    runners={"shell": RunnerFacts("agp/runner-shell:1", "sha256:" + "0" * 64)},
)


def found(facts: Facts, check: str) -> Finding:
    """The finding of one check."""
    (finding,) = [one for one in examine(facts) if one.check == check]
    return finding


def with_engine(**changes: Any) -> Facts:
    """Facts of another engine."""
    return dataclasses.replace(WELL, engine=dataclasses.replace(ENGINE, **changes))


def test_where_all_is_well_every_check_says_ok() -> None:
    """Nothing is meant and nothing is to be mended."""
    findings = examine(WELL)
    assert [one.level for one in findings] == [Level.OK] * (len(CHECKS) + 1)
    assert not any(one.means or one.mend for one in findings)


@pytest.mark.parametrize(
    ("check", "changes", "level", "said"),
    [
        ("configuration", {"configuration": ("AGP_TOKEN (not set): …",)}, Level.FAIL, "AGP_TOKEN"),
        ("socket", {"endpoint": "http://10.0.0.1:2375"}, Level.FAIL, "open to whoever"),
        ("socket", {"socket_mode": 0o666}, Level.FAIL, "mode 0666"),
        ("disk", {"free_bytes": None}, Level.FAIL, "cannot be made"),
        ("disk", {"free_bytes": 2**20}, Level.FAIL, "0.0 GiB free"),
        ("disk", {"free_bytes": GIB // 2}, Level.WARN, "0.5 GiB free"),
        ("clock", {"clock_offset_s": -30.0}, Level.WARN, "-30.0 s"),
        ("clock", {"clock_synchronised": False}, Level.WARN, "not synchronised"),
        ("clock", {"clock_synchronised": None}, Level.OK, "agrees"),
        ("clock", {"clock_synchronised": None, "clock_offset_s": None}, Level.WARN, "not known"),
        ("address", {"listening": None}, Level.WARN, "not known"),
        ("address", {"listening": Listening("0.0.0.0", None, tls=False)}, Level.WARN, "0.0.0.0"),  # noqa: S104
        ("address", {"listening": Listening("::", None, tls=False)}, Level.WARN, "::"),
        ("address", {"listening": Listening("100.64.0.7", None, tls=False)}, Level.WARN, "100.64.0.7"),
        ("address", {"listening": Listening("node.example", None, tls=False)}, Level.OK, "node.example"),
        ("address", {"listening": Listening("10.9.9.9", None, tls=False, problem="not here")}, Level.FAIL, "not here"),
        ("dashboard", {"dashboard_url": None}, Level.WARN, "not set"),
        ("dashboard", {"dashboard_problem": "refused"}, Level.WARN, "refused"),
        ("dashboard", {"dashboard_proxy": "http://proxy:8"}, Level.WARN, "the proxy http://proxy:8 answers; whether"),
        (
            "dashboard",
            {"dashboard_proxy": "http://proxy:8", "dashboard_problem": "refused"},
            Level.WARN,
            "http://proxy:8: refused",
        ),
        ("neighbours", {"strangers": ("x", "y")}, Level.WARN, "2 containers"),
        ("neighbours", {"strangers": None}, Level.WARN, "not known"),
        ("runner shell", {"runners": {"shell": RunnerFacts("i")}}, Level.WARN, "not on the engine"),
        ("runner shell", {"runners": {"shell": RunnerFacts("i", pulls=False)}}, Level.FAIL, "not on the engine"),
        ("runner shell", {"runners": {"shell": RunnerFacts("agp/x:1")}}, Level.WARN, "agp/x:1 is not on the engine"),
        (
            "runner shell",
            {"runners": {"shell": RunnerFacts("i", "d", problem="it differs in HostConfig.Init")}},
            Level.FAIL,
            "HostConfig.Init",
        ),
        # An engine that refused to look has not said that the image is missing.
        ("runner shell", {"runners": {"shell": RunnerFacts("i", problem="the disk")}}, Level.FAIL, "the disk"),
    ],
)
def test_each_fact_about_this_machine_is_judged(check: str, changes: dict[str, Any], level: Level, said: str) -> None:
    """Level and words of one check, where one fact is another one."""
    finding = found(dataclasses.replace(WELL, **changes), check)
    assert (finding.level, said in finding.said) == (level, True), finding
    assert bool(finding.means and finding.mend) == (level is not Level.OK)


@pytest.mark.parametrize("pulls", [True, False])
def test_an_image_of_the_agent_s_own_is_not_to_be_pulled(*, pulls: bool) -> None:
    """On a public registry the name is of whoever takes it: it is built, or loaded."""
    own = found(dataclasses.replace(WELL, runners={"shell": RunnerFacts("agp/x:1", pulls=pulls)}), "runner shell")
    assert own.mend == "`make images`, or load it by hand."
    other = found(dataclasses.replace(WELL, runners={"shell": RunnerFacts("other/x:1", pulls=pulls)}), "runner shell")
    assert other.mend == "docker pull other/x:1, or load it by hand."


@pytest.mark.parametrize(
    ("check", "changes", "level", "told"),
    [
        ("runtime", {"runtime_version": "1.1.5+ds1-1"}, Level.WARN, "CVE-2024-21626"),
        ("runtime", {"runtime_version": "v1.0.3-0-gf46b6ba2"}, Level.WARN, "CVE-2024-21626"),
        ("runtime", {"runtime_version": "1.1.5+ds1-1+deb12u1"}, Level.WARN, "CVE-2025-31133"),
        ("runtime", {"runtime_version": "v1.1.15"}, Level.WARN, "CVE-2025-31133"),
        ("runtime", {"runtime_version": "v1.2.7"}, Level.WARN, "CVE-2025-31133"),
        ("runtime", {"runtime_version": "v1.3.2"}, Level.WARN, "CVE-2025-31133"),
        ("runtime", {"runtime_version": "v1.2.8"}, Level.OK, ""),
        ("runtime", {"runtime_version": "v1.4.0"}, Level.OK, ""),
        ("runtime", {"runtime_version": "1.4.0~rc.1+ds1-1"}, Level.WARN, "runc's releases alone"),
        ("runtime", {"runtime_version": "v1.4.0-rc.1-0-g0b2c6c2"}, Level.WARN, "runc's releases alone"),
        ("runtime", {"runtime_version": "v1.3.0-rc.1"}, Level.WARN, "CVE-2025-31133"),
        ("runtime", {"runtime_version": ""}, Level.WARN, "runc's releases alone"),
        ("runtime", {"runtime_version": "51d5e946"}, Level.WARN, "runc's releases alone"),
        ("runtime", {"runtime_version": "1.14.3", "default_runtime": "crun"}, Level.WARN, "runc's releases alone"),
        ("runtime", {"default_runtime": "nvidia"}, Level.WARN, "runc's releases alone"),
        ("kernel", {"kernel": "5.4.0-26-generic"}, Level.WARN, "5.10"),
        ("kernel", {"kernel": ""}, Level.WARN, "did not tell"),
        ("kernel", {"kernel": "mine"}, Level.WARN, "did not tell"),
        ("cgroups", {"lacks": frozenset({Lack.MEMORY, Lack.PIDS})}, Level.FAIL, "use up"),
        ("cgroups", {"lacks": frozenset({Lack.LOG_DRIVER})}, Level.OK, ""),
        ("cgroups", {"cgroup_version": "1"}, Level.WARN, "release agents"),
        ("cgroups", {"cgroup_version": ""}, Level.WARN, "did not tell"),
        ("live restore", {"live_restore": False}, Level.WARN, "ends every running task"),
        ("root", {"security": ("seccomp",)}, Level.WARN, "root of the host"),
        ("root", {"security": ("rootless",)}, Level.OK, ""),
        ("seccomp", {"security": ("apparmor",)}, Level.FAIL, "refused"),
        ("access control", {"security": ("seccomp",)}, Level.WARN, "second wall"),
        ("access control", {"security": ("selinux",)}, Level.OK, ""),
        ("log driver", {"lacks": frozenset({Lack.LOG_DRIVER})}, Level.FAIL, "refused"),
    ],
)
def test_each_fact_about_the_engine_is_judged(check: str, changes: dict[str, Any], level: Level, told: str) -> None:
    """Level and meaning of one check, where the engine is another one."""
    finding = found(with_engine(**changes), check)
    assert (finding.level, told in finding.means) == (level, True), finding


def test_podman_is_refused_by_name() -> None:
    """It would refuse every container, with a sentence that helps nobody."""
    finding = found(with_engine(kind="Podman", version="4.3.1"), "engine")
    assert finding.level is Level.FAIL


@pytest.mark.parametrize(("lack", "check"), [(Lack.SWAP, "cgroups"), (Lack.LOG_DRIVER, "log driver")])
def test_what_the_operator_accepts_to_be_missing_is_a_warning(lack: Lack, check: str) -> None:
    """AGP_ACCEPT_DEGRADED names it: containers are not refused for it, and it is told all the same."""
    facts = with_engine(lacks=frozenset({lack}))
    accepting = dataclasses.replace(facts, accepted=frozenset({lack}))
    assert (found(facts, check).level, found(accepting, check).level) == (Level.FAIL, Level.WARN)


def test_without_an_engine_nothing_about_it_is_guessed() -> None:
    """The check of the engine fails with the reason; those that depend on it say that they do not know."""
    findings = examine(dataclasses.replace(WELL, engine=None, engine_problem="it does not answer", runners={}))
    assert [one.said for one in findings if one.level is Level.FAIL] == ["it does not answer"]
    unknown = {one.check for one in findings if one.said == "not known"}
    assert unknown == {
        "runtime", "kernel", "cgroups", "live restore", "root", "seccomp", "access control", "log driver",
    }  # fmt: skip
