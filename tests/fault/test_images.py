"""Row 25: the runner's image cannot be had, in every way that registries know."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fault.conftest import StartWatched
from support.ledger import Ledger
from support.own_engine import OwnEngine
from support.registry_stub import RegistryStub

WRONG: Final = base64.b64encode(b"agent:wrong").decode()
DIGEST: Final = "sha256:" + "a" * 64
PATIENCE_S: Final = 60.0
"""Bounded time: dockerd itself gives up on a silent registry after 15 s."""


@pytest.fixture
def registry(own_engine: OwnEngine) -> Iterator[RegistryStub]:
    """A registry that only the engine can reach."""
    with RegistryStub(own_engine.listen()) as stub:
        yield stub


@pytest.fixture
def private(own_engine: OwnEngine) -> Iterator[RegistryStub]:
    """One that wants a password."""
    with RegistryStub(own_engine.listen(), private=True) as stub:
        yield stub


def test_an_image_that_cannot_be_had_is_told_with_its_reason(
    own_engine: OwnEngine,
    start_watched: StartWatched,
    registry: RegistryStub,
    private: RegistryStub,
    tmp_path: Path,
) -> None:
    """Row 25: missing, refused, silent, wrong digest, wrong password: image_unavailable, and no other image is used."""
    with RegistryStub(own_engine.listen(), silent=True) as silent, own_engine.listen() as closed:
        refusing = f"127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        images = {
            "never": ("agp/not-there:1", "its pull policy is never"),
            "missing": (f"{registry.address}/nothing/shell:1", "manifest unknown"),
            "refused": (f"{refusing}/agp/shell:1", "connection refused"),
            "silent": (f"{silent.address}/agp/shell:1", "exceeded"),
            "digest": (f"{registry.address}/other/shell@{DIGEST}", "verification failed"),
            "password": (f"{private.address}/agp/shell:1", "wrong password"),
        }
        settings = _settings(tmp_path, {name: image for name, (image, _) in images.items()}, private.address)
        watched = start_watched(settings)
        before = _images(watched)
        for name in images:
            _send(watched, name)
        watched.neighbours()
        results = watched.check(patience_s=PATIENCE_S)
    for name, (image, why) in images.items():
        _check_unavailable(watched, name, results[name], image, why)
    assert _images(watched) == before
    assert f"Basic {WRONG}" in {authorization for _, authorization in private.asked}
    assert registry.asked != []


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_pull_that_hangs_is_given_up(start_watched: StartWatched, registry: RegistryStub, tmp_path: Path) -> None:
    """Row 25: a registry that answers and then falls silent is given up by the agent itself, after ten minutes."""
    image = f"{registry.address}/hangs/shell:1"
    watched = start_watched(_settings(tmp_path, {"hangs": image}, "nowhere"))
    _send(watched, "hangs")
    watched.neighbours()
    results = watched.check(patience_s=700)
    _check_unavailable(watched, "hangs", results["hangs"], image, "took longer than 600 s|given up")


def _settings(folder: Path, images: dict[str, str], private: str) -> dict[str, object]:
    """A catalog with a runner for each image, chosen by the suffix; and a wrong password for the private registry."""
    runners = {
        name: {
            "image": image,
            "pull": "never" if name == "never" else "missing",
            "match": {"suffixes": [f".{name}"]},
            "command": ["agp-shell", "{playbook}"],
        }
        for name, image in images.items()
    }
    catalog, docker_config = folder / "catalog.yaml", folder / "docker"
    catalog.write_text(json.dumps({"runners": runners}))  # JSON is YAML
    docker_config.mkdir()
    (docker_config / "config.json").write_text(json.dumps({"auths": {private: {"auth": WRONG}}}))
    return {"AGP_CATALOG": catalog, "DOCKER_CONFIG": docker_config}


def _send(watched: Ledger, name: str) -> None:
    watched.agent.accept_task(name, "echo ran\n", f"playbook.{name}")
    watched.note(name)


def _images(watched: Ledger) -> set[str]:
    listed: list[dict[str, Any]] = watched.agent.engine.client.api.images()
    return {tag for image in listed for tag in image["RepoTags"] or ()}


def _check_unavailable(watched: Ledger, name: str, result: dict[str, Any], image: str, why: str) -> None:
    assert (result["status"], result["output"]) == ("failed", "")
    assert result["error"].startswith(f"image {image} is not available: ")
    assert any(reason in result["error"] for reason in why.split("|")), result["error"]
    assert watched.agent.wait_audited("task finished", task_id=name)["reason"] == "image_unavailable"
    assert watched.agent.audit("task started", task_id=name) == []
