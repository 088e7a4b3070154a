"""Masking of secrets in output that comes in pieces."""

import base64
import hashlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agp_agent.redaction import MASK, Needles, StreamMasker, spellings

M = MASK.encode()
SECRET = b'hunter2/+ is#the"pass'
KEY = (
    b"-----BEGIN KEY-----\n"
    + b"\n".join(base64.b64encode(bytes([n] * 48)) for n in range(1, 6))
    + b"\n-----END KEY-----\n"
)

STEPS_PER_BYTE = 20

# Few different bytes, so that beginnings, overlaps and repetitions are common.
LETTERS = st.lists(st.sampled_from([b"a", b"b", b"\n", b"="]), max_size=60).map(b"".join)
SECRETS = st.lists(
    st.lists(st.sampled_from([b"a", b"b", b"\n"]), min_size=6, max_size=14).map(b"".join), min_size=1, max_size=3
)


def in_pieces(needles: Needles, data: bytes, cuts: list[int]) -> bytes:
    """Return what comes of the data when it is cut there."""
    masker = StreamMasker(needles)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    told = b"".join(masker.feed(data[start:end]) for start, end in itertools.pairwise(places))
    return told + masker.end()


@given(SECRETS, LETTERS, st.lists(st.integers(0, 80), max_size=12), st.data())
def test_any_cutting_gives_what_the_whole_gives_and_nothing_leaks(
    secrets: list[bytes], filler: bytes, cuts: list[int], data: st.DataObject
) -> None:
    """However the pieces fall, one byte each included; no spelling of a secret is in what comes out."""
    pieces = st.sampled_from(
        [filler, *sorted({spelling for secret in secrets for spelling in spellings(secret)}), b"ab"]
    )
    output = b"".join(data.draw(st.lists(pieces, max_size=6)))
    needles = Needles(secrets)
    whole = needles.masked(output)
    assert in_pieces(needles, output, cuts) == whole
    assert in_pieces(needles, output, list(range(len(output)))) == whole
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in whole


@given(SECRETS, LETTERS, LETTERS)
def test_exactly_what_belongs_to_a_needle_is_masked(secrets: list[bytes], before: bytes, after: bytes) -> None:
    """As if each spelling had been looked for at every place; those that overlap share one mask."""
    output = before + secrets[0] + secrets[-1][2:] + after
    needles = [spelling for secret in secrets for spelling in spellings(secret)]
    expected, told_to = bytearray(), 0
    for at in range(len(output)):
        if ends := [at + len(needle) for needle in needles if output.startswith(needle, at)]:
            expected += M if at >= told_to else b""
            told_to = max(told_to, *ends)
        if at >= told_to:
            expected += output[at : at + 1]
    assert Needles(secrets).masked(output) == expected


@given(LETTERS, st.data())
def test_what_holds_no_secret_is_not_changed(text: bytes, data: st.DataObject) -> None:
    """And comes out at once, but for an end that is the beginning of a secret."""
    needles = Needles([b"zzzzzz-secret"])
    cut = data.draw(st.integers(0, len(text)))
    masker = StreamMasker(needles)
    assert masker.feed(text[:cut]) == text[:cut]
    assert masker.feed(text[cut:]) == text[cut:]
    assert masker.end() == b""


@pytest.mark.parametrize("secret", [SECRET, "pässwörd-ü".encode(), b"\x00\xff\x80binary\xfe!", b"simple-secret"])
@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:"])
def test_every_spelling_is_masked(secret: bytes, before: bytes) -> None:
    """Plain, base64 in each alignment and alphabet, URL-quoted in each manner, as in JSON: no core of it is left."""
    needles = Needles([secret])
    encoded = base64.b64encode(before + secret + b"!")
    inner = encoded[4 * ((len(before) + 2) // 3) : -4]
    printed = [
        before + secret,
        encoded,
        base64.urlsafe_b64encode(before + secret + b"!"),
        quote(secret).encode(),
        quote(secret, safe="").encode(),
        quote_plus(secret).encode(),
        quote(secret, safe="").lower().encode() if secret.islower() else secret,
        json.dumps(secret.decode(errors="surrogateescape"))[1:-1].encode(errors="surrogateescape"),
        json.dumps(secret.decode(errors="surrogateescape"), ensure_ascii=False)[1:-1].encode(errors="surrogateescape"),
    ]
    for text in printed:
        masked = needles.masked(b"<" + text + b">")
        assert M in masked, text
        assert secret not in masked
        assert inner not in masked


def test_a_secret_printed_byte_by_byte_never_comes_out() -> None:
    """What is held back comes out as a mask with its last byte, and what was no secret comes out whole."""
    masker = StreamMasker(Needles([b"hunter2-password"]))
    told = [masker.feed(bytes([byte])) for byte in b"x hunter2-password hunter2-passion"]
    assert b"".join(told) + masker.end() == b"x [redacted] hunter2-passion"
    assert told[:3] == [b"x", b" ", b""]
    assert told[17] == M


def test_overlapping_secrets_share_one_mask() -> None:
    """The end of one is no leak because another began before it."""
    assert Needles([b"abcdefgh", b"efghijkl"]).masked(b"-abcdefghijkl-") == b"-[redacted]-"
    assert Needles([b"abcdefgh", b"abcdefghijkl"]).masked(b"-abcdefghijkl-abcdefghij-") == b"-[redacted]-[redacted]ij-"


def test_each_line_of_a_key_is_masked_and_its_header_is_not() -> None:
    """A key that is printed in part, indented or within JSON is still a key."""
    needles = Needles([KEY])
    lines = KEY.splitlines()
    assert needles.masked(b"    " + lines[2] + b"\n") == b"    [redacted]\n"
    assert needles.masked(lines[0] + b"\n") == lines[0] + b"\n"
    assert needles.masked(json.dumps(KEY.decode()).encode()) == b'"[redacted]\\n"'


@pytest.mark.parametrize("width", [76, 64])
def test_base64_that_was_broken_into_lines_is_masked(width: int) -> None:
    """As base64(1) and openssl print it."""
    encoded = base64.b64encode(KEY)
    text = b"\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    masked = Needles([KEY]).masked(text)
    assert set(masked.split(b"\n")) <= {M, text.split(b"\n")[-1] if len(text.split(b"\n")[-1]) < 6 else M}


@pytest.mark.parametrize("cut", range(1, 14))
def test_the_end_of_a_secret_at_a_cut_start_is_dropped(cut: int) -> None:
    """The engine threw the beginning away: nobody would know the rest for a secret."""
    needles = Needles([b"hunter2-password"])
    assert needles.without_cut_start(b"hunter2-password"[cut:] + b"\nmore\n") == b"\nmore\n"
    assert needles.without_cut_start(b"1234\n") == b"1234\n"
    assert needles.without_cut_start(b"") == b""


def test_short_pieces_are_not_masked() -> None:
    """A line of a few characters would stand everywhere."""
    assert Needles([b"a-long-line\nyes\nanother-line"]).masked(b"yes a-long-line") == b"yes [redacted]"


@pytest.mark.parametrize(
    "line", [b"DB_PASSWORD=pa55w0rd-of-db", b"export A='pa55w0rd-of-db'", b"password: pa55w0rd-of-db"]
)
def test_the_value_of_an_assignment_is_a_secret_of_its_own(line: bytes) -> None:
    """A playbook reads the file in env form and prints what stands behind the sign; the name alone is none."""
    needles = Needles([b"USER=me\n" + line + b"\n"])
    assert needles.masked(b"is pa55w0rd-of-db.") == b"is " + M + b"."
    assert needles.masked(b"DB_PASSWORD is set") == b"DB_PASSWORD is set"


def test_every_way_of_quoting_a_url_is_masked() -> None:
    """A browser leaves some signs as they are (encodeURIComponent), requests leaves more."""
    secret = b"it's(a)*secret!/+$&,=[x] 100%"
    needles = Needles([secret])
    for safe in ("!*'()", "!#$%&'()*+,/:;=?@[]~"):
        assert needles.masked(quote(secret, safe=safe).encode()) == M


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("secret", [SECRET, bytes(range(65, 91)) * 4])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_base64_of_something_longer_is_masked_where_a_line_ends_inside_the_secret(
    width: int, secret: bytes, line_end: bytes
) -> None:
    """A playbook prints `base64 my.cnf`: wherever the password stands in it, its lines tell nothing of it."""
    needles = Needles([secret])
    for before in range(40, 100):
        encoded = base64.b64encode(b"." * before + secret + b"." * 30)
        lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
        told = needles.masked(line_end.join(lines)).replace(line_end, b"")
        of_secret = encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        assert not any(of_secret[at : at + 4] in told for at in range(len(of_secret) - 3))


LARGE = b"\n".join(
    [b"-----BEGIN KEY-----"]
    + [base64.b64encode(hashlib.sha512(bytes([n])).digest()[:48]) for n in range(40)]
    + [b"-----END KEY-----"]
)
"""Of 2.6 KB, as an RSA key of 4,096 bits has."""


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("before", [0, 1, 50, 77])
def test_base64_of_something_longer_tells_nothing_of_a_large_secret(width: int, line_end: bytes, before: int) -> None:
    """`tar c /run/secrets | base64`: one byte a write, wherever the key stands in it."""
    needles, told = Needles([LARGE]), bytearray()
    encoded = base64.b64encode(b"." * before + LARGE + b"\n" + b"." * 200)
    text = line_end.join(encoded[at : at + width] for at in range(0, len(encoded), width))
    masker = StreamMasker(needles)
    for at in range(len(text)):
        told += masker.feed(text[at : at + 1])
    told += masker.end()
    left = bytes(told).replace(line_end, b"").replace(M, b" ")
    start, end = before + LARGE.index(b"\n") + 1, before + LARGE.rindex(b"\n")
    of_secret = encoded[-(-start * 8 // 6) : end * 8 // 6]
    assert not any(of_secret[at : at + 8] in left for at in range(len(of_secret) - 7))
    assert base64.b64encode(b"." * 150) in left


def test_the_base64_of_another_key_is_not_touched() -> None:
    """All begin with the same line, and a certificate nearly so."""
    encoded = base64.b64encode(b"-----BEGIN KEY-----\n" + base64.b64encode(b"another" * 30))
    text = b"\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))
    assert Needles([LARGE]).masked(text) == text


def test_the_needles_of_a_secret_are_bounded() -> None:
    """Two a byte, and half of them again for the other alphabet; above 8 KiB none of them."""
    noise = base64.b64encode(b"".join(hashlib.sha512(bytes([n])).digest() for n in range(256)))
    assert len(spellings(noise[: 8 * 2**10])) < 5 * 8 * 2**10
    assert len(spellings(noise[: 8 * 2**10 + 1])) < 1000


def steps_of(call: Callable[[], object]) -> int:
    """Count the functions that Python and its C code enter meanwhile: the work, whatever else the machine does."""
    steps = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal steps
        steps += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(before)
    return steps


TOKEN = base64.b64encode(hashlib.sha256(b"token").digest())
MOST_COMMON_HEAD = Counter(needle[:6] for needle in spellings(TOKEN)).most_common(1)[0][0]


@pytest.mark.parametrize(
    ("secret", "hostile"),
    [
        (TOKEN, MOST_COMMON_HEAD),
        (TOKEN, TOKEN),
        (TOKEN, TOKEN[:-1]),
        (TOKEN, base64.b64encode(TOKEN) + b"\n"),
        (LARGE, base64.b64encode(LARGE)[:6]),
        (b"a" * 44, b"a"),
        (b"a" * 44, b"YWFhYWFh"),
        (b"\n".join(b"a" * length for length in range(6, 60)), b"aaaaaaab"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [50, 16 * 2**10])
def test_no_output_makes_masking_laborious(secret: bytes, hostile: bytes, piece_bytes: int) -> None:
    """A playbook that prints what many needles begin with costs a few steps a byte: it cannot freeze the agent."""
    size = 16 * 2**10
    output = (hostile * size)[:size]
    masker = StreamMasker(Needles([secret]))
    pieces = [output[at : at + piece_bytes] for at in range(0, size, piece_bytes)]
    assert steps_of(lambda: [masker.feed(piece) for piece in pieces]) < STEPS_PER_BYTE * size


def test_a_mask_that_grows_and_grows_is_told_once_and_at_once() -> None:
    """What is held back does not grow with it: a playbook could fill the agent's memory with what nobody sees."""
    masker = StreamMasker(Needles([b"aaaaaaaa"]))
    assert masker.feed(b"a" * 1000) == M
    assert masker.feed(b"a" * 1000) == b""
    assert masker.feed(b"b") == b"b"
    assert not masker.holds


def test_of_a_text_that_was_cut_the_beginning_of_a_secret_is_left_out() -> None:
    """Only where it was cut: else it is text like any other."""
    needles = Needles([b"hunter2-password"])
    assert needles.masked(b"it is hunter2-pass", is_cut=True) == b"it is "
    assert needles.masked(b"it is hunter2-pass") == b"it is hunter2-pass"
    assert needles.masked(b"hunter2-password and", is_cut=True) == b"[redacted] and"
