"""The README says what the code does."""

import re
import subprocess
from pathlib import Path

import pytest

from agp_agent import catalog
from agp_agent.audit import AuditEvent
from docs.settings_table import BEGIN, END, table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_the_code_s() -> None:
    """The table between the markers is what tests/docs/settings_table.py prints."""
    written = README.partition(BEGIN)[2].partition(END)[0].strip()
    assert written == table()


def test_every_built_in_runner_is_named() -> None:
    """A reader finds each runner's image in the README."""
    for runner in catalog.load().runners.values():
        assert f"`{runner.image.partition(':')[0]}`" in README


def test_every_audit_event_is_named() -> None:
    """The closed list of audit events stands in the README."""
    for event in AuditEvent:
        assert f"`{event.value}`" in README


def test_links_to_files_lead_somewhere() -> None:
    """Every relative link names a file that is in the repository."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("target", ["demo", "test", "test-long", "campaign", "check", "bench"])
def test_make_targets_that_the_readme_names_exist(target: str) -> None:
    """`make -n` knows every target that a reader is told to run."""
    assert f"make {target}" in README
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
