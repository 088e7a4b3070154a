"""Runners for people: the list of a catalog, what the probe saw, and what is told of it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agp_agent.catalog import Catalog, Runner
from agp_agent.runner_check import Report, document, probe, table
from agp_agent.runner_check.probe import Place, Sight

SEEN = """\
probe\t1
user\t20007 task20007 /work
status\tCapBnd:\t0000000000000000
status\tCapEff:\t0000000000000000
status\tNoNewPrivs:\t1
limit\tMax file size             1073741824           1073741824           bytes
limit\tMax open files            1024                 1024                 files
cgroup\tmemory/memory.limit_in_bytes 536870912
cgroup\tpids/pids.max 256
writable\t/work exec
mount\t/ overlay ro,relatime
mount\t/work tmpfs rw,nosuid,nodev,size=262144k,mode=700
writable\t/work exec
granted\t/inventory readable
granted\t/roles unreadable
secret\tssh_key
environment\tHOME
environment\tLANG
environment\tnot a name
device\teth0
device\tlo
gateway\teth0 010011AC
resolver\t127.0.0.11
reach\t10.0.0.7|22 0
reach\t169.254.169.254|80 1
reach\t10.0.0.8|443 2
command\t/usr/bin/ansible-playbook
tool\tssh\tOpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1 1 Jul 2025
tool\tperl\tThis is perl 5, version 40, subversion 1 (v5.40.1) built for x86_64
tool\tsh\tsh: 0: Illegal option --
end\t1
"""
RUNNER: dict[str, Any] = {
    "image": "agp/runner-ansible:1",
    "command": ["ansible-playbook", "{playbook}"],
    "match": {"suffixes": [".yml"], "shebangs": ["ansible-playbook"], "plays": True},
    "tmpfs": {"/work": {"size": "256MiB", "exec": True}},
    "network": "outbound",
    "allow": ["10.0.0.7:22", "10.0.0.8:443", "10.1.0.0/16:22", "10.2.0.1"],
    "inventory": "/srv/inventory",
    "mounts": [{"source": "/srv/roles", "target": "/roles"}],
    "secrets": [{"source": "/srv/key", "name": "ssh_key"}],
    "timeout_s": 60,
}


def runner(**more: object) -> Runner:
    """A runner that uses much of what a catalog can say."""
    return Catalog.model_validate({"runners": {"ansible": RUNNER | more}}).runners["ansible"]


def sight() -> Sight:
    """What the probe saw in it."""
    seen = probe.read(SEEN)
    assert seen is not None
    return seen


def test_what_the_probe_told_is_read() -> None:
    """Each line that it can say."""
    seen = sight()
    assert (seen.uid, seen.user, seen.home) == (20007, "task20007", "/work")
    assert (seen.capabilities, seen.no_new_privileges) == (0, True)
    assert seen.places == (Place("/work", executable=True, size_bytes=256 * 2**20),)
    assert (seen.memory_bytes, seen.pids) == (512 * 2**20, 256)
    assert seen.limits == {"file size": "1073741824", "open files": "1024"}
    assert (seen.devices, seen.gateway, seen.resolvers) == (("eth0", "lo"), "172.17.0.1 by eth0", ("127.0.0.11",))
    assert seen.reached == {"10.0.0.7:22": True, "169.254.169.254:80": False, "10.0.0.8:443": None}
    assert seen.tools == {"ssh": "10.0p2", "perl": "5.40.1", "sh": ""}
    assert (seen.unreadable, seen.secrets, seen.environment) == (("/roles",), ("ssh_key",), ("HOME", "LANG"))


@pytest.mark.parametrize(
    "output", ["", "hello\n", SEEN.removesuffix("end\t1\n"), SEEN.removeprefix("probe\t1\n"), SEEN + "end\t1\n"]
)
def test_output_that_is_not_all_of_the_probes_is_not_read(output: str) -> None:
    """Half of it would look like a runner that has less."""
    assert probe.read(output) is None


def test_an_image_that_can_tell_little_is_read_all_the_same() -> None:
    """No id, no cgroups, no route: what is not told is not there."""
    seen = probe.read("probe\t1\nuser\t  \nstatus\tCapEff:\t3f\nend\t1\n")
    assert seen is not None
    assert (seen.uid, seen.user, seen.home, seen.gateway, seen.command) == (None, "", "", None, "")
    assert (seen.capabilities, seen.no_new_privileges, seen.memory_bytes) == (0x3F, None, None)


def test_the_script_tries_what_the_catalog_grants() -> None:
    """Single addresses with a port, and the metadata service; networks and bare addresses cannot be tried."""
    script = probe.script(runner())
    assert "TARGETS='10.0.0.7|22 10.0.0.8|443 169.254.169.254|80'\n" in script
    assert "MOUNTS='/roles /inventory'\n" in script
    assert "TARGETS=''\n" in probe.script(runner(network="none", allow=[]))


def test_the_script_runs_in_a_shell_of_this_machine_and_is_read(tmp_path: Path) -> None:
    """It tells names of variables, and no value of any, whatever is in it."""
    file = tmp_path / "probe.sh"
    file.write_text(probe.script(runner(command=["no'such", "{playbook}"])))
    environment = {"PATH": "/usr/bin:/bin", "PLAIN": "value-of-it", "LINES": "one\nSECRET=two"}
    ended = subprocess.run(["sh", file], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    seen = probe.read(ended.stdout)
    assert seen is not None
    assert {"PLAIN", "LINES", "PATH"} <= set(seen.environment)
    assert "SECRET" not in seen.environment
    assert "value-of-it" not in ended.stdout
    assert seen.command == ""
    assert seen.unreadable == ("/roles", "/inventory")


def test_a_runner_that_is_as_the_catalog_says_has_no_problem() -> None:
    """And its report says what a playbook sees."""
    report = Report(runner(), "sha256:" + "a" * 64, sight=replace(sight(), unreadable=()))
    assert report.problems == ()
    text = report.text()
    assert text.startswith("ansible: fine, agp/runner-ansible:1 (sha256:aaaaaaaaaaaa…)\n")
    for line in (
        "user         20007 (task20007), home /work, no capabilities, none to gain",
        "writable     /work 256 MiB exec",
        "limits       memory 512 MiB · 1 CPU · 256 processes · file size 1 GiB · open files 1024 · 60 s",
        "gateway 172.17.0.1 by eth0 · resolver 127.0.0.11 · allowed beside the internet: 10.0.0.7:22, 10.0.0.8:443",
        "10.0.0.7:22 answers · 169.254.169.254:80 does not answer · 10.0.0.8:443 was not tried",
        "mounts       /roles read-only (/srv/roles) · /inventory read-only (/srv/inventory)",
        "secrets      /run/secrets/ssh_key",
        "environment  HOME, LANG",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ({"uid": 0}, "its playbooks run as root"),
        ({"capabilities": 1}, "have capabilities"),
        ({"no_new_privileges": False}, "can gain rights"),
        (
            {"places": (Place("/etc", executable=True, size_bytes=None),)},
            "can write to /etc, which the catalog does not",
        ),
        ({"command": ""}, "its command ansible-playbook is not in the image"),
        ({"unreadable": ("/roles",)}, "/roles is mounted, and the user of its playbooks cannot read it"),
        ({"secrets": ()}, "the secret ssh_key did not arrive"),
        ({"reached": {"169.254.169.254:80": True}}, "reach 169.254.169.254"),
    ],
)
def test_what_is_not_as_the_catalog_says_is_a_problem(seen: dict[str, Any], problem: str) -> None:
    """Each with its sentence, and only that one."""
    report = Report(runner(), sight=replace(sight(), **({"unreadable": ()} | seen)))
    assert len(report.problems) == 1
    assert problem in report.problems[0]
    assert report.text().startswith("ansible: not usable")


def test_metadata_that_the_catalog_allows_is_no_problem() -> None:
    """The operator wrote it down."""
    seen = replace(sight(), unreadable=(), reached={"169.254.169.254:80": True})
    assert Report(runner(allow=["169.254.169.254:80"]), sight=seen).problems == ()


def test_what_an_image_says_is_made_safe_to_look_at() -> None:
    """It could else write over the terminal of whoever checks it."""
    seen = replace(sight(), user="\x1b[2Jroot", tools={"sh": "1.0\x9b"})
    assert "\x1b" not in Report(runner(), sight=seen).text()
    assert "\\x1b[2Jroot" in Report(runner(), sight=seen).text()


def test_a_report_for_programs_is_json() -> None:
    """With the same facts."""
    plain = json.loads(json.dumps(Report(runner(), "sha256:1", error="no").document()))
    assert plain == {
        "runner": "ansible",
        "image": "agp/runner-ansible:1",
        "image_digest": "sha256:1",
        "problems": ["no"],
        "sees": None,
    }
    sees = Report(runner(), sight=sight()).document()["sees"]
    assert sees["secrets"] == "/run/secrets/ssh_key"


def test_the_list_has_a_line_for_each_runner() -> None:
    """In the order in which they are asked."""
    catalog = Catalog.model_validate(
        {"runners": {"ansible": RUNNER, "own": {"image": "x", "command": ["{playbook}"], "pull": "always"}}}
    )
    head, ansible, own = table(catalog).splitlines()
    assert head.split() == ["RUNNER", "IMAGE", "PULL", "TAKES", "NETWORK", "MEMORY", "GRANTS"]
    assert ansible.startswith(
        "ansible  agp/runner-ansible:1  never   .yml #!ansible-playbook plays  outbound, 10.0.0.7:22"
    )
    assert ansible.endswith("inventory, /roles, secret ssh_key")
    assert own.split() == ["own", "x", "always", "-", "none", "512", "MiB", "-"]


def test_the_list_for_programs_holds_all_that_the_catalog_says() -> None:
    """But a profile's text, of which the path is told."""
    (told,) = json.loads(json.dumps(document(Catalog(runners={"ansible": runner()}))))
    assert told["name"] == "ansible"
    assert told["allow"] == ["10.0.0.7:22", "10.0.0.8:443", "10.1.0.0/16:22", "10.2.0.1"]
    assert told["tmpfs"] == {"/work": {"size": 256 * 2**20, "exec": True}}
    assert told["secrets"] == [{"source": "/srv/key", "name": "ssh_key"}]
    assert told["seccomp"] is None
