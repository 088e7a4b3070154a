"""The SDK's client on connections that behave."""

from pathlib import Path

import pytest
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


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"a.test": {"auth": "?"}}}', '{"proxies": 1}', '{"auths": 1}'])
def test_no_configuration_file_of_docker_keeps_the_agent_from_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It matters to pulls alone: a mistyped password in it may not stop everything."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(text)
    client = Client(base_url="unix:///run/nobody.sock", version="1.41")
    assert isinstance(client.get_adapter("http+docker://localhost/v1.41/info"), HTTPAdapter)
    client.close()
