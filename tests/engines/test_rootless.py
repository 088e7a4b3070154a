"""A rootless Docker: what it cannot do is refused until its operator accepts that; the rest is as it is everywhere."""

import json
from collections.abc import Iterator

import pytest

from engines.others import RootlessDocker, playbook
from support.own_engine import RUNNER_IMAGES

pytestmark = pytest.mark.engines

CONFINED = """\
id -u
read -r _ first _ </proc/self/uid_map; echo "root is $first"
awk 'NR > 2 {print $1}' /proc/net/dev
touch /x 2>/dev/null || echo read-only
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[RootlessDocker]:
    """One with the built-in runners' images."""
    with RootlessDocker() as made:
        made.load(*RUNNER_IMAGES)
        yield made


@pytest.fixture(scope="module")
def lacking(engine: RootlessDocker) -> str:
    """What this engine says that it cannot do; cgroup v1 gives a user no limits at all, v2 those that are delegated."""
    said = json.loads(engine.docker("info", "--format", "{{json .}}"))
    names = {"SwapLimit": "swap", "MemoryLimit": "memory", "PidsLimit": "pids", "CpuCfsQuota": "cpus"}
    return ",".join(name for field, name in names.items() if not said[field])


def test_the_doctor_names_it_and_what_it_lacks(engine: RootlessDocker, lacking: str) -> None:
    """No root, and which limits there are not."""
    report = json.loads(engine.agent("doctor", "--json").stdout)
    found = {one["check"]: one for one in report["checks"]}
    assert found["root"]["level"] == "ok"
    assert (found["cgroups"]["level"] == "fail") == bool(lacking)
    assert all(name in found["cgroups"]["said"] for name in lacking.split(","))
    accepted = json.loads(engine.agent("doctor", "--json", AGP_ACCEPT_DEGRADED=lacking).stdout)
    (cgroups,) = (one for one in accepted["checks"] if one["check"] == "cgroups")
    assert cgroups["level"] != "fail"


def test_what_it_cannot_limit_is_refused_until_that_is_accepted(engine: RootlessDocker, lacking: str) -> None:
    """It takes a limit and shows it when it is read back, and holds nobody to it: only its own word tells."""
    with playbook(engine.folder, "hello.sh", "echo hello\n") as path:
        refused = engine.agent("run", path)
        if lacking:
            assert refused.returncode == 69
            assert "hello" not in refused.stdout
            first, *others = lacking.split(",")
            assert f"the engine says that it cannot do: {', '.join([first, *others])} (" in refused.stderr
            half = engine.agent("run", path, AGP_ACCEPT_DEGRADED=first)
            assert (half.returncode == 0) == (not others)
            assert not others or f"it cannot do: {', '.join(others)} (" in half.stderr
        accepted = engine.agent("run", path, AGP_ACCEPT_DEGRADED=lacking)
        assert (accepted.returncode, accepted.stdout) == (0, "hello\n"), accepted.stderr


def test_all_runners_run_and_the_rest_of_the_lockdown_holds(engine: RootlessDocker, lacking: str) -> None:
    """A user of its own, no network, no capability, a read-only image; and root in there is nobody out here."""
    with playbook(engine.folder, "confined.sh", CONFINED) as path:
        confined = engine.agent("run", path, AGP_ACCEPT_DEGRADED=lacking)
    uid, root, *rest = confined.stdout.splitlines()
    assert 20000 <= int(uid) <= 20255
    assert root != "root is 0"
    assert rest == ["lo:", "read-only", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    with playbook(engine.folder, "hello.py", "print('hello')\n") as path:
        assert engine.agent("run", path, AGP_ACCEPT_DEGRADED=lacking).stdout == "hello\n"
    plays = "- hosts: all\n  tasks:\n  - debug: {msg: '{{ ansible_facts.distribution }}'}\n"
    with playbook(engine.folder, "site.yml", plays) as path:
        played = engine.agent("run", path, AGP_ACCEPT_DEGRADED=lacking)
    assert (played.returncode, "msg: Debian" in played.stdout) == (0, True), played.stdout
