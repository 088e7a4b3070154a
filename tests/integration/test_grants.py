"""What the operator's catalog grants beside the playbook, as playbooks of the real agent find it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.agent_process import AgentProcess
from support.catalogs import python_runner, shell_runner, write_catalog
from support.dashboard_stub import DashboardStub
from support.engine_proxy import EngineProxy
from support.seccomp import profile_without

LIMITS_SEEN = """\
import json, os, re, resource
from pathlib import Path

def limit(*names):
    for name in names:
        for path in (Path("/sys/fs/cgroup", name), *Path("/sys/fs/cgroup").glob(f"*/{name}")):
            if path.exists():
                return path.read_text().split()[0]

mounts = {parts[4]: parts for parts in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())}
print(json.dumps({
    "memory": limit("memory.max", "memory.limit_in_bytes"),
    "pids": limit("pids.max"),
    "cpu": limit("cpu.max", "cpu.cfs_quota_us"),
    "scratch": re.findall(r"size=\\w+", mounts["/scratch"][-1]) + ["noexec" in mounts["/scratch"][5]],
    "has_work": "/work" in mounts,
    "user": os.getuid(),
    "word": os.environ["WORD"],
}))
"""
MAKES_A_FOLDER = "mkdir /work/folder && echo made || echo refused"


@pytest.fixture(scope="module")
def granted(folder: Path) -> Path:
    """A folder of the operator's, open to any user of a container."""
    granted = folder / "granted"
    granted.mkdir()
    granted.chmod(0o777)
    (granted / "file").write_text("from the host\n")
    (folder / "hosts").write_text("[web]\nweb1 ansible_host=192.0.2.1\n")
    return granted


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path, granted: Path) -> Iterator[AgentProcess]:
    """An agent whose catalog grants one thing to each runner."""
    profile, control = folder / "no-mkdir.json", folder / "mkdir.json"
    profile.write_text(json.dumps(profile_without("mkdir", "mkdirat")))
    control.write_text(json.dumps(profile_without()))
    mount = {"source": str(granted), "target": "/granted"}
    runners = {
        "reads": shell_runner(".ro", mounts=[mount]),
        "writes": shell_runner(".rw", mounts=[mount | {"rw": True}]),
        "limited": python_runner(
            ".limited",
            memory="96MiB",
            pids=40,
            cpus=0.5,
            tmpfs={"/scratch": "3MiB", "/work": "1MiB"},
            user=4242,
            env={"WORD": "with = and $HOME"},
        ),
        "inventory": {
            **shell_runner(".inv", inventory=str(folder / "hosts")),
            "image": f"agp/runner-ansible:{shell_runner('')['image'].partition(':')[2]}",
            "command": ["bash", "{playbook}"],
        },
        "stricter": shell_runner(".stricter", seccomp=str(control)),
        "plain": shell_runner(".plain"),
        "confined": shell_runner(".confined", seccomp=str(profile)),
        "elsewhere": shell_runner(".elsewhere", runtime="agp-no-such-runtime"),
        "runc": shell_runner(".runc", runtime="runc"),
    }
    catalog = write_catalog(folder / "catalog.yaml", runners)
    with AgentProcess(folder, dashboard.url, dashboard.token, {"AGP_CATALOG": catalog}) as process:
        yield process


def run(agent: AgentProcess, dashboard: DashboardStub, name: str, content: str) -> dict[str, Any]:
    """Run a playbook to its end; its result."""
    agent.accept_task(name, content, name)
    return dashboard.result(name)


def test_a_mount_is_read_only_unless_the_catalog_says_otherwise(
    agent: AgentProcess, dashboard: DashboardStub, granted: Path
) -> None:
    """Both see the host's file; only the one writes, and what it writes is on the host."""
    look = "cat /granted/file; { echo written > /granted/new; } 2>/dev/null && echo wrote || echo refused"
    assert run(agent, dashboard, "a.ro", look)["output"] == "from the host\nrefused\n"
    assert not (granted / "new").exists()
    assert run(agent, dashboard, "a.rw", look)["output"] == "from the host\nwrote\n"
    assert (granted / "new").read_text() == "written\n"


def test_limits_environment_memory_folders_and_user_are_the_catalogs(
    agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """As the kernel tells them to the playbook itself."""
    seen = json.loads(run(agent, dashboard, "a.limited", LIMITS_SEEN)["output"])
    assert seen == {
        "memory": str(96 * 2**20),
        "pids": "40",
        "cpu": "50000",
        "scratch": ["size=3072k", True],
        "has_work": True,
        "user": 4242,
        "word": "with = and $HOME",
    }


def test_an_inventory_is_mounted_and_named(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Ansible finds it without a word in the playbook."""
    result = run(agent, dashboard, "a.inv", "ansible-inventory --list; touch /inventory && echo writable")
    assert json.loads(result["output"].partition("touch:")[0])["web"]["hosts"] == ["web1"]
    assert "writable" not in result["output"]


def test_a_seccomp_profile_is_really_applied(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """The system call that it forbids fails; it succeeds without a profile, and with one that lacks nothing else."""
    assert run(agent, dashboard, "control.plain", MAKES_A_FOLDER)["output"] == "made\n"
    assert run(agent, dashboard, "control.stricter", MAKES_A_FOLDER)["output"] == "made\n"
    result = run(agent, dashboard, "a.confined", MAKES_A_FOLDER)
    assert result["output"].endswith("refused\n")
    assert "Operation not permitted" in result["output"]


def test_a_runtime_that_the_engine_lacks_is_refused_clearly(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """With those that it has; one that it has is used."""
    result = run(agent, dashboard, "a.elsewhere", "echo ran")
    assert (result["status"], result["output"]) == ("failed", "")
    expected = "the container engine refused the container: the engine has no runtime agp-no-such-runtime; it has "
    assert result["error"].startswith(expected)
    assert "runc" in result["error"]
    assert run(agent, dashboard, "a.runc", "echo ran")["output"] == "ran\n"


def test_a_source_that_was_swapped_for_a_forbidden_one_is_refused(dashboard: DashboardStub, tmp_path: Path) -> None:
    """The link was harmless when the catalog was read: it is looked at again before each container."""
    (tmp_path / "harmless").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "harmless")
    runners = {"linked": shell_runner(".linked", mounts=[{"source": str(link), "target": "/granted"}])}
    catalog = write_catalog(tmp_path / "catalog.yaml", runners)
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, {"AGP_CATALOG": catalog}) as agent:
        assert run(agent, dashboard, "before.linked", "ls /granted")["status"] == "completed"
        link.unlink()
        link.symlink_to("/etc")
        result = run(agent, dashboard, "after.linked", "cat /granted/shadow")
        assert (result["status"], result["output"]) == ("failed", "")
        assert f"{link} leads to /etc, which is the host's configuration" in result["error"]
        agent.wait_audited("container refused", runner="linked")


@pytest.mark.parametrize(
    ("asked", "made", "field"),
    [
        (b'"ReadonlyRootfs": true', b'"ReadonlyRootfs":false', "HostConfig.ReadonlyRootfs"),
        (b'"CapDrop": ["ALL"]', b'"CapDrop": [     ]', "HostConfig.CapDrop"),
        (b'"no-new-privileges:true"', b'"seccomp=unconfined"    ', "HostConfig.SecurityOpt"),
        (b'"ReadOnly": true', b'"ReadOnly":false', "Mounts"),
        (b'"PidsLimit": 256', b'"PidsLimit":  -1', "HostConfig.PidsLimit"),
    ],
    ids=["root", "capabilities", "seccomp", "playbook", "pids"],
)
def test_an_engine_that_ignores_a_flag_is_found_out(
    dashboard: DashboardStub, tmp_path: Path, asked: bytes, made: bytes, field: str
) -> None:
    """What it really made is read back: the container is removed, the task refused, and both are audited."""
    with EngineProxy(tmp_path / "engine.sock").open() as proxy:
        settings = {"DOCKER_HOST": proxy.docker_host}
        with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings) as agent:
            name = f"ignored {field}"
            proxy.rewrite = asked, made
            result = run(agent, dashboard, f"{name}.sh", "echo ran")
            assert (result["status"], result["output"]) == ("failed", "")
            assert field in result["error"]
            assert "it was removed again" in result["error"]
            assert field in agent.wait_audited("container refused")["why"]
            assert agent.engine.containers(agent.instance) == []
            proxy.rewrite = None
            assert run(agent, dashboard, f"{name} no more.sh", "echo ran")["output"] == "ran\n"


def test_the_folder_of_the_state_cannot_be_mounted(dashboard: DashboardStub, tmp_path: Path) -> None:
    """The agent does not start with such a catalog, and says which key it is."""
    state = tmp_path / "agent" / "state"
    runners = {"thief": shell_runner(".sh", mounts=[{"source": str(state / "slots"), "target": "/all"}])}
    catalog = write_catalog(tmp_path / "catalog.yaml", runners)
    agent = AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, {"AGP_CATALOG": catalog})
    with pytest.raises(AssertionError, match="the agent ended"):
        agent.start()
    agent.close()
    assert (
        f"runner thief, mounts.0.source: expected a folder or file that may be mounted; {state}/slots is in {state}"
        in (agent.log_text())
    )
    assert agent.process.returncode == 78
