"""What is shipped is what the sources say: the same inputs give the same files, and what is in them is listed."""

import json
import subprocess
import tomllib
import zipfile
from pathlib import Path

import docker
import pytest

from agp_agent import __version__
from chart.rendering import CHART
from release.images import ROOT, built_again, differences, tag_of, tree_of
from release.sbom import write_sbom
from release.wheel import built_wheel


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    """The machine's engine."""
    return docker.from_env(timeout=600)


@pytest.mark.timeout(900)
def test_the_agents_image_is_the_same_when_built_again(client: docker.DockerClient) -> None:
    """Same inputs, same normalised tree of files; and the comparison sees a difference where there is one."""
    first = tree_of(client, tag_of("agent"))
    with built_again(client, "agent") as again:
        assert differences(first, tree_of(client, again)) == []
    assert any(line.startswith("opt/agp-agent/") for line in differences(first, tree_of(client, tag_of("fence"))))


def test_the_list_of_parts_names_what_the_image_has(client: docker.DockerClient, tmp_path: Path) -> None:
    """Debian's packages and Python's, with versions; as CycloneDX it is read by every scanner."""
    parts = write_sbom(client, tag_of("agent"), tmp_path / "agent.cdx.json")
    written = json.loads((tmp_path / "agent.cdx.json").read_text())
    assert written["bomFormat"] == "CycloneDX"
    assert f"pkg:pypi/agp-enterprise-agent@{__version__}" in parts
    assert any(part.startswith("pkg:deb/debian/libc6@") for part in parts)
    assert sorted(one["purl"] for one in written["components"]) == parts
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    listed = {part.removeprefix("pkg:pypi/").split("@")[0] for part in parts if part.startswith("pkg:pypi/")}
    assert listed - locked == {"agp-enterprise-agent"}, "the image has what no lock names"


def test_the_wheel_is_the_same_when_built_again(tmp_path: Path) -> None:
    """Byte for byte; it has the commit, the licence, the catalog, and nothing of the tests."""
    wheel, again = (built_wheel(tmp_path / folder) for folder in ("one", "two"))
    assert wheel.read_bytes() == again.read_bytes()
    names = zipfile.ZipFile(wheel).namelist()
    git = ("git", "-c", f"safe.directory={ROOT}", "rev-parse", "HEAD")
    commit = subprocess.run(git, cwd=ROOT, check=False, capture_output=True, text=True).stdout or "unknown\n"
    assert zipfile.ZipFile(wheel).read("agp_agent/COMMIT").decode() == commit
    assert "agp_agent/catalog.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"agp_agent", f"agp_enterprise_agent-{__version__}.dist-info"}


def test_the_version_stands_in_one_place() -> None:
    """Everything else that names it follows: the chart, the change log; the project's file reads it."""
    assert f"\nappVersion: {__version__}\n" in (CHART / "Chart.yaml").read_text()
    assert (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1].startswith(__version__)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ("version" in project, project["dynamic"]) == (False, ["version"])
