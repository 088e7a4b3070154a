"""Labels of SELinux. Any Linux keeps them; only one that enforces SELinux looks at them."""

import os
from pathlib import Path

import pytest

from agp_agent import selinux

LABEL = "security.selinux"


@pytest.fixture
def enforcing(tmp_path: Path) -> Path:
    """The switch of a host that enforces it."""
    switch = tmp_path / "enforce"
    switch.write_text("1\n")
    return switch


def test_it_is_enforced_where_the_kernel_says_so(tmp_path: Path, enforcing: Path) -> None:
    """Permissive, or no SELinux at all, is not."""
    assert selinux.is_enforced(enforcing)
    enforcing.write_text("0\n")
    assert not selinux.is_enforced(enforcing)
    assert not selinux.is_enforced(tmp_path / "missing")


def test_what_containers_read_is_labelled_for_them(tmp_path: Path, enforcing: Path) -> None:
    """And where nobody enforces it, nothing is changed."""
    for name, switch in (("labelled", enforcing), ("left", tmp_path / "missing")):
        (tmp_path / name).mkdir()
        selinux.share(tmp_path / name, switch)
    assert os.getxattr(tmp_path / "labelled", LABEL) == b"system_u:object_r:container_ro_file_t:s0"
    assert LABEL not in os.listxattr(tmp_path / "left")


def test_a_folder_that_containers_may_not_read_is_told_with_the_way_out(tmp_path: Path) -> None:
    """What has another type, as homes have; what has none, or the containers' own, is no problem."""
    path = str(tmp_path)
    assert selinux.problem(path) is None
    os.setxattr(path, LABEL, b"unconfined_u:object_r:user_home_t:s0\0")
    assert selinux.problem(path) == (
        f"{path} has the SELinux type user_home_t, which containers may not read: chcon -R -t container_file_t {path}"
    )
    os.setxattr(path, LABEL, b"system_u:object_r:container_file_t:s0:c1,c2")
    assert selinux.problem(path) is None
    assert selinux.problem(str(tmp_path / "missing")) is None
