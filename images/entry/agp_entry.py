"""The waiting half of the entry (runner contract 1), inside an interpreter that is already started.

`agp-entry` starts a plain `python3 FILE` or `ansible-playbook FILE…` at once, just as it would after the release, and
hands its control channel over on three further descriptors. `agp_entry.pth` finds them while Python starts, before it
opens FILE, and calls `wait`: it returns at the release, with the descriptors closed and this module forgotten, and
Python's own start goes on as if nothing had been there. Nothing of how Python runs FILE is imitated.
"""

import os
import sys

_FROM_AGENT = 7
_TO_AGENT = 8
_MARK = 9  # open on agp-entry itself: how a start of Python knows that it is the one that waits

_EVENTS = "AGP_EVENTS"  # set where the command goes on speaking to the agent after its release, on _TO_AGENT

_SECRETS = "/run/secrets"
_NAME = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_HEX = frozenset(b"0123456789abcdef")
_BAD_NONCE = "the nonce of the release is not 32 lower-case hex digits"
_NOTHING_RAN = 125
_INTERRUPTED = 130


def wait() -> None:
    """Warm up, take secrets, and return at the release; otherwise the process ends here and has run nothing."""
    try:
        still_right = _warm_up()
        os.close(_MARK)  # for whoever watches: all is loaded
        nonce = _released()
        os.write(_TO_AGENT, b"agp1 started " + nonce + b"\n")
        os.close(_FROM_AGENT)
        if _EVENTS not in os.environ:
            os.close(_TO_AGENT)
        if not still_right():
            os.execv(sys.orig_argv[0], sys.orig_argv)  # noqa: S606 -- the same command once more, cold
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    except BaseException:  # noqa: BLE001 -- out of here, whatever it is, means to go on and run what is not released
        os._exit(_NOTHING_RAN)
    del sys.modules[__name__]


def _warm_up():  # noqa: ANN202 -- types would cost an import here
    """Load what the command will load anyway; returns what says, after the release, whether that is still right."""
    if os.path.basename(sys.argv[0]) != "ansible-playbook":
        return lambda: True
    import agp_ansible  # noqa: PLC0415 -- of the Ansible image

    try:
        return agp_ansible.warm_up(_is_awaited)
    except OSError:  # a kernel or a runtime that lacks what it takes
        return lambda: False


def _is_awaited() -> bool:
    """Whether the agent has begun to speak, or is gone."""
    import select  # noqa: PLC0415 -- Ansible imports it anyway

    return bool(select.select([_FROM_AGENT], [], [], 0)[0])


def _released() -> bytes:
    """Read lines until the release; its nonce."""
    rest = b""
    while True:
        line, rest = _line(rest)
        if line.startswith(b"agp1 release ") and line != b"agp1 release ":
            return _nonce(line.removeprefix(b"agp1 release "))
        name, _, value = line.removeprefix(b"agp1 secret ").partition(b" ")
        if not line.startswith(b"agp1 secret ") or line.find(b" ", len(b"agp1 secret ") + 1) < 0:
            _refuse("expected the line: agp1 release <nonce>")
        _keep_secret(name, value)


def _line(begun: bytes) -> tuple[bytes, bytes]:
    """The next whole line, and what came after it. The end of stdin is the end of the agent, half a line or not."""
    while b"\n" not in begun:
        chunk = os.read(_FROM_AGENT, 65536)
        if not chunk:
            os._exit(_NOTHING_RAN)
        begun += chunk
    line, _, rest = begun.partition(b"\n")
    return line, rest


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) != 32 or not _HEX.issuperset(nonce):  # noqa: PLR2004
        _refuse(_BAD_NONCE)
    return nonce


def _keep_secret(name: bytes, value: bytes) -> None:
    """Write one secret, mode 0400. Nothing of the value is ever repeated."""
    if not name or name.startswith(b".") or not _NAME.issuperset(name):
        _refuse("a secret came with a name that is none")
    secret = name.decode()
    if not _BASE64.issuperset(value):
        _refuse(f"the secret {secret} is not base64")
    if not (os.path.isdir(_SECRETS) and os.access(_SECRETS, os.W_OK)):
        _refuse(f"the secret {secret} came, and there is no writable {_SECRETS} for it")
    try:
        _write(f"{_SECRETS}/{secret}", _decoded(value))
    except (OSError, ValueError):
        _refuse(f"the secret {secret} could not be written")


def _decoded(value: bytes) -> bytes:
    known = "binascii" in sys.modules
    import binascii  # noqa: PLC0415 -- only runners with secrets need it

    if not known:
        del sys.modules["binascii"]  # the playbook finds the modules that it would find without us
    return binascii.a2b_base64(value, strict_mode=True)


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def _refuse(why: str) -> None:
    """End with the reason. The line that was read is never echoed: it may hold a secret."""
    os.write(_TO_AGENT, f"agp1 error {why}\n".encode())
    os._exit(_NOTHING_RAN)
