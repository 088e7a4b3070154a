"""Commands that execute another one on less of a kernel: it, and all that it starts, hear that something is missing.

As a program this is such a command itself: it executes its arguments where the kernel says that it has no seccomp.
"""

import ctypes
import errno
import os
import struct
import sys
from typing import Final

OLD_KERNEL: Final = ("env", "DOCKER_NOWARN_KERNEL_VERSION=1", "setarch", "--uname-2.6")
"""uname(2) tells a version from the time before containers; dockerd is told not to mind."""
NO_SECCOMP: Final = (sys.executable, __file__)
"""prctl(2) knows nothing of seccomp, as in a kernel that was built without it."""

_PR_SET_SECCOMP: Final = 22
_PR_GET_SECCOMP: Final = 21
_MODE_FILTER: Final = 2
_PRCTL: Final = {"x86_64": 157, "aarch64": 167}
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_NUMBER_AT: Final = 0
_FIRST_ARGUMENT_AT: Final = 16


def _filter() -> bytes:
    """In BPF: whoever asks prctl whether there is seccomp gets EINVAL; all else is allowed."""
    steps = (
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_EQUAL, 0, 3, _PRCTL[os.uname().machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_IF_EQUAL, 0, 1, _PR_GET_SECCOMP),
        (_RETURN, 0, 0, _ERRNO | errno.EINVAL),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _forget_seccomp() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    steps = ctypes.create_string_buffer(program := _filter(), len(program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(steps)))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, described, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


if __name__ == "__main__":
    _forget_seccomp()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
