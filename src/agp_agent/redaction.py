"""Masks secrets in what the agent writes about itself. Pure.

The agent's own tokens are masked by value wherever they appear; what merely looks like a credential (a ``Bearer``
header, the password in a URL) is masked by shape.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

MASK: Final = "[redacted]"
_SHAPES: Final = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',]+"), rf"\1 {MASK}"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@"), rf"\1{MASK}@"),
)


class Masker:
    """Masks the secrets that ``known`` returns at the moment of each call, so that rotated tokens are masked too."""

    def __init__(self, known: Callable[[], Iterable[bytes]]) -> None:
        """``known`` returns all secret values of now."""
        self._known = known

    def text(self, value: str) -> str:
        """``value`` with every secret in it replaced by the mask."""
        for secret in self._known():
            value = value.replace(secret.decode(errors="replace"), MASK)
        for shape, replacement in _SHAPES:
            value = shape.sub(replacement, value)
        return value

    def tree(self, value: object) -> object:
        """The same for all strings inside dicts, lists and tuples."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))  # an error or a path is printed as text: a secret may stand in it
