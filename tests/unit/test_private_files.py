"""Files of secrets: which modes are private enough, and what is said of the others."""

import os
from pathlib import Path

import pytest

from agp_agent.private_files import NotPrivate, check_private, read_private
from support.secret_files import write_secret


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o700])
def test_a_file_that_its_owner_and_a_group_may_read_is_private(tmp_path: Path, mode: int) -> None:
    """A Secret of Kubernetes with fsGroup, and a credential of systemd, are 0440."""
    file = write_secret(tmp_path / "secret", "content\n", mode)
    check_private(file)
    assert read_private(file) == b"content\n"


@pytest.mark.parametrize(("mode", "why"), [(0o644, "read"), (0o604, "read"), (0o666, "read"), (0o602, "read")])
def test_a_file_that_everybody_may_read_is_refused_with_the_mode_it_should_have(
    tmp_path: Path, mode: int, why: str
) -> None:
    """One that everybody may write, too; the sentence goes behind the file's name."""
    file = write_secret(tmp_path / "secret", "content\n", mode)
    for look in (read_private, check_private):
        with pytest.raises(NotPrivate) as caught:
            look(file)
        assert str(caught.value) == (
            f"has mode {mode:04o}, so everybody on this machine can {why} it; expected 0600 or 0400, or 0640 or 0440 "
            "where a group of its own reads it (for a Secret of Kubernetes: defaultMode 0440 and fsGroup)"
        )


@pytest.mark.parametrize("mode", [0o620, 0o660])
def test_a_file_that_its_group_may_change_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever changes it decides who comes in."""
    with pytest.raises(NotPrivate, match=rf"^has mode {mode:04o}, so its group can change it; expected 0600"):
        read_private(write_secret(tmp_path / "secret", "content", mode))


def test_the_file_that_is_read_is_the_one_whose_mode_counts(tmp_path: Path) -> None:
    """Behind a link, too: what a link may do says nothing."""
    write_secret(tmp_path / "open", "content", 0o644)
    link = tmp_path / "link"
    link.symlink_to("open")
    with pytest.raises(NotPrivate):
        read_private(link)
    (tmp_path / "open").chmod(0o600)
    assert read_private(link) == b"content"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe that nobody writes into must not hold the agent up."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(ValueError, match=r"^is not a regular file$"):
            read_private(tmp_path / name)
    with pytest.raises(OSError, match="No such file"):
        check_private(tmp_path / "missing")


def test_a_file_is_read_within_a_limit(tmp_path: Path) -> None:
    """Exactly at it the content is whole."""
    file = write_secret(tmp_path / "secret", "x" * 100)
    assert len(read_private(file, 100)) == 100
    with pytest.raises(ValueError, match=r"^is larger than 99 bytes$"):
        read_private(file, 99)
