"""Attempts on processes: those of the host, other rights than one's own, namespaces, and what many processes use up."""

import contextlib
import ctypes
import glob
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from agp_agent.doctor.escape.programs.prelude import Held, call, secret_marks, syscall, tell, tried, written

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CLONES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}
MIB = 2**20


def touch_a_process_of_the_host(facts: Mapping[str, Any]) -> None:
    """Find the victim, read it, trace it, and end it."""
    pid = facts["pid"]
    visible = tried("see the victim in /proc", lambda: _see(pid, facts["name"]))
    # A process of this container that happens to have the number is not the victim.
    target = pid if visible or not os.path.exists(f"/proc/{pid}") else 2**22 - 1
    tried("read its memory", lambda: os.close(os.open(f"/proc/{target}/mem", os.O_RDONLY)))
    tried("trace it", lambda: _trace(target))
    tried("kill it", lambda: os.kill(target, signal.SIGTERM))
    tried("kill it by pidfd", lambda: _kill_by_pidfd(target))


def _see(pid: int, name: str) -> None:
    with open(f"/proc/{pid}/cmdline", "rb") as opened:
        if name.encode() not in opened.read():
            raise Held("another process")


def _trace(pid: int) -> None:
    call("ptrace", PTRACE_ATTACH, pid, 0, 0)
    os.waitpid(pid, 0)
    call("ptrace", PTRACE_DETACH, pid, 0, 0)


def _kill_by_pidfd(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
    finally:
        os.close(fd)


def become_root(facts: Mapping[str, Any]) -> None:
    """Gain another user or a capability: by asking, by setuid programs, by file capabilities."""
    me = os.geteuid()
    for name, action in {
        "setuid(0)": lambda: os.setresuid(0, 0, 0),
        "setgid(0)": lambda: os.setresgid(0, 0, 0),
        "setgroups": lambda: os.setgroups([0]),
    }.items():
        tried(name, action)
    tried("raise a capability", _raise_capabilities)
    tried("raise an ambient capability", lambda: call("prctl", 47, 2, 21, 0, 0))
    tried("keep capabilities over setuid", lambda: _keep_capabilities(me))
    tried("give a file a capability", lambda: _capable_file(f"{facts.get('place', '/work')}/capable"))
    for program in [*facts.get("setuid", ()), *_setuid_programs()]:
        tried(f"run {program}", _run_setuid, program, facts["name"])
    for program in ("su", "sudo", "pkexec", "newgrp", "mount"):
        tried(f"ask {program}", _ask, program)


def _raise_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", header, (ctypes.c_uint32 * 6)(*(0xFFFFFFFF, 0xFFFFFFFF, 0) * 2))


def _keep_capabilities(me: int) -> None:
    call("prctl", 8, 1, 0, 0, 0)  # harmless by itself
    os.setuid(me)
    _raise_capabilities()


def _capable_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
    os.setxattr(path, "security.capability", bytes((1, 0, 0, 2)) + b"\xff" * 16)


def _setuid_programs() -> list[str]:
    found = []
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec"):
        for path in glob.glob(f"{folder}/*"):
            with contextlib.suppress(OSError):
                if os.stat(path).st_mode & 0o6000 and os.access(path, os.X_OK) and os.path.isfile(path):
                    found.append(path)
    return found


def _run_setuid(program: str, name: str) -> None:
    """A setuid copy of the interpreter says whose rights it has, and stays for the judge to see."""
    code = "import os, sys, time; print(os.geteuid(), flush=True); time.sleep(60)"
    with subprocess.Popen([program, "-c", code, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        answer = child.stdout.readline().strip()
        if answer == b"0":
            child.returncode = 0  # leave it alone
            return
        child.kill()
    raise Held(f"runs as {answer.decode() or 'nobody'}")


def _ask(program: str) -> None:
    command = [program, "-c", "id -u"] if program == "su" else [program, "id", "-u"]
    ended = subprocess.run(command, input=b"", capture_output=True, timeout=10, check=False)
    if ended.stdout.strip() != b"0":
        raise Held(f"exit code {ended.returncode}")


def leave_namespaces(facts: Mapping[str, Any]) -> None:
    """Make namespaces, where one would be root, and enter those of others."""
    tried(
        "enter init's namespaces by pidfd", lambda: call("setns", os.pidfd_open(1), CLONES["mount"] | CLONES["network"])
    )
    for kind in ("user", "mnt", "net", "pid", "uts", "ipc", "cgroup"):
        tried(f"enter the {kind} namespace of the victim", _enter, facts["pid"], kind)
    for kind, flag in CLONES.items():
        tried(f"unshare {kind}", _in_child, "unshare", flag)
    tried("clone3 with a user namespace", lambda: _clone3(CLONES["user"]))
    tried("become root in a user namespace", lambda: _root_of_a_namespace(facts["name"]))


def _enter(pid: int, kind: str) -> None:
    fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    _in_child("setns", fd, 0)


def _in_child(function: str, *arguments: object) -> None:
    """Call it in a fork, so that what it changes is not this process; its errno comes back as the exit code."""
    child = os.fork()
    if child == 0:
        try:
            call(function, *arguments)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def _clone3(flags: int) -> None:
    arguments = (ctypes.c_uint64 * 11)(flags, 0, 0, 0, signal.SIGCHLD)
    child = syscall("clone3", arguments, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _root_of_a_namespace(name: str) -> None:
    """A child becomes root of a user namespace and stays, for the judge to see."""
    uid = os.getuid()
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call("unshare", CLONES["user"])
            written("/proc/self/uid_map", f"0 {uid} 1".encode())
        except OSError as error:
            os.write(told, str(error.errno).encode())
            os._exit(1)
        os.write(told, b"0")
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", name])
    os.close(told)
    answer = int(os.read(ready, 16))
    os.read(ready, 1)  # ends when the child has become the program that stays
    if answer:
        raise OSError(answer, os.strerror(answer))


def exhaust(facts: Mapping[str, Any]) -> None:
    """Take as many processes, files, watches and as much memory as there are; keep them until the judge has looked."""
    processes, memory_mib = facts.get("processes", 400), facts.get("memory_mib", 600)
    tried(f"take {memory_mib} MiB of memory", lambda: _take_memory(memory_mib))
    tried("open 2000 files", lambda: _open_files(2000))
    tell(noted=f"{_take_inotify(200)} inotify instances")  # a kernel may have more: they are counted for each user
    tried(f"start {processes} processes", lambda: _start_processes(processes))


def _start_processes(number: int) -> None:
    for _ in range(number):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)


def _open_files(number: int) -> None:
    opened: list[int] = []
    try:
        opened.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(number))
    finally:
        for fd in opened:
            os.close(fd)


def _take_inotify(number: int) -> int:
    for taken in range(number):
        try:
            _inotify()
        except OSError:
            return taken
    return number


def _inotify() -> int:
    return call("inotify_init1", 0)


def _take_memory(mib: int) -> None:
    """In a child, which the kernel may kill."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_first_to_go()
        taken = [b"%06d" % number * (MIB // 6) for number in range(mib)]
        os.write(told, b"x")
        time.sleep(60 if taken else 0)
        os._exit(0)
    os.close(told)
    if not os.read(ready, 1):
        raise Held(f"killed by signal {os.waitpid(child, 0)[1] & 127}")


def _be_the_first_to_go() -> None:
    """Where memory is short the kernel ends this process, and not the one that tells of it."""
    written("/proc/self/oom_score_adj", b"1000")


def neighbour(facts: Mapping[str, Any]) -> None:
    """What a well-behaved neighbour does: a process, a file, a watch, memory and output, again and again."""
    for _ in range(facts["rounds"]):
        subprocess.run(["/bin/true"], check=True)
        os.close(_inotify())
        with open("/work/own", "wb") as own:
            own.write(bytes(MIB))
        bytearray(64 * MIB)
        tell(round="well")
        time.sleep(0.2)


def pass_huge_arguments(facts: Mapping[str, Any]) -> None:
    """Start processes with as long a command line and environment as the kernel takes."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_STACK, (64 * MIB, resource.RLIM_INFINITY))
    word = "x" * (120 * 1024)
    tried("one argument of 4 MiB", lambda: subprocess.run(["/bin/true", "x" * 4 * MIB], check=True))
    tried(
        "an environment of 64 MiB",
        lambda: subprocess.run(["/bin/true"], env={f"n{n}": word for n in range(520)}, check=True),
    )
    tried(f"{facts['number']} processes with {facts['words']} such words", lambda: _start_wordy(word, facts))


def _start_wordy(word: str, facts: Mapping[str, Any]) -> None:
    """In a child, so that the one that the kernel kills for it is not this process."""
    child = os.fork()
    if child == 0:
        _be_the_first_to_go()
        command = ["/bin/sh", "-c", "kill -STOP $$", facts["name"], *[word] * facts["words"]]
        try:
            started = [subprocess.Popen(command) for _ in range(facts["number"])]
        except OSError as error:
            os._exit(error.errno or 255)
        time.sleep(0.5)
        os._exit(255 if any(one.poll() is not None for one in started) else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 255:
        raise Held("some were killed")
    if code > 0:
        raise OSError(code, os.strerror(code))
    if code < 0:
        raise Held(f"killed by signal {-code}")


def change_oom_scores(facts: Mapping[str, Any]) -> None:
    """Make the kernel spare this process, or sacrifice the victim, when memory is short."""
    tried("make itself unkillable", lambda: written("/proc/self/oom_score_adj", b"-1000"))
    tried("the same, a little", lambda: written("/proc/self/oom_score_adj", b"-1"))
    tried("sacrifice the victim", lambda: _sacrifice(facts["pid"], facts["name"]))


def _sacrifice(pid: int, name: str) -> None:
    _see(pid, name)
    written(f"/proc/{pid}/oom_score_adj", b"900")


def stop_itself(_facts: Mapping[str, Any]) -> None:
    """Stop, so that nothing in here ever ends by itself."""
    tell(finished="and never to end")
    os.kill(os.getpid(), signal.SIGSTOP)


def read_keys_and_environments(facts: Mapping[str, Any]) -> None:
    """Read what other processes keep in the kernel's keyrings and in their environment."""
    marks = secret_marks(facts)
    for path in ["/proc/keys", "/proc/key-users", *glob.glob("/proc/[0-9]*/environ")]:
        with contextlib.suppress(OSError), open(path, "rb") as opened:
            text = opened.read()
            for mark in marks:
                if mark in text:
                    tell(found=mark.decode(), path=path)
    buffer = ctypes.create_string_buffer(4096)
    for key in facts.get("keys", ()):
        tried(f"read key {key}", syscall, "keyctl", 11, key, buffer, 4096)
        for mark in marks:
            if mark in buffer.raw:
                tell(found=mark.decode(), path=f"key {key}")
    tried("make a key", lambda: syscall("add_key", b"user", facts["name"].encode(), b"x", 1, -4))
    tried("read the environment of the host's first process", lambda: _see_host(facts["pid"]))


def _see_host(pid: int) -> None:
    with open(f"/proc/{pid}/environ", "rb") as opened:
        if not opened.read():
            raise Held("empty")
