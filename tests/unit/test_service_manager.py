"""What systemd hears, on a socket as it has one."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agp_agent.service_manager import ServiceManager


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that ``NOTIFY_SOCKET`` names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(5)
        yield heard


def test_each_state_is_told_in_systemds_words(notified: socket.socket) -> None:
    """One datagram each."""
    manager = ServiceManager({"NOTIFY_SOCKET": notified.getsockname()})
    manager.ready("up")
    manager.status("busy")
    manager.stopping("draining")
    assert [notified.recv(200) for _ in range(3)] == [
        b"READY=1\nSTATUS=up",
        b"STATUS=busy",
        b"STOPPING=1\nSTATUS=draining",
    ]


def test_an_abstract_socket_is_one_too() -> None:
    """Systemd's own has been one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(b"\0agp-test-%d" % os.getpid())
        heard.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": f"@agp-test-{os.getpid()}"}).ready("up")
        assert heard.recv(200).startswith(b"READY=1")


async def test_the_watchdog_hears_of_it_three_times_a_period(notified: socket.socket) -> None:
    """While the event loop turns, and only if this process is the one that is watched."""
    watched = ServiceManager({"NOTIFY_SOCKET": notified.getsockname(), "WATCHDOG_USEC": "30000"})
    task = asyncio.create_task(watched.run())
    told = [await asyncio.to_thread(notified.recv, 200) for _ in range(3)]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert told == [b"WATCHDOG=1"] * 3
    another = ServiceManager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"})
    await another.run()  # returns at once
    assert (watched.watchdog_s, another.watchdog_s) == (0.03, 0.0)


def test_without_a_manager_nothing_is_told() -> None:
    """Nor does one that is gone hold anything up."""
    ServiceManager({}).ready("up")
    ServiceManager({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready("up")
