"""Which folders of the host may never be mounted."""

import os
import socket
from pathlib import Path

import pytest

from agp_agent.mount_rules import MountRules


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory to be protected."""
    state = tmp_path / "var" / "state"
    state.mkdir(parents=True)
    return state


@pytest.fixture
def rules(state: Path) -> MountRules:
    """The rules of an agent with that state."""
    return MountRules({state: "the agent's state"})


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/", "holds /etc"),
        ("/..", "holds /etc"),
        ("/etc", "is the host's configuration"),
        ("/etc/", "is the host's configuration"),
        ("/etc/shadow", "is in /etc"),
        ("/srv/../etc", "is the host's configuration"),
        ("//etc//./passwd", "is in /etc"),
        ("/proc", "is the kernel's view"),
        ("/proc/1/root", "is in /proc"),
        ("/sys/fs/cgroup", "is in /sys"),
        ("/dev/sda", "is in /dev"),
        ("/run", "where the sockets"),
        ("/var/run", "where the sockets"),
        ("/var/run/docker.sock", "is in /var/run"),
        ("/run/containerd/containerd.sock", "is in /run"),
        ("/var", "holds /var/run"),
        ("/var/lib", "holds /var/lib/docker"),
        ("/var/lib/docker/volumes/x/_data", "the engine's own data"),
        ("/etc/ansible/../shadow", "is in /etc"),
        ("/etc/ansible-secrets", "is in /etc"),
        ("/etc/pki", "is in /etc"),
        ("/etc/pki/tls/private", "is in /etc"),
        ("/root/.ssh", "is in /root"),
        ("/var/lib/tailscale", "the node's key"),
        ("/var/lib/kubelet/pods", "is in /var/lib/kubelet"),
        ("/var/spool/cron/crontabs", "is in /var/spool/cron"),
    ],
)
def test_the_hosts_own_places_are_refused(rules: MountRules, source: str, why: str) -> None:
    """With all that is in them, and all that they are in."""
    assert why in (rules.problem(source) or "allowed")


@pytest.mark.parametrize(
    "source", ["/srv", "/srv/inventory", "/opt/x", "/etc/ansible", "/etc/ansible/hosts", "/home/a"]
)
def test_other_places_are_allowed(rules: MountRules, source: str) -> None:
    """Also those that are not here: the engine's host may have them."""
    assert rules.problem(source) is None


@pytest.mark.parametrize("source", ["/etc/ansible", "/etc/ssl/certs", "/etc/pki/ca-trust", "/etc/pki/tls/certs"])
def test_what_is_allowed_of_etc_is_read_only(rules: MountRules, source: str) -> None:
    """The host itself believes what stands there."""
    assert rules.problem(source) is None
    assert rules.problem(source, writable=True) == f"{source} is in /etc, the host's configuration"


def test_what_the_agent_believes_is_read_only(tmp_path: Path) -> None:
    """Whoever can write the catalog decides what the next playbook may do; reading it tells no secret."""
    catalog = tmp_path / "agp" / "catalog.yaml"
    rules = MountRules(believed={catalog: "the agent's catalog"})
    assert rules.problem(str(catalog.parent)) is None
    assert rules.problem(str(catalog.parent), writable=True) == (f"{tmp_path}/agp holds {catalog}, the agent's catalog")
    assert rules.problem(str(tmp_path / "agp" / "out"), writable=True) is None


def test_the_agents_own_places_are_refused(rules: MountRules, state: Path) -> None:
    """The state directory, what is in it, and what holds it."""
    assert rules.problem(str(state)) == f"{state} is the agent's state"
    assert rules.problem(str(state / "slots")) == f"{state}/slots is in {state}, the agent's state"
    assert rules.problem(str(state.parent)) == f"{state.parent} holds {state}, the agent's state"
    assert rules.problem(f"{state}-beside") is None


def test_links_are_followed(rules: MountRules, state: Path, tmp_path: Path) -> None:
    """Wherever on the way they stand."""
    (tmp_path / "harmless").symlink_to(state)
    (tmp_path / "up").symlink_to(state.parent)
    (tmp_path / "host").symlink_to("/etc")
    assert rules.problem(str(tmp_path / "harmless")) == (
        f"{tmp_path}/harmless leads to {state}, which is the agent's state"
    )
    assert "leads to" in (rules.problem(str(tmp_path / "up" / "state" / "slots")) or "")
    assert "leads to /etc/shadow, which is in /etc" in (rules.problem(str(tmp_path / "host" / "shadow")) or "")


def test_a_link_to_the_state_itself_protects_both(state: Path, tmp_path: Path) -> None:
    """The operator named the state directory by a link."""
    link = tmp_path / "link"
    link.symlink_to(state)
    rules = MountRules({link: "the agent's state"})
    assert rules.problem(str(state))
    assert rules.problem(str(link))


def test_another_name_of_the_same_file_is_found_out(rules: MountRules, state: Path, tmp_path: Path) -> None:
    """A hard link has no path that tells; it is the same file all the same."""
    token = tmp_path / "token"
    token.write_text("x")
    alias = tmp_path / "alias"
    os.link(token, alias)
    assert "under another name" in (MountRules({token: "the agent's token"}).problem(str(alias)) or "")
    assert rules.problem(str(alias)) is None
    assert state.exists()


def test_sockets_and_devices_are_refused_wherever_they_are(rules: MountRules, tmp_path: Path) -> None:
    """Whoever listens there is not the playbook's business."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert rules.problem(str(path)) == f"{path} is neither a folder nor a file"
