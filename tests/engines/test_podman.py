"""Podman's Docker socket: it cannot carry the lockdown, so nothing runs there, and the agent says why."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from agp_agent.docker_engine import translate
from agp_agent.engine import ContainerSpec, Mount, Tmpfs
from engines.others import Podman
from support.own_engine import SHELL_IMAGE

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """One with the shell runner's image."""
    with Podman() as made:
        made.load(SHELL_IMAGE)
        yield made


def agent(podman: Podman, folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run ``agp-agent`` on it."""
    environment = os.environ | {"DOCKER_HOST": podman.docker_host, "AGP_STATE_DIR": str(folder / "state")} | settings
    command = (sys.executable, "-m", "agp_agent", *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_doctor_names_it_and_says_that_nothing_runs(podman: Podman, tmp_path: Path) -> None:
    """Before an operator wonders."""
    report = json.loads(agent(podman, tmp_path, "doctor", "--json").stdout)
    found = {one["check"]: one for one in report["checks"]}
    assert (found["engine"]["level"], found["engine"]["said"].startswith("Podman ")) == ("fail", True)
    assert found["log driver"]["level"] == "fail"


@pytest.mark.parametrize("accepted", ["", "log-driver", "swap,memory,pids,cpus,log-driver"])
def test_every_container_is_refused_whatever_is_accepted(podman: Podman, tmp_path: Path, accepted: str) -> None:
    """And none is left."""
    path = tmp_path / "hello.sh"
    path.write_text("echo hello\n")
    refused = agent(podman, tmp_path, "run", str(path), AGP_ACCEPT_DEGRADED=accepted)
    assert (refused.returncode, refused.stdout) == (69, ""), refused.stderr
    assert podman.docker("ps", "--all", "--quiet") == ""


def test_why_nothing_can_be_done_about_it_here(podman: Podman, tmp_path: Path) -> None:
    """Even of what it takes it gives less: the container that was to have no network has Podman's."""
    (tmp_path / "playbook.sh").write_text("true\n")
    spec = ContainerSpec(
        name="agp-podman",
        image=SHELL_IMAGE,
        command=("agp-shell", "/playbook/playbook.sh"),
        uid=20007,
        labels={},
        env={},
        mounts=(Mount("bind", str(tmp_path), "/playbook"),),
        tmpfs={"/work": Tmpfs(2**20)},
        memory_bytes=2**26,
        cpus=1.0,
        pids=64,
        log_limit_bytes=2**20,
    )
    client: Any = docker.APIClient(podman.docker_host, version="1.41")
    asked = translate.creation(spec)
    with pytest.raises(docker.errors.APIError, match="unknown mount option"):  # tmpfs of a user
        client.create_container_from_config(asked, name=spec.name)
    asked["HostConfig"]["Tmpfs"] = {"/work": "nosuid,nodev,mode=1777"}
    asked["HostConfig"].pop("LogConfig")  # it has no driver `local`
    made = client.create_container_from_config(asked, name=spec.name)["Id"]
    inspected = client.inspect_container(made)
    image = client.inspect_image(SHELL_IMAGE)["Config"]
    client.remove_container(made, force=True)
    client.close()
    wrong = translate.differences(asked, inspected, image)
    assert {"Config.NetworkDisabled", "Config.StdinOnce", "NetworkSettings.Networks"} <= set(wrong)
