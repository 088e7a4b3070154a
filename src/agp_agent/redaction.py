"""Masks secrets in what the agent writes about itself. Pure.

The agent's own tokens are masked by value wherever they appear; what merely looks like a credential (a ``Bearer``
header, the password in a URL) is masked by shape.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

MASK: Final = "[redacted]"
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_SHAPES: Final = (  # each with what a text must hold for it to match
    ("bearer", re.compile(r"(?i)\b(bearer)\s+[^\s\"',]+"), rf"\1 {MASK}"),
    ("basic", re.compile(r"(?i)\b(basic)\s+[^\s\"',]+"), rf"\1 {MASK}"),
    ("private key", _PRIVATE_KEY, MASK),
    ("://", re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@"), rf"\1{MASK}@"),
)
_KEYS: Final = re.compile(
    r"(?i)(.*[-_. ])?(authorization|token|password|passwd|secret|cookie|credentials?|api[-_]?key|private[-_]?key"
    r"|x-registry-auth)"
)
"""Keys that hold secrets by their names; ``token_fingerprint`` and ``idempotency_key`` are none of them."""


class Masker:
    """Masks the secrets that ``known`` returns at the moment of each call, so that rotated tokens are masked too."""

    def __init__(self, known: Callable[[], Iterable[bytes]]) -> None:
        """``known`` returns all secret values of now."""
        self._known = known

    def text(self, value: str) -> str:
        """``value`` with every secret in it replaced by the mask."""
        return _masked(value, self._secrets())

    def tree(self, value: object) -> object:
        """The same for all strings inside dicts, lists and tuples."""
        return _masked_tree(value, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        # The longest first: one may be part of another.
        return tuple(sorted((secret.decode(errors="replace") for secret in self._known()), key=len, reverse=True))


def is_secret(key: object) -> bool:
    """Whether what stands under a key is a secret by that key's name, whatever it is."""
    return isinstance(key, str) and _KEYS.fullmatch(key) is not None


def _masked(value: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        value = value.replace(secret, MASK)
    for hint, shape, replacement in _SHAPES:
        if hint in value.casefold():  # far cheaper than the expression, and most lines have none
            value = shape.sub(replacement, value)
    return value


def _masked_tree(value: object, secrets: tuple[str, ...]) -> object:
    if isinstance(value, str):
        return _masked(value, secrets)
    if isinstance(value, dict):
        return {key: MASK if is_secret(key) else _masked_tree(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked_tree(item, secrets) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _masked(str(value), secrets)  # an error or a path is printed as text: a secret may stand in it
