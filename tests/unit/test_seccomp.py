"""The profile of task containers: what it lets through, and that it is stricter than an engine's own."""

import json
from typing import Any

import pytest

from agp_agent import seccomp


def rules(name: str) -> list[dict[str, Any]]:
    """The rules for one system call."""
    return [rule for rule in json.loads(seccomp.profile())["syscalls"] if name in rule["names"]]


@pytest.mark.parametrize("name", ["read", "execve", "futex", "mmap", "connect", "rt_sigaction", "statx", "faccessat2"])
def test_what_programs_live_on_is_allowed(name: str) -> None:
    """Without conditions."""
    (rule,) = rules(name)
    assert rule == {"names": rule["names"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    "name",
    [
        "bpf", "io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key",
        "userfaultfd", "perf_event_open", "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2",
        "pivot_root", "move_mount", "open_tree", "fsopen", "unshare", "setns", "kexec_load", "kexec_file_load",
        "init_module", "finit_module", "delete_module", "open_by_handle_at", "reboot", "swapon", "acct", "syslog",
        "settimeofday", "clock_settime", "quotactl", "iopl", "ioperm", "chroot", "pidfd_getfd", "fanotify_init",
        "memfd_secret", "sethostname",
    ],
)  # fmt: skip
def test_where_kernels_had_their_holes_is_refused(name: str) -> None:
    """No rule names it, so it is refused; the same for whatever a future kernel has."""
    assert json.loads(seccomp.profile())["defaultAction"] == "SCMP_ACT_ERRNO"
    assert rules(name) == []


def test_namespaces_come_neither_by_clone_nor_by_clone3() -> None:
    """The flags of clone are looked at; those of clone3 cannot be, so C libraries are told to take clone."""
    (rule,) = rules("clone")
    assert rule["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    assert rules("clone3") == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]


def test_sockets_are_of_four_families() -> None:
    """Unix, IPv4, IPv6 and netlink: no raw frames, no way to the machine below."""
    assert [rule["args"][0]["value"] for rule in rules("socket")] == [1, 2, 10, 16]


def test_pairs_of_sockets_are_unix_alone() -> None:
    """Making a pair enters a family's code as making one socket does; no other allowed family has pairs."""
    (rule,) = rules("socketpair")
    assert rule["args"] == [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]


def test_only_64_bit_programs_run() -> None:
    """The 32-bit entries of the kernel, which have numbers of their own, are closed."""
    architectures = json.loads(seccomp.profile())["archMap"]
    assert architectures == [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
    ]
