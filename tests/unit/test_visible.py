"""Foreign text made safe to look at."""

from agp_agent.visible import visible_line, visible_text


def test_control_characters_are_spelled_out() -> None:
    """C0, DEL, C1, direction marks and exotic line breaks all become printable ASCII."""
    assert visible_text("\x00\x1b[31m\x07\x7f\x9b\u202e\u2028\r") == r"\x00\x1b[31m\x07\x7f\x9b\u202e\u2028\r"


def test_newlines_tabs_and_ordinary_unicode_stay() -> None:
    """What a playbook ordinarily prints comes through, with CRLF as one newline."""
    assert visible_text("a\tb\r\né 🦊\n") == "a\tb\né 🦊\n"


def test_a_line_stays_one_line() -> None:
    """An id cannot break out of its line."""
    assert visible_line("a\nb\r\tc") == r"a\nb\r\tc"
