"""Where the engine listens."""

from pathlib import Path

import pytest

from agp_agent.docker_engine import Endpoint
from agp_agent.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "url"),
    [
        (None, "http+unix:///var/run/docker.sock"),
        ("unix:///run/user/1000/docker.sock", "http+unix:///run/user/1000/docker.sock"),
        ("tcp://dind:2375", "http://dind:2375"),
        ("http://127.0.0.1:2375", "http://127.0.0.1:2375"),
    ],
)
def test_addresses_are_read_as_docker_reads_them(written: str | None, url: str) -> None:
    """The local socket is the default."""
    assert Endpoint.parse(written).url == url


@pytest.mark.parametrize("written", ["ssh://user@host", "npipe:////./pipe/docker_engine", "ftp://x", "tcp://x"])
def test_addresses_that_cannot_be_used_are_named(written: str) -> None:
    """The error tells the key, the value and what was expected."""
    with pytest.raises(ConfigurationError, match=r"DOCKER_HOST is .*, expected unix://") as caught:
        Endpoint.parse(written)
    assert written in str(caught.value)


def test_an_empty_environment_means_the_local_socket() -> None:
    """Also when the agent's own environment says something else."""
    assert Endpoint.from_environment({}) == Endpoint("http+unix:///var/run/docker.sock")


def test_the_environment_names_host_and_certificates(tmp_path: Path) -> None:
    """With DOCKER_TLS_VERIFY an address becomes https, with the folder's certificates."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    environ = {"DOCKER_HOST": "tcp://dind:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    endpoint = Endpoint.from_environment(environ)
    assert endpoint.url == "https://dind:2376"
    assert endpoint.tls is not None
    assert endpoint.tls.cert == (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    """The error tells the folder and what should be in it."""
    environ = {"DOCKER_HOST": "tcp://dind:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(ConfigurationError, match=r"DOCKER_CERT_PATH .*ca\.pem"):
        Endpoint.from_environment(environ)


def test_it_is_shown_as_it_is_written() -> None:
    """Messages name the socket as operators know it."""
    assert str(Endpoint.parse("unix:///run/x.sock")) == "unix:///run/x.sock"
