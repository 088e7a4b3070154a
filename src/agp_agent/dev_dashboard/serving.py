"""The dashboard as a process: socket, signals, server, and the order in which they start and stop."""

import secrets
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from agp_agent.dev_dashboard.server import create_app
from agp_agent.dev_dashboard.store import ResultStore
from agp_agent.dev_dashboard.terminal import Terminal
from agp_agent.errors import ConfigurationError

_GRACE_S: Final = 3
_PORT_MAX: Final = 65535
_IPV4: Final = 4
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_dashboard(host: str, port: int, token: str, db_path: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then return normally. Call it from the main thread.

    Args:
        host: address to listen on; the caller's default should be loopback.
        port: 0 takes a free one; the printed link names it.
        token: what agents (``AGP_DASHBOARD_TOKEN``) and scripts must bear; must not be empty.
        db_path: SQLite file that outlives the dashboard; None keeps results in memory.

    Raises:
        ConfigurationError: address or file cannot be used.
    """
    page_key = secrets.token_urlsafe(32)
    terminal = Terminal()
    with ExitStack() as stack:
        store = stack.enter_context(ResultStore(db_path))
        listener = stack.enter_context(listen(host, port))
        # One thread prints, in order: a terminal that is paused holds up neither the server nor an acknowledgement.
        printer = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="dashboard-terminal"))
        url = _base_url(listener)
        app = create_app(
            store,
            token,
            page_key,
            lambda received: printer.submit(terminal.received, received),
            lambda key: printer.submit(terminal.link_used, url, key),
        )
        server = uvicorn.Server(server_config(app))
        stack.enter_context(_stopping(server))
        terminal.started(url, page_key, str(db_path or "memory, until it stops"))
        server.run(sockets=[listener])


def server_config(app: FastAPI) -> uvicorn.Config:
    """How its server runs."""
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Raises ``ConfigurationError``."""
    if port > _PORT_MAX:  # getaddrinfo would take its last 16 bits
        raise ConfigurationError(f"The dashboard cannot listen on port {port}: a port is at most {_PORT_MAX}.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"The dashboard cannot listen on {host} port {port}: {error}; give another address or port."
        ) from error


def _base_url(listener: socket.socket) -> str:
    """Where this machine reaches the listener: a wildcard address is named as loopback."""
    host, port = listener.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        address = IPv4Address("127.0.0.1") if address.version == _IPV4 else IPv6Address("::1")
    return f"http://{address}:{port}" if address.version == _IPV4 else f"http://[{address}]:{port}"


@contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """Make a stop signal end the process with exit code 0.

    uvicorn puts its own handlers over these while it serves, and raises the signal again for these afterwards: with
    the defaults underneath the process would die of it. A signal that comes before uvicorn's are in place counts too.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    earlier = {number: signal.signal(number, stop) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
