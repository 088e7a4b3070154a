"""The lockdown that every task's container has by default: as a playbook sees it, and as the engine tells it."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent import __version__, seccomp
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.playbooks import WAITING

MIB = 2**20
LOOK_AROUND = """\
import errno, os, re, resource, socket
from pathlib import Path

def failure(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def execute():
    Path("/work/program").write_text("#!/bin/sh")
    os.chmod("/work/program", 0o700)
    os.execv("/work/program", ["program"])

def mounted(path):
    options = [option for option in mounts[path][5].split(",") if option in ("rw", "nosuid", "nodev", "noexec")]
    return options + re.findall(r"size=\\w+", mounts[path][-1]) + [os.stat(path).st_uid == os.getuid()]

status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
mounts = {parts[4]: parts for parts in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())}
probe = socket.socket()
probe.settimeout(2)
print({
    "identity": [os.getuid() == os.getgid(), os.getgroups() in ([], [os.getgid()]), os.getuid() >= 20000],
    "account": os.environ["HOME"] == os.path.expanduser(f"~task{os.getuid()}"),
    "cwd": os.getcwd(),
    "hostname": socket.gethostname(),
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "first_process": Path("/proc/1/comm").read_text().strip(),
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "gateway": failure(lambda: probe.connect(("172.17.0.1", 80))),
    "root": failure(lambda: Path("/x").write_text("x")),
    "usr": failure(lambda: Path("/usr/bin/x").write_text("x")),
    "playbook_append": failure(lambda: open(__file__, "ab")),
    "playbook_chmod": failure(lambda: os.chmod(__file__, 0o777)),
    "playbook_remove": failure(lambda: os.remove(__file__)),
    "playbook_beside": failure(lambda: Path("/playbook/x").write_text("x")),
    "playbook_mode": oct(os.stat(__file__).st_mode),
    "playbook_options": "ro" in mounts["/playbook"][5].split(","),
    "tmp": failure(lambda: Path("/tmp/x").write_text("x")),
    "work": failure(lambda: Path("/work/x").write_text("x")),
    "exec_from_work": failure(execute),
    "tmpfs": {path: mounted(path) for path in ("/tmp", "/work")},
    "shm": re.findall(r"size=\\w+", mounts["/dev/shm"][-1]),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "file_size": resource.getrlimit(resource.RLIMIT_FSIZE),
    "socket": [path for path in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(path)],
    "devices": sorted(os.listdir("/dev")),
    "environment": sorted(os.environ),
})
"""


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent as it comes."""
    with AgentProcess(folder, dashboard.url, dashboard.token) as process:
        yield process


def test_a_playbook_finds_itself_locked_in(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """User, capabilities, files, network and limits are the defaults, every one."""
    agent.accept_task("look around", LOOK_AROUND, "look.py")
    result = dashboard.result("look around")
    assert result["status"] == "completed", result["output"]
    seen: dict[str, Any] = ast.literal_eval(result["output"])
    devices = seen.pop("devices")
    assert seen == {
        "identity": [True, True, True],
        "account": True,
        "cwd": "/work",
        "hostname": "runner",
        "capabilities": ["0000000000000000"] * 5,
        "no_new_privileges": "1",
        "seccomp": "2",
        "first_process": "docker-init",
        "interfaces": ["lo"],
        "gateway": "ENETUNREACH",
        "root": "EROFS",
        "usr": "EROFS",
        "playbook_append": "EACCES",
        "playbook_chmod": "EROFS",
        "playbook_remove": "EROFS",
        "playbook_beside": "EROFS",
        "playbook_mode": "0o100444",
        "playbook_options": True,
        "tmp": "done",
        "work": "done",
        "exec_from_work": "EACCES",
        "tmpfs": {
            "/tmp": ["rw", "nosuid", "nodev", "noexec", "size=65536k", True],
            "/work": ["rw", "nosuid", "nodev", "noexec", "size=262144k", True],
        },
        "shm": ["size=1024k"],
        "files": (1024, 1024),
        "core": (0, 0),
        "file_size": (2**30, 2**30),
        "socket": [],
        "environment": ["HOME", "HOSTNAME", "LANG", "PATH", "PWD", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"],
    }
    assert not {"mem", "kmsg", "sda", "vda", "kvm"} & set(devices)


@pytest.mark.parametrize(
    ("suffix", "content", "image", "work_options"),
    [
        (".sh", WAITING, "agp/runner-shell", "noexec"),
        (
            ".py",
            "import os, time\nprint('before', flush=True)\nwhile not os.path.exists('/work/go'):\n    time.sleep(0.05)",
            "agp/runner-python",
            "noexec",
        ),
        (
            ".yml",
            "- hosts: all\n  gather_facts: false\n  tasks:\n    - wait_for: {path: /work/go, timeout: 200}\n",
            "agp/runner-ansible",
            "exec",
        ),
    ],
    ids=["shell", "python", "ansible"],
)
def test_the_engine_made_what_was_asked_for(
    agent: AgentProcess, dashboard: DashboardStub, suffix: str, content: str, image: str, work_options: str
) -> None:
    """Inspect of a running container shows the whole lockdown, and names that tell nothing of the task."""
    task_id = f"inspected {suffix}"
    agent.accept_task(task_id, content, f"secret-name{suffix}")
    container = agent.container_of(task_id)
    inspected = agent.engine.inspect(container)
    agent.engine.let_go(container)
    config, host = inspected["Config"], inspected["HostConfig"]
    slot = inspected["Name"].removeprefix("/")
    uid = config["User"].partition(":")[0]
    labels = {name: value for name, value in config["Labels"].items() if not name.startswith("org.")}
    assert {name: labels[name] for name in labels if name not in {"agp.build.inputs", "agp.runner.contract"}} == {
        "agp.agent_id": agent.audit("agent started")[0]["agent_id"],
        "agp.instance": agent.instance,
        "agp.slot": slot,
        "agp.uid": uid,
        "agp.runner": image.removeprefix("agp/runner-"),
    }
    # By the image's id: its tag may move between the look for it and the creation.
    assert config["Image"] == agent.engine.client.images.get(f"{image}:{__version__}").id
    assert (config["Hostname"], config["StdinOnce"], config["Tty"]) == ("runner", True, False)
    assert config["NetworkDisabled"] is True
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    (mount,) = inspected["Mounts"]
    assert (mount["Source"], mount["Destination"], mount["RW"], mount["Propagation"]) == (
        str(agent.state / "slots" / slot / "playbook"),
        "/playbook",
        False,
        "rprivate",
    )
    assert host["ReadonlyRootfs"] is True
    assert (host["Privileged"], host["CapDrop"], host["CapAdd"]) == (False, ["ALL"], None)
    assert host["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={seccomp.profile()}"]
    assert (host["IpcMode"], host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("private", "", "", "")
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (512 * MIB, 512 * MIB, 10**9)
    assert (host["PidsLimit"], host["ShmSize"], host["Init"]) == (256, MIB, True)
    assert (host["RestartPolicy"]["Name"], host["AutoRemove"]) == ("no", False)
    assert not any(host[name] for name in ("Binds", "PortBindings", "Devices", "GroupAdd", "VolumesFrom"))
    assert host["LogConfig"]["Type"] == "local"
    assert int(host["LogConfig"]["Config"]["max-file"]) >= 2
    assert set(host["Tmpfs"]) == {"/tmp", "/work"}
    assert f"nosuid,nodev,{work_options}," in host["Tmpfs"]["/work"]
    assert not {*inspected["NetworkSettings"]["Networks"]} - {"bridge", "none"}
    assert inspected["NetworkSettings"]["IPAddress"] == ""
    told = json.dumps(inspected)
    assert task_id not in told
    assert "secret-name" not in told
    result = dashboard.result(task_id)
    assert result["status"] == ("failed" if suffix == ".sh" else "completed"), result["output"]
    agent.engine.wait_removed(container)


def test_ansible_does_real_work_on_a_read_only_root(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """It gathers facts, renders a template, runs programs, and counts what changed."""
    playbook = """\
- hosts: all
  tasks:
    - name: Render
      ansible.builtin.copy:
        content: "on {{ ansible_facts['distribution'] }} as {{ ansible_facts['user_id'] }}\\n"
        dest: /work/rendered
    - name: Read
      ansible.builtin.command: cat /work/rendered
      register: rendered
      changed_when: false
    - name: Show
      ansible.builtin.debug:
        var: rendered.stdout
    - name: A program of its own
      ansible.builtin.shell: "printf '#!/bin/sh\\necho ran\\n' > /work/p && chmod 700 /work/p && /work/p"
"""
    agent.accept_task("real work", playbook, "real.yml")
    result = dashboard.result("real work")
    assert result["error"] is None, result["output"]
    assert "on Debian as task20" in result["output"]
    assert "ok=5    changed=2    unreachable=0    failed=0" in result["output"]
    assert "WARNING" not in result["output"]
