"""Attempts on the kernel: its settings, its rarer system calls, its control groups, its devices and clocks."""

import contextlib
import ctypes
import errno
import glob
import os
import struct
import time
from collections.abc import Mapping
from typing import Any

from agp_agent.doctor.escape.programs.prelude import Held, call, syscall, tried, written

MS_REMOUNT, MS_BIND = 32, 4096
SESSION_KEYRING = -3


def change_kernel_settings(facts: Mapping[str, Any]) -> None:
    """Write sysctls: as they are mounted, remounted writable, and through a fresh /proc."""
    name, value = facts["sysctl"], facts["value"].encode()
    tried("remount /proc/sys writable", lambda: call("mount", b"", b"/proc/sys", b"", MS_REMOUNT | MS_BIND, b""))
    tried(f"write {name}", lambda: written(f"/proc/sys/{name}", value))
    tried("open core_pattern for writing", lambda: _open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    tried("open modprobe for writing", lambda: _open("/proc/sys/kernel/modprobe", os.O_WRONLY))
    tried("press SysRq h (help)", lambda: written("/proc/sysrq-trigger", b"h"))
    tried("open sysfs for writing", lambda: _open("/sys/kernel/mm/transparent_hugepage/enabled", os.O_WRONLY))
    tried("mount a fresh /proc", lambda: call("mount", b"proc", b"/tmp", b"proc", 0, b""))
    tried(f"write {name} there", lambda: written(f"/tmp/sys/{name}", value))


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags))


def use_rare_system_calls(facts: Mapping[str, Any]) -> None:
    """Reach the parts of the kernel where most of its holes were found."""
    name = facts["name"].encode()
    tried("add a key", lambda: _key_for_all(name))
    tried("make a BPF map", lambda: syscall("bpf", 0, ctypes.create_string_buffer(_bpf_map(name), 128), 128))
    event = ctypes.create_string_buffer(128)
    struct.pack_into("II", event, 0, 1, 128)  # a software event, and the size of this
    tried("perf_event_open on every process", lambda: syscall("perf_event_open", event, -1, 0, -1, 0))
    tried("userfaultfd", lambda: syscall("userfaultfd", 0))
    tried("io_uring", lambda: syscall("io_uring_setup", 4, ctypes.create_string_buffer(120)))
    tried("kexec_load", lambda: syscall("kexec_load", 0, 0, None, 0))
    tried("load a module", lambda: syscall("init_module", b"", 0, b""))
    tried("switch swap on", lambda: call("swapon", b"/work/none", 0))
    tried("switch process accounting on", lambda: call("acct", b"/work/none"))


def _key_for_all(name: bytes) -> None:
    syscall("keyctl", 5, syscall("add_key", b"user", name, b"x", 1, SESSION_KEYRING), 0x3F3F3F3F)


def _bpf_map(name: bytes) -> bytes:
    """An array of one number, with a name that the host sees."""
    numbers = b"".join(number.to_bytes(4, "little") for number in (2, 4, 8, 1, 0, 0, 0))
    return numbers + name.replace(b"-", b"_")[-15:].ljust(16, b"\0")


def use_cgroups(facts: Mapping[str, Any]) -> None:
    """Change limits, and let the kernel run a program on the host when a control group becomes empty."""
    for path in sorted(glob.glob("/sys/fs/cgroup/*/memory.limit_in_bytes") + glob.glob("/sys/fs/cgroup/memory.max")):
        tried(f"lift the limit {path}", written, path, b"-1")
    tried("leave the pids limit", lambda: written("/sys/fs/cgroup/pids/pids.max", b"max"))
    tried("make a control group", lambda: os.mkdir(f"/sys/fs/cgroup/{facts['name']}"))
    place = facts.get("place", "/tmp")
    tried("mount a hierarchy of its own", lambda: _mount(place, f"none,name={facts['name']}"))
    tried("name a release agent", lambda: written(f"{place}/release_agent", facts["release_agent"].encode()))
    tried("let a group become empty", _empty_a_group, f"{place}/emptied")
    _take_down(place, facts["name"])


def _mount(place: str, options: str) -> None:
    call("mount", b"cgroup", place.encode(), b"cgroup", 0, options.encode())


def _empty_a_group(folder: str) -> None:
    if not os.path.exists(f"{os.path.dirname(folder)}/release_agent"):
        raise Held("no hierarchy")
    os.mkdir(folder)
    written(f"{folder}/notify_on_release", b"1")
    child = os.fork()
    if child == 0:
        written(f"{folder}/cgroup.procs", str(os.getpid()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.5)  # the kernel is to find it empty


def _take_down(place: str, name: str) -> None:
    """Leave no hierarchy behind: it would stand in the list of every process, and engines stumble over it.

    It ends with its last mount, but only where the groups below it are gone, and those take their time.
    """
    for _ in range(10):
        with open("/proc/self/cgroup") as groups:
            if name not in groups.read():
                return
        with contextlib.suppress(OSError):
            if not os.path.exists(f"{place}/release_agent"):
                _mount(place, f"none,name={name}")
            for group in glob.glob(f"{place}/*/"):
                os.rmdir(group)
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            call("umount2", place.encode(), 0)
        time.sleep(0.4)


def use_the_machine(facts: Mapping[str, Any]) -> None:
    """Memory and ports as devices, the kernel's log, its clocks, a reboot with a wrong key."""
    for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/dev/kvm", *facts["disk_files"]):
        tried(f"open {path}", _read_some, path)
    tried("read the kernel's log", lambda: call("klogctl", 3, ctypes.create_string_buffer(64), 64))
    tried("write to the kernel's log", written, "/dev/kmsg", f"{facts['name']}\n".encode())
    now = (ctypes.c_long * 2)()
    call("clock_gettime", 0, now)
    tried("set the clock to its own time", lambda: call("clock_settime", 0, now))
    tried("slew the clock by nothing", _adjust_nothing)
    tried("set the host's name to its own", _name_itself)
    tried("reboot with a wrong key", _reboot_with_a_wrong_key)
    tried("raw ports", lambda: call("iopl", 3))


def _read_some(path: str) -> None:
    with open(path, "rb", buffering=0) as opened:
        if not opened.read(64):
            raise Held("empty")


def _adjust_nothing() -> None:
    timex = ctypes.create_string_buffer(256)
    struct.pack_into("I", timex, 0, 1)  # ADJ_OFFSET, by 0
    call("adjtimex", timex)


def _name_itself() -> None:
    name = os.uname().nodename.encode()
    call("sethostname", name, len(name))


def _reboot_with_a_wrong_key() -> None:
    """The kernel asks for the right first: EPERM without it, EINVAL with it."""
    try:
        syscall("reboot", 1, 2, 3, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
