"""The SDK's client on connections that behave: closed when they fail, and aware of a remote machine that is gone."""

import socket
from typing import Any

from docker import APIClient
from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool
from requests.adapters import BaseAdapter, HTTPAdapter

KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""Streams have no read timeout, so the kernel must notice that a remote engine's machine is gone."""


class Client(APIClient):
    """Puts our adapters in the place of the SDK's, wherever it mounts one, and asks only Docker's own variables.

    requests would let REQUESTS_CA_BUNDLE win over the certificates that DOCKER_CERT_PATH names, and send the agent's
    calls through HTTP_PROXY. The SDK would read Docker's configuration file here, once, and fail where a password in it
    is mistyped; ``credentials`` reads it for every pull.
    """

    @property
    def trust_env(self) -> bool:
        """Never; requests' constructor cannot change it."""
        return False

    @trust_env.setter
    def trust_env(self, _: bool) -> None:
        pass

    @property
    def _general_configs(self) -> dict[str, dict[str, str]]:
        """A file in which nothing stands; an empty one the SDK would take for one that is still to be read."""
        return {"auths": {}}

    @_general_configs.setter
    def _general_configs(self, _: object) -> None:
        pass

    def mount(self, prefix: str | bytes, adapter: BaseAdapter) -> None:
        """Mount the adapter that behaves."""
        if isinstance(adapter, UnixHTTPAdapter):
            adapter = _UnixAdapter(adapter.socket_path, adapter.timeout, max_pool_size=adapter.max_pool_size)
        elif isinstance(adapter, HTTPAdapter):
            adapter = _KeepAliveAdapter()
        super().mount(prefix, adapter)


class _KeepAliveAdapter(HTTPAdapter):
    """TCP connections that notice within a minute that the other side is gone."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Give every connection of the pool the keep-alive options."""
        super().init_poolmanager(*args, **kwargs, socket_options=list(KEEP_ALIVE))


class _UnixConnection(UnixHTTPConnection):
    def connect(self) -> None:
        """Connect; the SDK's own leaves its socket open where that fails, once for every attempt."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self.timeout)
            connected.connect(self.unix_socket)
        except BaseException:
            connected.close()
            raise
        self.sock = connected


class _UnixPool(UnixHTTPConnectionPool):
    timeout: Any  # the SDK keeps a number where urllib3 has its own type

    def _new_conn(self) -> Any:
        return _UnixConnection(self.base_url, self.socket_path, self.timeout)


class _UnixAdapter(UnixHTTPAdapter):
    def get_connection(self, url: Any, proxies: object = None) -> _UnixPool:
        """One pool for the socket. The SDK's own has one for every path, and each keeps its connections open."""
        del proxies
        with self.pools.lock:
            pool: _UnixPool | None = self.pools.get(self.socket_path)
            if pool is None:
                pool = _UnixPool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[self.socket_path] = pool
            return pool
