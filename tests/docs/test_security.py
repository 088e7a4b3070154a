"""SECURITY.md says what the code does."""

import re
from pathlib import Path
from typing import Final

from agp_agent.doctor.checks import CHECKS, examine
from agp_agent.doctor.facts import Facts
from docs import escape_table, lockdown_table

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "SECURITY.md"
SECURITY: Final = PAGE.read_text()


def test_the_table_of_the_lockdown_is_what_the_engine_is_asked_for() -> None:
    """Every field of it, with its value, as tests/docs/lockdown_table.py prints it."""
    written = SECURITY.partition(lockdown_table.BEGIN)[2].partition(lockdown_table.END)[0].strip()
    assert written == lockdown_table.table()


def test_every_check_of_the_doctor_is_explained() -> None:
    """By its name, in the order in which they are printed."""
    table = SECURITY.partition("<!-- doctor -->")[2].partition("<!-- end of doctor -->")[0]
    named = re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE)
    checks = [finding.check for finding in examine(Facts(engine_problem="x"))]
    assert len(checks) == len(CHECKS)
    assert named == [*checks, "runner"]


def test_all_25_attempts_were_held_and_succeeded_without_the_lockdown() -> None:
    """In both pages; the README's table is the short form of SECURITY.md's."""
    table = escape_table.written(PAGE)
    attempts = escape_table.rows(table)
    assert list(attempts) == list(range(1, 26))
    assert {row[4] for row in attempts.values()} == {"held"}
    assert all(row[6] for row in attempts.values())
    assert escape_table.written(ROOT / "README.md") == escape_table.short(table)


def test_links_to_files_lead_somewhere() -> None:
    """Every relative link names a file that is in the repository."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", SECURITY):
        assert (ROOT / target).exists(), target


def test_no_address_is_invented() -> None:
    """Reports go to the place where the repository is hosted, by its own means."""
    assert "@" not in re.sub(r"`[^`]*`", "", SECURITY)
    assert "private security advisory" in SECURITY
