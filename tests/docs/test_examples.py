"""The examples are what a reader is told: their files can be used as they are, and the README shows them unchanged."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from agp_agent import catalog

ROOT: Final = Path(__file__).parents[2]
CATALOG: Final = ROOT / "docs/examples/real-work/catalog.yaml"
SHOWN: Final = re.compile(r"^```\w+ (docs/examples/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_catalog_of_the_example_is_valid() -> None:
    """Every key in it is one, and what it mounts may be mounted."""
    runners = catalog.load(CATALOG).runners
    assert list(runners) == ["shell", "python", "ansible", "api", "reports"]
    assert [str(one) for one in runners["ansible"].allow] == ["10.20.0.7:22", "10.20.0.5:22"]


@pytest.mark.parametrize("name", ["disks.report", "node.yml", "site.yml", "who-am-i.api"])
def test_each_playbook_of_the_example_has_its_runner(name: str) -> None:
    """Chosen by its suffix."""
    content = (CATALOG.parent / name).read_text()
    chosen = catalog.load(CATALOG).choose(name, content)
    assert chosen is not None
    assert chosen.name == {".report": "reports", ".yml": "ansible", ".api": "api"}[Path(name).suffix]


@pytest.mark.parametrize("path", sorted((ROOT / "docs/examples").rglob("*.yml")), ids=lambda path: path.name)
def test_every_yaml_file_of_the_examples_is_yaml(path: Path) -> None:
    """But what a vault has encrypted."""
    text = path.read_text()
    assert text.startswith("$ANSIBLE_VAULT;") or yaml.safe_load(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_of_an_example_is_its_file(page: Path) -> None:
    """A block whose first line names a file holds that file, or whole lines of it one after another."""
    for name, shown in SHOWN.findall(page.read_text()):
        assert f"\n{shown}" in "\n" + (ROOT / name).read_text(), f"{page.name} shows another {name}"
