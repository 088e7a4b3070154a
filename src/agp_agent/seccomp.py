"""The seccomp profile of task containers: which system calls a playbook may make. Pure.

Stricter than the engines' own: those of before 2024 let io_uring and sockets to the machine below (vsock) through, and
all let a process trace others of its own. It is a list of what is allowed, for 64-bit programs; whatever else a kernel
has, or will have, is refused.
"""

import json
from typing import Any, Final

_ALLOWED: Final = """
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64
    getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat
    madvise map_shadow_stack membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal
    pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease
    pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg
    remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid
    setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt
    setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 splice stat statfs
    statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate
    umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
""".split()  # noqa: SIM905  so many names read best as words
"""Without those that need a capability anyway, and without the parts of the kernel where most of its holes were found:
bpf, io_uring, keyrings, userfaultfd, perf, ptrace, new mounts and namespaces, other processes' memory."""

DENYING: Final = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD")
"""Actions that refuse a call. All others let it happen, be it with a line in a log."""
_NEVER: Final = frozenset(
    """
    acct add_key bpf delete_module finit_module fsconfig fsmount fsopen fspick init_module ioperm iopl
    kexec_file_load kexec_load keyctl mount mount_setattr move_mount name_to_handle_at open_by_handle_at open_tree
    perf_event_open pivot_root process_vm_writev quotactl reboot request_key setns swapoff swapon umount2 unshare
    userfaultfd vhangup
    """.split()  # noqa: SIM905  so many names read best as words
)
"""No work of a playbook needs one of these, and ways out of containers went through most of them."""

_NEW_NAMESPACES: Final = 0x7E020000
"""The flags of clone(2) that make one."""
_UNIX: Final = 1
_SOCKET_FAMILIES: Final = (_UNIX, 2, 10, 16)
"""Unix, IPv4, IPv6, netlink."""
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, 32-bit addresses, both with the name of an older kernel, and the question."""
_ENOSYS: Final = 38
_ARCHITECTURES: Final = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")


def profile() -> str:
    """The profile as engines take it, JSON."""
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": name, "subArchitectures": []} for name in _ARCHITECTURES],
            "syscalls": [
                _allow(_ALLOWED),
                *(_allow(["socket"], 0, "SCMP_CMP_EQ", family) for family in _SOCKET_FAMILIES),
                _allow(["socketpair"], 0, "SCMP_CMP_EQ", _UNIX),  # no other of these families has pairs
                *(_allow(["personality"], 0, "SCMP_CMP_EQ", one) for one in _PERSONALITIES),
                _allow(["clone"], 0, "SCMP_CMP_MASKED_EQ", _NEW_NAMESPACES),
                # Its flags stand in memory, where no filter can look: C libraries then take clone.
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            ],
        },
        separators=(",", ":"),
    )


def _allow(names: list[str], argument: int | None = None, comparison: str = "", value: int = 0) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if argument is None:
        return rule
    return rule | {"args": [{"index": argument, "value": value, "valueTwo": 0, "op": comparison}]}


def opened(profile: dict[str, Any]) -> list[str]:
    """The calls that no playbook needs, and that a profile of the operator's lets through all the same.

    A rule that looks at arguments may be narrow enough, and one that asks for capabilities (``includes``) is never met
    in a task's container.

    Raises:
        ValueError: its rules are not written as engines read them.
    """
    rules = profile.get("syscalls") or []
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ValueError("syscalls: a list of rules")
    named = (name for rule in rules if _lets_through(rule) for name in _names(rule))
    return sorted(_NEVER.intersection(named))


def _lets_through(rule: dict[str, Any]) -> bool:
    needs_capabilities = isinstance(includes := rule.get("includes"), dict) and includes.get("caps")
    return rule.get("action") not in DENYING and not rule.get("args") and not needs_capabilities


def _names(rule: dict[str, Any]) -> list[str]:
    names = rule.get("names") or []
    if not isinstance(names, list):
        raise ValueError("names: a list of names of calls")  # noqa: TRY004  as all that is wrong in a catalog
    return [*map(str, names), str(rule.get("name", ""))]
