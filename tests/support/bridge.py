"""The engine's own bridge, by which containers reach this machine."""

import fcntl
import socket
import struct
from typing import Final

from support.engine_side import EngineSide

_SIOCGIFADDR: Final = 0x8915


def address_on_bridge(engine: EngineSide) -> str:
    """The address that this machine has on it."""
    interface = engine.client.networks.get("bridge").attrs["Options"]["com.docker.network.bridge.name"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", interface.encode()))
    return socket.inet_ntoa(answer[20:24])
