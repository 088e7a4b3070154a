"""Images out of a real registry, through an agent: which of them runs, by which digest, and what is said of others."""

import base64
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from agp_agent import __version__
from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.registry import PASSWORD, USER, Registry
from support.waiting import eventually

BASE: Final = f"agp/runner-shell:{__version__}"
SHOW: Final = "echo $VERSION"
WAITERS: Final = 20
PULL_TIMEOUT_S: Final = 10
"""Far less than dockerd's own patience with a registry that says nothing, and more than any pull here takes."""


@dataclass
class Bench:
    """An agent, the registries that it pulls from, and the digests of what was in them at its start."""

    agent: AgentProcess
    dashboard: DashboardStub
    public: Registry
    digests: dict[str, str]

    def send(self, runner: str) -> str:
        """Send a playbook that says which version of the image it runs in; return the task's id."""
        task_id = f"{runner} {secrets.token_hex(4)}"
        self.agent.accept_task(task_id, SHOW, f"playbook.{runner}")
        return task_id

    def run(self, runner: str) -> dict[str, Any]:
        """The result of such a playbook."""
        return self.dashboard.result(self.send(runner))

    def ran(self, runner: str) -> tuple[str, str]:
        """The version in which such a playbook ran, and the digest that the audit trail says of it."""
        result = self.run(runner)
        assert (result["status"], result["error"]) == ("completed", None)
        (started,) = self.agent.audit("task started", task_id=result["task_id"])
        assert self.agent.audit("image resolved", image=started["image"], image_digest=started["image_digest"])
        return result["output"].strip(), started["image_digest"]

    def refused(self, runner: str) -> str:
        """Why the image of a runner is not available."""
        result = self.run(runner)
        assert (result["status"], result["output"]) == ("failed", "")
        assert self.agent.audit("task started", task_id=result["task_id"]) == []
        before, _, why = str(result["error"]).partition(" is not available: ")
        assert before.startswith("image ")
        return why


@pytest.fixture(scope="module")
def registries(folder: Path) -> Iterator[tuple[Registry, Registry]]:
    """One for everybody, and one with the same images that wants a password."""
    data = folder / "images"
    with Registry(folder / "public", data) as public, Registry(folder / "private", data, private=True) as private:
        yield public, private


@pytest.fixture(scope="module")
def bench(dashboard: DashboardStub, folder: Path, registries: tuple[Registry, Registry]) -> Iterator[Bench]:
    """An agent with a runner for each case, which is called as its suffix."""
    public, private = registries
    names = ("missing", "always", "pinned", "many", "private")
    digests = {name: public.push(f"agp/{name}", "1", BASE, VERSION="first") for name in names}
    private_by_another_name = f"localhost:{private.port}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        runners = {
            "missing": (f"{public.address}/agp/missing:1", "missing"),
            "always": (f"{public.address}/agp/always:1", "always"),
            "never": (f"{public.address}/agp/missing:never", "never"),
            "pinned": (f"{public.address}/agp/pinned:1@{digests['pinned']}", "always"),
            "foreign": (f"{public.address}/agp/pinned:1@{digests['many']}", "missing"),
            "many": (f"{public.address}/agp/many:1", "missing"),
            "nothing": (f"{public.address}/agp/nothing:1", "missing"),
            "private": (f"{private.address}/agp/private:1", "missing"),
            "wrong": (f"{private_by_another_name}/agp/private:1", "missing"),
            "helper": ("registry.invalid/agp/shell:1", "missing"),
            "hangs": (f"{hanging}/agp/shell:1", "missing"),
        }
        passwords = {private.address: PASSWORD, private_by_another_name: "a wrong password"}
        settings = {
            "AGP_CATALOG": _catalog(folder, runners),
            "AGP_MAX_RUNNING": WAITERS,
            "AGP_PULL_TIMEOUT_S": PULL_TIMEOUT_S,
            "DOCKER_CONFIG": _credentials(folder, passwords),
        }
        with AgentProcess(folder, dashboard.url, dashboard.token, settings) as agent:
            yield Bench(agent, dashboard, public, digests)


def _catalog(folder: Path, runners: dict[str, tuple[str, str]]) -> Path:
    command = ["agp-shell", "{playbook}"]
    document = {
        name: {"image": image, "pull": pull, "match": {"suffixes": [f".{name}"]}, "command": command, "memory": "32MiB"}
        for name, (image, pull) in runners.items()
    }
    path = folder / "catalog.yaml"
    path.write_text(json.dumps({"runners": document}))  # JSON is YAML
    return path


def _credentials(folder: Path, passwords: dict[str, str]) -> Path:
    """Docker's configuration folder as `docker login` would leave it, and a registry whose helper is not there."""
    auths = {address: _login(password) for address, password in passwords.items()}
    path = folder / "docker"
    path.mkdir()
    document = {"auths": auths, "credHelpers": {"registry.invalid": "nowhere"}}
    (path / "config.json").write_text(json.dumps(document))
    return path


def _login(password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}


def test_missing_pulls_once_and_then_keeps_what_is_there(bench: Bench) -> None:
    """Whatever its tag means in the registry by then."""
    assert bench.ran("missing") == ("first", bench.digests["missing"])
    second = bench.public.manifests_asked("agp/missing")
    moved = _move(bench, "missing")
    assert bench.ran("missing") == ("first", bench.digests["missing"])
    assert moved != bench.digests["missing"]
    assert bench.public.manifests_asked("agp/missing") == second


def test_always_runs_what_the_tag_means_now(bench: Bench) -> None:
    """The audit trail says each of the two digests once."""
    assert bench.ran("always") == ("first", bench.digests["always"])
    moved = _move(bench, "always")
    assert bench.ran("always") == ("second", moved)
    assert bench.ran("always") == ("second", moved)
    resolved = [line["image_digest"] for line in bench.agent.audit("image resolved")]
    assert [resolved.count(digest) for digest in (bench.digests["always"], moved)] == [1, 1]


def test_a_digest_stays_what_it_is_although_its_tag_moved(bench: Bench) -> None:
    """The name's tag is for people; the digest decides, with each pull anew."""
    moved = _move(bench, "pinned")
    assert bench.ran("pinned") == ("first", bench.digests["pinned"])
    assert moved != bench.digests["pinned"]


def test_a_digest_that_the_registry_does_not_have_is_refused(bench: Bench) -> None:
    """Nothing else of that name runs in its place."""
    assert "manifest unknown" in bench.refused("foreign")


def test_never_asks_no_registry(bench: Bench) -> None:
    """Although it would have the image."""
    before = bench.public.manifests_asked("agp/missing")
    bench.public.push("agp/missing", "never", BASE, VERSION="never")
    assert bench.refused("never") == "it is not on the engine, and its pull policy is never"
    assert bench.public.manifests_asked("agp/missing") == before


def test_an_image_that_is_not_there_is_told_in_the_registrys_words(bench: Bench) -> None:
    """The engine hides them in a stream that began with success, or in its refusal."""
    assert "not found" in bench.refused("nothing")


def test_many_tasks_wait_for_one_pull(bench: Bench) -> None:
    """All of them at once, and each gets the image."""
    tasks = [bench.send("many") for _ in range(WAITERS)]
    assert [bench.dashboard.result(task)["output"] for task in tasks] == ["first\n"] * WAITERS
    assert bench.public.manifests_asked("agp/many") == 1


def test_a_private_registry_gives_its_image_for_the_password(bench: Bench) -> None:
    """That of Docker's own configuration file."""
    assert bench.ran("private") == ("first", bench.digests["private"])


def test_a_wrong_password_is_told_and_a_changed_file_is_read_anew(bench: Bench, folder: Path) -> None:
    """The password itself appears nowhere; where it is corrected, the next task gets its image."""
    assert "unauthorized" in bench.refused("wrong")
    assert "a wrong password" not in bench.agent.log_text()
    file = folder / "docker/config.json"
    document = json.loads(file.read_text())
    document["auths"] = dict.fromkeys(document["auths"], _login(PASSWORD))
    file.write_text(json.dumps(document))
    assert bench.ran("wrong") == ("first", bench.digests["private"])


def test_a_missing_credential_helper_is_told(bench: Bench) -> None:
    """With what to do; the registry is not asked without the credentials that the operator named."""
    assert "docker-credential-nowhere, and there is no such program on the agent's PATH" in bench.refused("helper")


def test_a_registry_that_hangs_is_given_up(bench: Bench) -> None:
    """After AGP_PULL_TIMEOUT_S; whoever needs another image does not wait for it."""
    hanging = bench.send("hangs")
    assert bench.ran("missing")[0] == "first"
    assert bench.agent.audit("task finished", task_id=hanging) == []
    result = bench.dashboard.result(hanging)
    assert result["error"].endswith(f"is not available: pulling it took longer than {PULL_TIMEOUT_S} s")


def test_a_task_that_waits_for_its_image_can_be_cancelled(bench: Bench) -> None:
    """At once: it does not wait for the end of the pull, which would be another one."""
    waiting, cancelled = bench.send("hangs"), bench.send("hangs")
    eventually(lambda: bench.agent.cancel(quote(cancelled)).status_code == 202, "the cancel is taken")
    assert bench.dashboard.result(cancelled)["error"] == "cancelled"
    assert bench.dashboard.result(waiting)["error"].endswith(f"pulling it took longer than {PULL_TIMEOUT_S} s")


def _move(bench: Bench, name: str) -> str:
    """Let a tag mean another image in the registry from now on; return its digest."""
    return bench.public.push(f"agp/{name}", "1", BASE, VERSION="second")
