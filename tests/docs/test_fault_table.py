"""Every fault of the list has its test, and tests/fault/README.md says which."""

from docs.fault_table import BEGIN, END, SUITE, fault_tests, table

NUMBER_OF_FAULTS = 36


def test_every_fault_has_a_test() -> None:
    """No row of the list of faults is without a test that `make test` runs."""
    quick = {row for test in fault_tests() if not test.is_long for row in test.rows}
    assert quick == set(range(1, NUMBER_OF_FAULTS + 1))


def test_the_table_is_the_tests() -> None:
    """The README of the suite holds the table as tests/docs/fault_table.py prints it."""
    written = (SUITE / "README.md").read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert written == table()
