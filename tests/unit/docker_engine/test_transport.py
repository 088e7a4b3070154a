"""The SDK's client on connections that behave."""

from requests.adapters import HTTPAdapter

from agp_agent.docker_engine.transport import Client


def test_all_paths_of_a_socket_share_one_pool_of_connections() -> None:
    """With one for each path every call would leave a connection open, to an engine that may be gone."""
    client = Client(base_url="unix:///run/nobody.sock", version="1.41")
    adapter = client.get_adapter("http+docker://localhost/v1.41/info")
    assert isinstance(adapter, HTTPAdapter)
    pools = {id(adapter.get_connection(f"http+docker://localhost/v1.41/{path}")) for path in ("info", "events", "info")}
    client.close()
    assert len(pools) == 1
