"""Masking of secrets."""

from pathlib import Path

import pytest

from agp_agent.redaction import MASK, Masker

SECRET = b"correct-horse-battery"


def test_a_known_secret_is_masked_wherever_it_stands() -> None:
    """By value: in the middle of a word too, and more than once."""
    masker = Masker(lambda: [SECRET, b"another-secret-value"])
    assert masker.text(f"x{SECRET.decode()}y {SECRET.decode()} another-secret-value") == f"x{MASK}y {MASK} {MASK}"


def test_rotated_secrets_are_masked_from_the_next_call_on() -> None:
    """The secrets are asked for at each call."""
    secrets = [SECRET]
    masker = Masker(lambda: secrets)
    secrets.append(b"the-new-token-of-today")
    assert masker.text("the-new-token-of-today") == MASK


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-ghi", f"Authorization: Bearer {MASK}"),
        ("authorization: basic dXNlcjpwdw==", f"authorization: basic {MASK}"),
        ('{"auth":"Bearer abc"}', f'{{"auth":"Bearer {MASK}"}}'),
        ("http://user:pass@proxy:3128/", f"http://{MASK}@proxy:3128/"),
        ("https://dashboard.example/path@x", "https://dashboard.example/path@x"),
        ("a bearer of news", f"a bearer {MASK} news"),
        ("nothing secret here", "nothing secret here"),
    ],
)
def test_what_looks_like_a_credential_is_masked_by_shape(text: str, masked: str) -> None:
    """Also where the agent does not know the value."""
    assert Masker(lambda: ()).text(text) == masked


def test_a_secret_that_is_no_text_masks_its_replaced_form() -> None:
    """A token of arbitrary bytes is never printed as such."""
    assert Masker(lambda: [b"\xff" * 16]).text("\ufffd" * 16) == MASK


def test_trees_are_masked_to_the_leaves() -> None:
    """Dicts, lists and tuples; numbers, booleans and None stay what they are."""
    masker = Masker(lambda: [SECRET])
    tree = {"a": SECRET.decode(), "b": [SECRET.decode(), 1, 2.5, True, None], "c": ({"d": SECRET.decode()},)}
    assert masker.tree(tree) == {"a": MASK, "b": [MASK, 1, 2.5, True, None], "c": [{"d": MASK}]}


@pytest.mark.parametrize("value", [ValueError(SECRET.decode()), Path(SECRET.decode()), SECRET])
def test_things_that_would_be_printed_as_text_are_masked_as_text(value: object) -> None:
    """An error in a field of a log line shows its message: no secret in it gets through."""
    assert SECRET.decode() not in str(Masker(lambda: [SECRET]).tree({"error": value}))


@pytest.mark.parametrize(
    "key",
    [
        *("authorization", "Authorization", "Proxy-Authorization", "token", "AGP_TOKEN", "dashboard_token", "password"),
        *("secret", "client-secret", "Set-Cookie", "api_key", "X-Api-Key", "private_key", "X-Registry-Auth"),
    ],
)
def test_what_stands_under_the_name_of_a_secret_is_masked_whatever_it_is(key: str) -> None:
    """Also a number, a list, and what nobody knows by its value."""
    masker = Masker(tuple)
    for value in ("hunter2", 7, ["hunter2"], {"a": "hunter2"}):
        assert masker.tree({"outer": [{key: value}]}) == {"outer": [{key: MASK}]}


@pytest.mark.parametrize(
    "key",
    [
        "token_fingerprint",
        "token_fingerprints",
        "tokens",
        "idempotency_key",
        "playbook_sha256",
        "task_id",
        "setting",
        "key",
    ],
)
def test_other_names_are_no_secrets(key: str) -> None:
    """Or nothing would be left to read."""
    assert Masker(tuple).tree({key: "7"}) == {key: "7"}


def test_a_private_key_is_masked_as_a_whole() -> None:
    """Also one whose end is missing."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\ndef\n"
    whole = f"before {key}-----END OPENSSH PRIVATE KEY----- after"
    assert Masker(tuple).text(whole) == f"before {MASK} after"
    assert Masker(tuple).text(f"before {key}") == f"before {MASK}"
    assert "BEGIN CERTIFICATE" in Masker(tuple).text("-----BEGIN CERTIFICATE-----")
