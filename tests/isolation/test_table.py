"""What this run saw is what the pages say. It stands last, so that the others have filled the table.

Alone it fails: it judges a run of the whole suite.
"""

from docs import escape_table
from isolation.table import Table


def test_the_tables_that_are_written_are_what_this_run_saw(table: Table) -> None:
    """Each attempt: its name, what holds it, both verdicts; only amounts may differ."""
    written = escape_table.rows(escape_table.written(escape_table.ROOT / "SECURITY.md"))
    seen = escape_table.rows(table.markdown())
    unseen = written.keys() - seen.keys()
    assert not unseen, f"attempts that this run did not show to be held: {sorted(unseen)}; run all of tests/isolation"
    for number, row in seen.items():
        assert list(map(escape_table.without_numbers, row)) == list(
            map(escape_table.without_numbers, written[number])
        ), f"print it anew: python -m docs.escape_table (attempt {number})"
