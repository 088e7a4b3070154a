"""The HTTP server: what arrives too slowly, and files for TLS that cannot be used."""

import asyncio
from pathlib import Path

import pytest

from agp_agent.api.server import check_tls
from agp_agent.errors import ConfigurationError
from support.api_server import api_server
from support.async_waiting import PATIENCE_S


async def answer(port: int, sent: bytes) -> bytes:
    """Send these bytes, wait until the server closes the connection, and return all that it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST /tasks HT", b"POST /tasks HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_request_whose_head_does_not_arrive_is_408(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Also where nothing comes at all; the connection is closed."""
    monkeypatch.setattr("agp_agent.api.connection.HEADERS_DEADLINE_S", 0.05)
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        said = await answer(port, sent)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head
    assert body == b'{"detail": "The request did not arrive in time."}'


async def test_a_body_that_nobody_reads_does_not_hold_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong token is answered at once, and its endless body is cut off."""
    monkeypatch.setattr("agp_agent.api.connection.BODY_DEADLINE_S", 0.025)
    head = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        said = await answer(port, head)
    assert said.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        b"X: " + b"x" * 300_000,
        b"".join(b"X-%d: x\r\n" % number for number in range(10_000)) + b"\r\n",
    ],
    ids=["one header", "without end", "many"],
)
async def test_a_head_that_is_too_large_is_431(tmp_path: Path, head: bytes) -> None:
    """It is not kept in memory until it is complete; the connection is closed."""
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        said = await answer(port, b"GET /healthz HTTP/1.1\r\n" + head)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b'"Request line and headers are larger than 65536 bytes."' in said


@pytest.mark.parametrize("later", [b"", b"\r\n\r\n", b"0123456789"], ids=["nothing", "blank lines", "the body"])
async def test_a_connection_that_is_not_used_again_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bytes
) -> None:
    """Also where bytes come that begin no request, or a body whose answer was given before it."""
    monkeypatch.setattr("agp_agent.api.connection.KEEP_ALIVE_S", 0.2)
    first = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: " + (b"10" if later.isalnum() else b"0") + b"\r\n\r\n"
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        writer.write(later)
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.read()).endswith(b'"}')
        writer.close()


async def test_a_client_that_does_not_read_its_answers_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it could fill the agent's memory, and keep its connection for ever."""
    monkeypatch.setattr("agp_agent.api.connection.ANSWER_DEADLINE_S", 0.1)
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)

        async def ask_on() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                    await writer.drain()

        with pytest.raises(ConnectionError):
            await ask_on()
        del reader
        writer.close()


def test_without_files_there_is_no_tls() -> None:
    """Nothing is looked at."""
    check_tls(None, None)


def test_files_that_are_not_there_are_one_sentence() -> None:
    """With both names and the reason."""
    with pytest.raises(ConfigurationError, match=r"^AGP_TLS_CERT_FILE, AGP_TLS_KEY_FILE: .*No such file"):
        check_tls(Path("/nowhere/cert"), Path("/nowhere/key"))


def test_files_that_are_no_pem_are_one_sentence(tmp_path: Path) -> None:
    """With what was expected."""
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no PEM")
    with pytest.raises(ConfigurationError, match="expected a certificate chain and its private key, both PEM"):
        check_tls(tmp_path / "cert", tmp_path / "key")
