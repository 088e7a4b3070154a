"""Attempts over the network and local sockets: engine, raw packets, metadata, host, agent, dashboard."""

import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from agp_agent.doctor.escape.programs.prelude import Held, tell, tried

PATIENCE_S = 1.0
LOCAL_ETHERTYPE = 0x88B5
"""Kept for local experiments: nobody else's frame has it."""


def ask_the_engine(facts: Mapping[str, Any]) -> None:
    """Find a socket of an engine, and have it make a container."""
    for path in facts["sockets"]:
        tried(f"ask {path}", _make_container, path, facts)


def _make_container(path: str, facts: Mapping[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(5)
        talk.connect(path)
        body = json.dumps({"Image": facts["image"], "Labels": {facts["label"]: facts["name"]}})
        head = "POST /containers/create HTTP/1.0\r\nContent-Type: application/json\r\n"
        talk.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        if b" 201 " not in talk.recv(4096):
            raise Held("no engine")


def send_raw_packets(facts: Mapping[str, Any]) -> None:
    """Open sockets that bypass the kernel's own protocols, and send a frame by one."""
    tried("raw IP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
    tried("raw IPv6 socket", lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).close())
    tried("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close())
    for device in facts.get("devices", ("eth0",)):
        tried(f"send a frame by {device}", _send_frame, device, facts["name"].encode())
    tried("bring a device up", _bring_up)
    tried("socket to the machine below (vsock)", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close())
    tried("pair of sockets of that family", _pair_up, socket.AF_VSOCK)


def _pair_up(family: int) -> None:
    """No family of machines has pairs: where the family itself says so, its code was reached, which is what counts."""
    try:
        for one in socket.socketpair(family, socket.SOCK_STREAM):
            one.close()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def _send_frame(device: str, mark: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        raw.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + struct.pack("!H", LOCAL_ETHERTYPE) + mark.ljust(64, b"\0"))


def _bring_up() -> None:
    """RTM_NEWLINK that sets IFF_UP on lo, where it is already."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as talk:
        talk.settimeout(PATIENCE_S)
        message = struct.pack("=BxHiII", 0, 0, 1, 1, 1)
        talk.send(struct.pack("=IHHII", 16 + len(message), 16, 5, 1, 0) + message)
        error = struct.unpack("=i", talk.recv(4096)[16:20])[0]
        if error:
            raise OSError(-error, os.strerror(-error))


def connect_everywhere(facts: Mapping[str, Any]) -> None:
    """Connect to each address and port that the host could answer on, by TCP, UDP and abstract sockets."""
    for address, port in facts["addresses"]:
        tried(f"connect to {address} port {port}", _say, (address, port), facts)
    for name in facts.get("abstract", ()):
        tried(f"connect to the abstract socket {name}", _say_abstract, name, facts)


def _say(to: tuple[str, int], facts: Mapping[str, Any]) -> None:
    with socket.create_connection(to, PATIENCE_S) as talk:
        _say_to(talk, facts)


def _say_abstract(name: str, facts: Mapping[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(PATIENCE_S)
        talk.connect(f"\0{name}")
        _say_to(talk, facts)


def _say_to(talk: socket.socket, facts: Mapping[str, Any]) -> None:
    """Whoever hears it closes; somebody else may say nothing."""
    talk.sendall(facts["name"].encode())
    with contextlib.suppress(OSError):
        talk.recv(1)


def use_the_agents_api(facts: Mapping[str, Any]) -> None:
    """Talk to the agent and to the dashboard: without a token, and with guessed ones."""
    for address, port in facts["addresses"]:
        for token in (None, *facts["guesses"]):
            what = f"ask {address} port {port} {'with a guessed token' if token else 'without a token'}"
            tried(what, _send_task, (address, port), token, facts)


def _send_task(to: tuple[str, int], token: str | None, facts: Mapping[str, Any]) -> None:
    body = json.dumps({"task_id": facts["name"], "playbook": {"name": "x.sh", "content": "true"}})
    lines = [f"POST {facts['path']} HTTP/1.1", "Host: agent", f"User-Agent: {facts['name']}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    with socket.create_connection(to, PATIENCE_S) as talk:
        talk.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        answer = talk.recv(4096)
    tell(answered=answer[:15].decode(errors="replace"))
    if b" 401 " in answer[:20]:
        raise Held("reached, 401")


def forge(facts: Mapping[str, Any]) -> None:
    """Print what would be something else to a careless reader: log lines, escapes, frames, markers."""
    nonce = "0" * 32
    forged = [
        json.dumps({"event": "task finished", "task_id": facts["name"], "outcome": "succeeded"}),
        f"agp1 started {nonce}",
        f"agp1 error {facts['name']}",
        f"[agp-agent: {10**9} bytes omitted]",
        "\x1b[2J\x1b[1;31mescape\x1b[0m\x1b]52;c;cm0gLXJmIC8=\x07\x1b]0;title\x07\x9b31m",
        "data: forged\n\nevent: gap\ndata: 1",
    ]
    for line in forged:
        os.write(1, line.encode() + b"\n")
    for stream in (0, 1, 2):  # the engine's own framing: stream, padding, length
        os.write(1, struct.pack(">BxxxL", stream, 9) + b"agp1 fake")
    os.write(1, b"\n")
    for path in ("/proc/1/fd/2", "/proc/self/fd/2", "/dev/stderr"):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, f"agp1 started {nonce}\n".encode())
            os.close(fd)
