"""What every program begins with: how it calls the kernel, and how it tells what the kernel answered."""

import ctypes
import errno
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

_COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine(), 0)
SYSCALLS = {
    "pivot_root": (155, 41),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "clone3": (435, 435),
}
"""Numbers on amd64 and arm64 of what the C library has no function for."""


class Held(Exception):
    """The attempt came to nothing in another way than by an error of the kernel; the message says how."""


def tell(**record: object) -> None:
    """Print one record, in one write: what is printed after it cannot come into its middle."""
    os.write(1, (json.dumps(record) + "\n").encode())


def tried(what: str, action: Callable[..., object], *arguments: object) -> bool:
    """Do it, and tell how the kernel answered: ``done``, or the error's name. True where it was done."""
    try:
        action(*arguments)
    except OSError as error:
        answer = errno.errorcode.get(error.errno or 0, str(error))
    except Held as held:
        answer = str(held)
    else:
        answer = "done"
    tell(tried=what, answer=answer)
    return answer == "done"


def call(function: str, *arguments: object) -> int:
    """A function of the C library that returns -1 and sets errno where it fails."""
    if not hasattr(libc, function):
        raise Held("not on this processor")
    ctypes.set_errno(0)
    return _checked(getattr(libc, function)(*map(_passed, arguments)))


def syscall(name: str, *arguments: object) -> int:
    """A system call by its number."""
    ctypes.set_errno(0)
    return _checked(libc.syscall(ctypes.c_long(SYSCALLS[name][_COLUMN]), *map(_passed, arguments)))


def _passed(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def written(path: str, data: bytes) -> None:
    """Write to a file that exists: open, write and close, as the shell's ``>`` does, but without making one."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def secret_marks(facts: Mapping[str, Any]) -> list[bytes]:
    """The marks to look for. They come reversed: else they would be found in this very playbook."""
    return [mark[::-1].encode() for mark in facts["reversed_marks"]]


def run(program: Callable[[Mapping[str, Any]], None], facts: Mapping[str, Any]) -> None:
    """Run a program, and hold what it took for the judge to see, where one wants to look while it lives."""
    program(facts)
    tell(finished=True)
    time.sleep(facts.get("hold_s", 0))
    os._exit(0)  # children that still hold something end with the container
