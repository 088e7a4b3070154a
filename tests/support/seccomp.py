"""A seccomp profile that is much stricter than any engine's: what a shell and its usual tools need, and no more."""

from typing import Any

_NEEDED = """
access arch_prctl brk capget capset chdir chmod clock_gettime clock_nanosleep clone clone3 close close_range dup dup2
dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait execve exit exit_group faccessat faccessat2 fadvise64 fchdir fchmod
fchmodat fcntl fork fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom
getrlimit gettid getuid ioctl kill lseek lstat madvise mkdir mkdirat mmap mprotect munmap nanosleep newfstatat open
openat pipe pipe2 poll ppoll prctl pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask
rt_sigreturn rt_sigtimedwait sched_getaffinity sched_yield select set_robust_list set_tid_address setgid setgroups
setpgid setsid setuid sigaltstack stat statfs statx tgkill umask uname unlink unlinkat utimensat vfork wait4 write
writev
"""


def profile_without(*forbidden: str) -> dict[str, Any]:
    """The profile without some of its system calls: they fail with EPERM, as all do that it does not name."""
    names = [name for name in _NEEDED.split() if name not in forbidden]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
