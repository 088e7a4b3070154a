"""Files that hold secrets."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agp_agent.errors import SecretUnavailable
from agp_agent.secret_files import (
    MAX_BYTES,
    MAX_NUMBER,
    MAX_TOTAL_BYTES,
    TMPFS_BYTES,
    Secret,
    fingerprint,
    problems,
    read_all,
)
from support.catalogs import write_secret

VALUE = b"hunter2-password\n"


def secret(path: Path) -> Secret:
    """Return a secret of that file."""
    return Secret("key", path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_value_is_what_stands_in_the_file(tmp_path: Path, mode: int) -> None:
    """Byte for byte, the newline at its end included; the group may read it, as where a pod's fsGroup does."""
    path = write_secret(tmp_path / "key", VALUE + bytes(range(256)), mode)
    assert read_all([secret(path)]) == {"key": VALUE + bytes(range(256))}


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """With the mode it has, and the one it should have."""
    path = write_secret(tmp_path / "key", VALUE, mode)
    with pytest.raises(SecretUnavailable) as caught:
        secret(path).read()
    assert str(caught.value).startswith(f"secret key is not available: {path} has mode {mode:04o}, so ")
    assert "; expected 0600 or 0400, or " in str(caught.value)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _path: None, "cannot be read: No such file or directory"),
        (Path.mkdir, "is not a regular file"),
        (lambda path: write_secret(path, b"x" * (MAX_BYTES + 1)), f"is larger than {MAX_BYTES} bytes"),
        (lambda path: write_secret(path, b""), "is shorter than 6 bytes"),
        (lambda path: write_secret(path, b"  12345 \n"), "is shorter than 6 bytes"),
    ],
    ids=["missing", "folder", "large", "empty", "short"],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """That names the secret and the file, and never what stands in it."""
    path = tmp_path / "key"
    make(path)
    (problem,) = problems([secret(path)])
    assert problem.startswith(f"secret key is not available: {path} {why}")


def test_a_fifo_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A pipe that nobody writes to would block the release for ever."""
    os.mkfifo(tmp_path / "key", 0o600)
    assert "is not a regular file" in problems([secret(tmp_path / "key")])[0]


def test_the_largest_secrets_fit_where_they_go() -> None:
    """In the largest number."""
    assert MAX_TOTAL_BYTES + MAX_NUMBER * 4096 < TMPFS_BYTES


def test_many_large_secrets_are_refused_together(tmp_path: Path) -> None:
    """Each of them would do."""
    secrets = [Secret(f"key{n}", write_secret(tmp_path / f"key{n}", b"x" * MAX_BYTES)) for n in range(5)]
    assert problems(secrets[:4]) == []
    (problem,) = problems(secrets)
    assert problem == (
        "secrets key0, key1, key2, key3, key4 are not available: together they are larger than 262144 bytes"
    )


def test_a_fingerprint_tells_only_whether_values_are_the_same() -> None:
    """It depends on names, values, where each ends, and the salt; the order does not matter."""
    values = {"a": b"first-value", "b": b"second-value"}
    mark = fingerprint(values, "nonce")
    assert mark == fingerprint(dict(reversed(values.items())), "nonce")
    others = [{"a": b"first-value"}, {"b": b"first-value", "a": b"second-value"}, {"a": b"first-valueb", "": b"x"}]
    assert all(fingerprint(other, "nonce") != mark for other in others)
    assert fingerprint(values, "another nonce") != mark
    assert not any(value.hex() in mark for value in values.values())
