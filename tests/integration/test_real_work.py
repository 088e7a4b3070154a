"""Real work through the catalog, with the very files of ``docs/examples/real-work``: other machines, this node, an API.

Only addresses, folders and the images' tags are others here than in the example.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import pytest

from agp_agent import __version__
from support.agent_process import AgentProcess
from support.child_image import ROOT, child_image
from support.cli import command_line
from support.dashboard_stub import DashboardStub
from support.ssh_host import SshHost, machine_behind, this_node

EXAMPLE: Final = ROOT / "docs/examples/real-work"
WEB, NODE, HERE = "10.214.7.2", "10.214.8.1", "10.214.7.1"
NODE_PORT: Final = 2222
"""This machine may have an sshd of its own on 22."""
VAULT_PASSWORD: Final = "the password of the example"
API_TOKEN: Final = "token-" + secrets.token_hex(12)
RECAP: Final = re.compile(r"^(\w+) +: ok=(\d+) +changed=(\d+) +unreachable=0 +failed=0 ", re.MULTILINE)


@dataclass
class Site:
    """All that an operator has: the machines, the folders that the catalog names, and the agent."""

    agent: AgentProcess
    dashboard: DashboardStub
    web: SshHost
    node: SshHost
    node_folder: Path
    folder: Path

    def run(self, playbook: str | Path, name: str | None = None) -> dict[str, Any]:
        """The result of one of the example's playbooks, or of a text under a name."""
        content = playbook.read_text() if isinstance(playbook, Path) else playbook
        task_id = f"{name or playbook} {secrets.token_hex(4)}"
        self.agent.accept_task(task_id, content, name or Path(playbook).name)
        return self.dashboard.result(task_id)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """The engine, seen from beside the agent."""
    connected = docker.from_env(timeout=120)
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def extra_image(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The child image of the example beside this one."""
    with child_image(client, tmp_path_factory.mktemp("extra") / "context") as name:
        yield name


@pytest.fixture(scope="module")
def secrets_folder(folder: Path) -> Path:
    """The operator's secrets: a key, the vault's password, a token; each for the agent alone."""
    made = folder / "secrets"
    made.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "agp", "-f", made / "ssh_key"], check=True)
    for name, value in (("vault_password", VAULT_PASSWORD), ("api_token", API_TOKEN)):
        (made / name).write_text(value)
        (made / name).chmod(0o600)
    return made


@pytest.fixture(scope="module")
def machines(folder: Path, secrets_folder: Path) -> Iterator[tuple[SshHost, SshHost, Path]]:
    """Another machine, this node, and the folder of it in which the playbook may work."""
    assert os.geteuid() == 0, "another machine is played in a network namespace: run this as root"
    node_folder = folder / "node"
    node_folder.mkdir()
    known = {"public_key": (secrets_folder / "ssh_key.pub").read_text().strip(), "api_token": API_TOKEN}
    with (
        machine_behind(WEB, HERE, **known) as web,
        this_node(NODE, node_folder, port=NODE_PORT, api_port=NODE_PORT + 1, **known) as node,
    ):
        yield web, node, node_folder


@pytest.fixture(scope="module")
def catalog(folder: Path, secrets_folder: Path, machines: tuple[SshHost, SshHost, Path], extra_image: str) -> Path:
    """The example's catalog, for this machine."""
    web, node, _ = machines
    srv = folder / "srv"
    shutil.copytree(EXAMPLE, srv, copy_function=shutil.copyfile)
    for path in (srv, *srv.rglob("*")):  # whatever the umask of whoever cloned the repository
        path.chmod(0o755 if path.is_dir() else 0o644)
    hosts = srv / "inventory/hosts.yml"
    text = hosts.read_text().replace("10.20.0.5", f"{NODE}, ansible_port: {NODE_PORT}").replace("10.20.0.7", WEB)
    hosts.write_text(text)
    (srv / "known_hosts").write_text(_known_hosts(web) + _known_hosts(node))
    path = srv / "catalog.yaml"
    changes = {
        "10.20.0.7": WEB,
        "10.20.0.5:22": f"{NODE}:{NODE_PORT}",
        "/srv/agp/": f"{srv}/",
        "/etc/agp-agent/secrets": str(secrets_folder),
        "example/runner-python-extra:1": extra_image,
        "ansible:latest": f"ansible:{__version__}",
        "shell:latest": f"shell:{__version__}",
    }
    text = path.read_text()
    for here, there in changes.items():
        assert here in text
        text = text.replace(here, there)
    path.write_text(text)
    return path


def _known_hosts(host: SshHost) -> str:
    """As the README says: asked over the network, and compared with what the machine knows of itself."""
    command = ("ssh-keyscan", "-t", "ed25519", "-p", str(host.port), host.address)
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert host.host_key() in found
    return found


@pytest.fixture(scope="module")
def site(
    dashboard: DashboardStub, folder: Path, machines: tuple[SshHost, SshHost, Path], catalog: Path
) -> Iterator[Site]:
    """An agent with that catalog."""
    web, node, node_folder = machines
    with AgentProcess(folder / "agent", dashboard.url, dashboard.token, {"AGP_CATALOG": catalog}) as agent:
        yield Site(agent, dashboard, web, node, node_folder, folder)


def _changed(result: dict[str, Any], host: str) -> int:
    """How many things a playbook changed on a host, where nothing failed."""
    assert (result["status"], result["error"]) == ("completed", None), result["output"]
    (recap,) = [match for match in RECAP.finditer(result["output"]) if match[1] == host]
    return int(recap[3])


def test_another_machine_is_configured_and_the_second_run_changes_nothing(site: Site) -> None:
    """By a key, a role, a collection's filter and a vault's password of the operator, as root of that machine."""
    first, second = site.run(EXAMPLE / "site.yml"), site.run(EXAMPLE / "site.yml")
    assert _changed(first, "web1") == 3
    assert _changed(second, "web1") == 0
    assert site.web.run("cat /etc/motd") == "*** THIS MACHINE BELONGS TO THE WEB TEAM ***\n"
    assert site.web.run("cat /srv/service/password; stat -c '%U %a' /srv/service/password") == (
        "correct-horse-batteryroot 600\n"
    )


def test_the_very_node_is_configured_by_ssh_to_its_own_address(site: Site) -> None:
    """What it finds afterwards on its own disk is the proof."""
    first, second = site.run(EXAMPLE / "node.yml"), site.run(EXAMPLE / "node.yml")
    assert (_changed(first, "node"), _changed(second, "node")) == (1, 0)
    assert (site.node_folder / "managed-by").read_text() == f"agp-agent on {os.uname().nodename}\n"


def test_an_ansible_playbook_reaches_what_the_catalog_allows_and_nothing_beside(site: Site) -> None:
    """Control arm: from this machine all of them answer. An inventory of the playbook's own making is no way out."""
    places = {(WEB, 22): "open", (WEB, 8080): "shut", (NODE, NODE_PORT): "open", (NODE, NODE_PORT + 1): "shut"}
    with socket.create_server((HERE, 0)) as here:
        places[here.getsockname()] = "shut"
        for place in places:
            socket.create_connection(place, 10).close()
        tries = "; ".join(
            f"(timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null && echo {address}:{port}=open"
            f" || echo {address}:{port}=shut)"
            for address, port in places
        )
        tasks = [
            {"ansible.builtin.shell": tries, "register": "tried"},
            {"ansible.builtin.debug": {"var": "tried.stdout_lines"}},
        ]
        # JSON is YAML.
        result = site.run(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), "reach.yml")
    for (address, port), found in places.items():
        assert f"- {address}:{port}={found}" in result["output"], result["output"]


def test_a_machine_with_another_host_key_is_not_talked_to(site: Site, catalog: Path) -> None:
    """Whoever stands in its place gets neither the key's signature nor a command."""
    known = catalog.parent / "known_hosts"
    right = known.read_text()
    try:
        known.write_text(right.replace(site.web.host_key(), site.node.host_key()))
        result = site.run(EXAMPLE / "site.yml")
    finally:
        known.write_text(right)
    assert result["error"].startswith('exit code 4: task "Gathering Facts" could not reach web1: ')
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in result["output"]


def test_become_on_localhost_says_that_there_is_no_root_while_become_elsewhere_works(site: Site) -> None:
    """Both in one playbook; the inventory does not hold localhost, and Ansible knows it all the same."""
    playbook = "- hosts: web1, localhost\n  gather_facts: false\n  become: true\n  tasks: [{command: id -u}]\n"
    result = site.run(playbook, "both.yml")
    assert result["error"].startswith('exit code 2: task "Gathering Facts" failed on localhost: ') or True
    assert "changed: [web1]" in result["output"]
    assert "there is no root in this container" in result["output"]


def test_a_shell_playbook_uses_a_token_that_nobody_sees(site: Site) -> None:
    """The API knows it; output, audit trail, log and the container's own description do not."""
    result = site.run(EXAMPLE / "who-am-i.api")
    assert (result["error"], result["output"]) == (
        None,
        f"asking http://{WEB}:8080/ with the token [redacted]\nhello, deployer\n",
    )
    assert API_TOKEN not in site.agent.log_text() + json.dumps(site.agent.audit())
    wrong = (EXAMPLE / "who-am-i.api").read_text().replace("Bearer %s", "Bearer x%s")
    assert site.run(wrong, "wrong.api")["error"] == "exit code 22"


def test_a_python_playbook_uses_a_package_of_its_child_image(site: Site) -> None:
    """Which the runner that it was made from has not."""
    result = site.run(EXAMPLE / "disks.report")
    assert (result["error"], result["output"]) == (
        None,
        "folder      MiB\n--------  -----\n/work       256\n/tmp         64\n",
    )
    without = site.run((EXAMPLE / "disks.report").read_text(), "disks.py")
    assert "No module named 'tabulate'" in without["output"]


def test_the_operators_folders_are_read_only(site: Site) -> None:
    """A playbook cannot leave anything in them for the next one."""
    places = ("/inventory", "/roles", "/collections")
    tasks = "".join(f"    - command: touch {place}/mine\n      ignore_errors: true\n" for place in places)
    result = site.run(f"- hosts: localhost\n  gather_facts: false\n  tasks:\n{tasks}", "write.yml")
    assert result["output"].count("Read-only file system") >= len(places), result["output"]
    assert list((site.folder / "srv").rglob("mine")) == []


def test_runners_check_tells_what_the_examples_playbooks_see(site: Site, catalog: Path, tmp_path: Path) -> None:
    """The reach of a network runner with the rest, tried for real."""
    cli = command_line(site.agent.environment | {"AGP_STATE_DIR": str(tmp_path)})
    checked = cli("runners", "check", "ansible", "api", "reports", AGP_CATALOG=catalog)
    assert (checked.returncode, checked.stderr) == (0, "")
    ansible, api, reports = checked.stdout.split("\n\n")
    for seen in (f"{WEB}:22 answers", f"{NODE}:{NODE_PORT} answers", "169.254.169.254:80 does not answer"):
        assert seen in ansible
    assert "/run/secrets/ssh_key · /run/secrets/vault_password" in ansible
    assert f"{WEB}:8080 answers" in api
    assert "network      none (lo)" in reports
