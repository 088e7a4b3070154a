"""Foreign text made safe to look at: what a terminal or an eye would obey is spelled out instead."""

import unicodedata
from typing import Final

_BIDI_AND_SEPARATORS: Final = (
    0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A),
)  # fmt: skip


def _escapes() -> dict[int, str]:
    """Every control character (Cc), text-direction mark and exotic line break, with its Python-style escape."""
    controls = [code for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc"]
    return {code: f"\\x{code:02x}" for code in controls} | {code: f"\\u{code:04x}" for code in _BIDI_AND_SEPARATORS}


_LINE_ESCAPES: Final = _escapes() | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_TEXT_ESCAPES: Final = {code: escape for code, escape in _LINE_ESCAPES.items() if chr(code) not in "\n\t"}


def visible_text(text: str) -> str:
    """Spell out control characters in text of many lines: newline and tab stay, CRLF becomes a newline."""
    return text.replace("\r\n", "\n").translate(_TEXT_ESCAPES)


def visible_line(text: str) -> str:
    """Spell out control characters, newline and tab too, in text that must stay on one line (an id, an error)."""
    return text.translate(_LINE_ESCAPES)
