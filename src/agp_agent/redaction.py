"""Masks secrets in what playbooks print and in what the agent writes about itself. Pure.

The secrets of a runner are masked in all their ``spellings``, wherever a piece of output begins or ends. The agent's
own tokens are masked by value; what merely looks like a credential (a ``Bearer`` header, the password in a URL) is
masked by shape in what the agent writes, never in what a playbook prints.
"""

import base64
import bisect
import functools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick

MASK: Final = "[redacted]"
SPELLING_MIN_BYTES: Final = 6
"""A shorter piece of a secret is not masked: it would stand everywhere."""
_MASK_BYTES: Final = MASK.encode()
_HEAD_BYTES: Final = SPELLING_MIN_BYTES
_LOOK_BYTES: Final = 64
"""Looked at first: most text that is no needle differs from each of them so early."""
_END_MIN_BYTES: Final = 3
_WRAPPED_AT: Final = (76, 64)
"""Where base64(1) and openssl break their lines."""
_PIECE_BYTES: Final = 42
"""In base64 shorter than a line: broken once at most."""
_PIECES_MAX: Final = 24
_INSIDE_MAX_BYTES: Final = 8 * 2**10
"""A secret up to this size is looked for in the lines of the base64 of something longer, too: two needles a byte."""
_BASE64_BITS, _BYTE_BITS = 6, 8
_ENDS_OF_KEY: Final = re.compile(rb"\A-----BEGIN [^\n]*\n|\n-----END [^\n]*\Z")
"""What every key begins and ends with is no secret."""
_ASSIGNMENT: Final = re.compile(rb"(?:export\s+)?[A-Za-z_][A-Za-z0-9_.-]*\s*(?:=|:\s)\s*(.+)", re.DOTALL)
_LEFT_AS_THEY_ARE: Final = ("", "/", "!*'()", "!#$%&'()*+,/:;=?@[]~", ";,/?:@&=+$!*'()#", "!#$&'()*+,/:;=?@[]~")
"""By quoters of URLs: ``quote`` with and without a slash, encodeURIComponent, requests, encodeURI, and the like."""
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
_KEYS_REMEMBERED: Final = 256
"""The agent's own events have about fifty."""


class Masker:
    """Masks the secrets that ``known`` returns at the moment of each call, so that rotated tokens are masked too."""

    def __init__(self, known: Callable[[], Iterable[bytes]]) -> None:
        """``known`` returns all secret values of now."""
        self._known = known
        self._seen: tuple[bytes, ...] = ()
        self._longest_first: tuple[str, ...] = ()
        self._secrets_of: dict[str, Needles] = {}

    def hold(self, run: str, secrets: "Needles") -> None:
        """Mask the secrets of a run, too, until it is let go."""
        self._secrets_of[run] = secrets

    def let_go(self, run: str) -> None:
        """The run is over. Idempotent."""
        self._secrets_of.pop(run, None)

    def text(self, value: str) -> str:
        """``value`` with every secret in it replaced by the mask."""
        return self._mask_leaf(value, self._tokens())

    def tree(self, value: object) -> object:
        """The same for all strings inside dicts, lists and tuples."""
        return self._mask_tree(value, self._tokens())

    def _tokens(self) -> tuple[str, ...]:
        known = tuple(self._known())
        if known != self._seen:
            # The longest first: one may be part of another.
            texts = sorted((secret.decode(errors="replace") for secret in known), key=len, reverse=True)
            self._seen, self._longest_first = known, tuple(texts)
        return self._longest_first

    def _mask_tree(self, value: object, tokens: tuple[str, ...]) -> object:
        if type(value) is str:  # most are
            return self._mask_leaf(value, tokens)
        if isinstance(value, dict):
            return {key: MASK if is_secret(key) else self._mask_tree(item, tokens) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._mask_tree(item, tokens) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._mask_leaf(str(value), tokens)  # an error or a path is printed as text: a secret may stand in it

    def _mask_leaf(self, value: str, tokens: tuple[str, ...]) -> str:
        for token in tokens:
            value = value.replace(token, MASK)
        for secrets in self._secrets_of.values():
            value = secrets.masked(value.encode(errors="surrogatepass")).decode(errors="surrogatepass")
        folded = value.casefold()  # far cheaper than the expressions, and most lines have none of the hints
        for hint, shape, replacement in _SHAPES:
            if hint in folded:
                value = shape.sub(replacement, value)
        return value


@functools.lru_cache(_KEYS_REMEMBERED)
def is_secret(key: object) -> bool:
    """Whether what stands under a key is a secret by that key's name, whatever it is."""
    return isinstance(key, str) and _KEYS.fullmatch(key) is not None


class Needles:
    """Some secrets in all their spellings, ready to be found."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        """Takes a few milliseconds for a secret of many lines, and some tens of them for one of several KB."""
        self._sorted = sorted({needle for secret in secrets for needle in spellings(secret)})
        self._lengths = list(_lengths_within(self._sorted))
        self._longest = max(map(len, self._sorted), default=0)
        heads = {needle[:_HEAD_BYTES] for needle in self._sorted}
        self._finder = BytesAhoCorasick(heads)
        self._beginnings = {head[:length] for head in heads for length in range(1, _HEAD_BYTES)}

    def heads(self, data: bytes) -> Iterator[int]:
        """Every place at which a needle may stand, by its first bytes: at most one for each byte."""
        return (start for _, start, _ in self._finder.find_matches_as_indexes(data, overlapping=True))

    def longest_at(self, data: bytes, at: int, *, is_last: bool) -> int | None:
        """How long the longest needle is that stands there, 0 for none; None: more must come to tell, and will.

        Many needles have the same head, and are not tried one by one: the work is the same whatever is printed.
        """
        text = data[at : at + _LOOK_BYTES]
        after = bisect.bisect_right(self._sorted, text)
        if self._goes_on(text, after):
            text = data[at : at + self._longest]
            after = bisect.bisect_right(self._sorted, text)
            if not is_last and self._goes_on(text, after):
                return None
        return self._longest_before(text, after)

    def _goes_on(self, text: bytes, after: int) -> bool:
        """Whether a needle begins with the text: then the first that is sorted after it does."""
        return after < len(self._sorted) and self._sorted[after].startswith(text)

    def _longest_before(self, text: bytes, after: int) -> int:
        """The longest needle that the text begins with is the last one sorted before it, or what that begins with."""
        if not after:
            return 0
        needle, lengths = self._sorted[after - 1], self._lengths[after - 1]
        if text.startswith(needle):
            return len(needle)
        shorter = len(lengths) - 1
        fitting = bisect.bisect_left(lengths, 1, hi=shorter, key=lambda length: not text.startswith(needle[:length]))
        return lengths[fitting - 1] if fitting else 0

    def beginning_bytes(self, end: bytes) -> int:
        """How many of the last bytes may be the first bytes of a needle, too few to be told."""
        for length in range(min(_HEAD_BYTES - 1, len(end)), 0, -1):
            if end[-length:] in self._beginnings:
                return length
        return 0

    def masked(self, data: bytes, *, is_cut: bool = False) -> bytes:
        """``data`` with every needle in it masked; those that overlap share one mask.

        ``is_cut``: more followed that is not known, so that an end that may be the beginning of a needle is left out.
        """
        masker = StreamMasker(self)
        return masker.feed(data) + (b"" if is_cut else masker.end())

    def without_cut_start(self, data: bytes) -> bytes:
        """``data`` without the end of a needle at its start: the bytes before were lost, and with them its head."""
        head = data[:_HEAD_BYTES]
        ends = (end for needle in self._sorted for end in _ends(needle, head))
        return data[max((len(end) for end in ends if data.startswith(end)), default=0) :]


def _lengths_within(needles: list[bytes]) -> Iterator[tuple[int, ...]]:
    """For each of the sorted needles the lengths of those that it begins with, ascending; its own is the last."""
    within: list[bytes] = []
    for needle in needles:
        while within and not needle.startswith(within[-1]):
            within.pop()
        within.append(needle)
        yield tuple(map(len, within))


def _ends(needle: bytes, head: bytes) -> Iterator[bytes]:
    """The ends of a needle that begin with ``head``, and those that are shorter but tell something."""
    at = needle.find(head, 1)
    while at > 0:
        yield needle[at:]
        at = needle.find(head, at + 1)
    for length in range(_END_MIN_BYTES, _HEAD_BYTES):
        yield needle[-length:]


class StreamMasker:
    """Masks secrets in bytes that come in pieces, cut anywhere; the pieces together are what the whole would be.

    Only an end that is the beginning of a secret is held back, until more comes: less than the longest needle has.
    """

    def __init__(self, needles: Needles) -> None:
        """Nothing has come yet."""
        self._needles = needles
        self._held = b""
        # Places, counted from the first byte that ever came:
        self._held_from = 0
        self._told_to = 0
        """Behind the start of what is held while a mask was told that goes on in it."""
        self._heads = deque[int]()
        """Where a needle may stand, and it is not known yet whether one does."""

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what can be told now."""
        look_from = max(0, len(self._held) - (_HEAD_BYTES - 1))
        self._held += data
        new = self._needles.heads(self._held[look_from:])
        self._heads.extend(self._held_from + look_from + at for at in new)
        told = self._tell_needles(is_last=False)
        if self._heads:
            return told + self._tell_to(self._heads[0])
        return told + self._tell_to(self._end - self._needles.beginning_bytes(self._held[-_HEAD_BYTES:]))

    def end(self) -> bytes:
        """Nothing more comes: return the rest."""
        return self._tell_needles(is_last=True) + self._tell_to(self._end)

    @property
    def _end(self) -> int:
        return self._held_from + len(self._held)

    def _tell_needles(self, *, is_last: bool) -> bytes:
        """Return what is held up to the last needle that is known to stand in it; one that overlaps has no own mask."""
        told = bytearray()
        while self._heads:
            at = self._heads[0]
            length = self._needles.longest_at(self._held, at - self._held_from, is_last=is_last)
            if length is None:
                break
            self._heads.popleft()
            if length and at >= self._told_to:
                told += self._plain(at) + _MASK_BYTES
            if length:
                self._told_to = max(self._told_to, at + length)
        return bytes(told)

    def _tell_to(self, limit: int) -> bytes:
        """Return the rest of what is held up to there, and let go of it."""
        told = self._plain(limit)
        self._told_to = max(self._told_to, limit)
        self._held = self._held[limit - self._held_from :]
        self._held_from = limit
        return told

    def _plain(self, end: int) -> bytes:
        """What is held from where nothing was told yet up to there."""
        return self._held[self._told_to - self._held_from : end - self._held_from]


# --- how a secret may be spelled -------------------------------------------------------------------------------------


def spellings(secret: bytes) -> set[bytes]:
    """All that is masked for a secret: it and each of its lines, plain, base64, URL-quoted and as JSON has it."""
    whole = secret.strip(b"\r\n")
    lines = [line.strip() for line in whole.splitlines()]
    parts = {whole, *(line for line in lines if not line.startswith((b"-----BEGIN ", b"-----END ")))}
    parts |= {value for line in lines for value in _assigned(line)}
    found = {part for part in parts if len(part) >= SPELLING_MIN_BYTES}
    spelled = {spelling for part in found for spelling in (*_base64(part), *_quoted(part), *_in_json(part))}
    wrapped = {line for value in (secret, whole) for line in _wrapped_base64(value)}
    if SPELLING_MIN_BYTES <= len(body := _ENDS_OF_KEY.sub(b"", whole)) <= _INSIDE_MAX_BYTES:
        wrapped |= {both for line in _lines_inside_base64(body) for both in _both_alphabets(line)}
    pieces = [part[at : at + _PIECE_BYTES] for part in sorted(found) for at in range(0, len(part), _PIECE_BYTES)]
    if len(pieces) <= _PIECES_MAX:  # or there would be too many to look for
        wrapped |= {broken for piece in pieces for broken in _broken_base64(piece)}
    return {spelling for spelling in found | spelled | wrapped if len(spelling) >= SPELLING_MIN_BYTES}


def _assigned(line: bytes) -> Iterator[bytes]:
    """The value in a line ``KEY=value`` or ``key: value``, with its quotes and without."""
    if (match := _ASSIGNMENT.fullmatch(line)) is not None:
        value = match[1].strip()
        yield value
        if value[:1] == value[-1:] and value[:1] in {b'"', b"'"}:
            yield value[1:-1]


def _base64(part: bytes) -> Iterator[bytes]:
    """By itself, and as it stands in the base64 of something longer: there each of three alignments looks different.

    Characters at the edges that hold bits of the neighbours, too, are left out.
    """
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + part)
        first = -(-before * _BYTE_BITS // _BASE64_BITS)
        last = (before + len(part)) * _BYTE_BITS // _BASE64_BITS
        yield from _both_alphabets(encoded[first:last])
    yield from _both_alphabets(base64.b64encode(part))


def _broken_base64(piece: bytes) -> Iterator[bytes]:
    """As it stands in the lines of the base64 of something longer: whole, or broken once, wherever that falls."""
    for whole in _base64(piece):
        yield whole
        for at in range(1, len(whole)):
            for line_end in (b"\n", b"\r\n"):
                yield whole[:at] + line_end + whole[at:]


def _wrapped_base64(value: bytes) -> Iterator[bytes]:
    encoded = base64.b64encode(value)
    for width in _WRAPPED_AT:
        for start in range(0, len(encoded), width):
            yield from _both_alphabets(encoded[start : start + width])


def _lines_inside_base64(value: bytes) -> Iterator[bytes]:
    """Each line of the base64 of something longer that holds the value anywhere: whole lines, its first and its last.

    These two with the end of the line between them and the next, for a few characters of them stand in other texts too.
    """
    for width in _WRAPPED_AT:
        size = width * _BASE64_BITS // _BYTE_BITS
        for at in range(len(value) - size + 1):
            yield base64.b64encode(value[at : at + size])
        for length in range(_END_MIN_BYTES, min(size, len(value))):
            first = _end_of_line(value[:length])
            before_last = _end_of_line(value[:-length][-size:])
            last = base64.b64encode(value[-length:])[: length * _BYTE_BITS // _BASE64_BITS]
            for line_end in (b"\n", b"\r\n"):
                yield first + line_end
                yield before_last + line_end + last


def _end_of_line(value: bytes) -> bytes:
    """Its base64 where a line ends with it, without the character that holds bits of what is before it, too."""
    before = -len(value) % 3
    return base64.b64encode(bytes(before) + value)[-(-before * _BYTE_BITS // _BASE64_BITS) :]


def _both_alphabets(encoded: bytes) -> tuple[bytes, bytes]:
    return encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))


def _quoted(part: bytes) -> Iterator[bytes]:
    ways = {quote(part, safe=safe) for safe in _LEFT_AS_THEY_ARE} | {quote_plus(part), quote_plus(part, safe="/")}
    for quoted in ways:
        yield quoted.encode()
        yield re.sub("%..", lambda match: match[0].lower(), quoted).encode()


def _in_json(part: bytes) -> Iterator[bytes]:
    text = part.decode(errors="surrogateescape")
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode(errors="surrogateescape")
