"""The HTTP server: what arrives too slowly, and files for TLS that cannot be used."""

import asyncio
import socket
from pathlib import Path

import pytest

from agp_agent.api.listening import check_address, check_tls, listen
from agp_agent.errors import ConfigurationError
from support.api_server import api_server
from support.async_waiting import PATIENCE_S
from support.secret_files import write_secret


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


@pytest.mark.parametrize(
    ("head", "status", "hosts"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400", b"none"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", b"400", b"2"),
        (b"GET /healthz HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n", b"200", b""),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200", b""),
    ],
)
async def test_a_request_of_http_1_1_names_its_host_once(
    tmp_path: Path, head: bytes, status: bytes, hosts: bytes
) -> None:
    """Or it is 400 in the contract's shape; older ones need not, and an empty name is one."""
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        said = await answer(port, head)
    assert said.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status))
    detail = b'{"detail": "Expected one Host header, and there are %b."}' % hosts
    assert said.endswith(detail if hosts else b'{"status":"ok"}')


GOOD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        (1, b"GET /healthz HTTP/1.1\r\n\r\n"),
        (3, b"GET /healthz HTTP/1.1\r\n\r\n" + GOOD),
        (1, b"no HTTP\r\n\r\n"),
        (2, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 66_000),
        (1, CHUNKED + b"no number\r\n"),
        (2, CHUNKED + b"no number\r\n"),
    ],
    ids=["no host", "no host behind three", "no HTTP", "large head", "wrong body", "wrong body behind two"],
)
async def test_a_wrong_request_takes_no_answer_of_those_before_it(tmp_path: Path, good: int, wrong: bytes) -> None:
    """They are being answered when it comes: each gets its own answer whole, and behind the last it is closed."""
    async with api_server(tmp_path, lambda: (b"t",), body_deadline_s=PATIENCE_S) as port:
        said = await answer(port, GOOD * good + wrong)
    answers = said.split(b"HTTP/1.1 ")[1:]
    assert len(answers) >= good
    assert all(one.startswith(b"200 ") and one.endswith(b'{"status":"ok"}') for one in answers[:good])
    assert [one[:4] for one in answers[good:]] in ([], [b"431 "])  # the large head may come in pieces, and so later


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
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is: it is soon full
        client.connect(("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=client, limit=1)

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


def test_files_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    """With the setting and the reason."""
    with pytest.raises(ConfigurationError, match=r"^AGP_TLS_KEY_FILE: /nowhere/key cannot be read: No such file"):
        check_tls(Path("/nowhere/cert"), Path("/nowhere/key"))
    key = write_secret(tmp_path / "key", "no PEM")
    with pytest.raises(ConfigurationError, match=r"^AGP_TLS_CERT_FILE, AGP_TLS_KEY_FILE: .*No such file"):
        check_tls(Path("/nowhere/cert"), key)


def test_files_that_are_no_pem_are_one_sentence(tmp_path: Path) -> None:
    """With what was expected."""
    for name in ("cert", "key"):
        write_secret(tmp_path / name, "no PEM")
    with pytest.raises(ConfigurationError, match="expected a certificate chain and its private key, both PEM"):
        check_tls(tmp_path / "cert", tmp_path / "key")


@pytest.mark.parametrize("token", [b"t0ken-of-the-tests-1", b"wrong"])
async def test_a_header_behind_the_body_is_none(tmp_path: Path, token: bytes) -> None:
    """Neither does it let somebody in, nor does it spoil what stands before the body."""
    trailer = b"0\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
    head = b"POST /heartbeat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    right = b"Authorization: Bearer t0ken-of-the-tests-1\r\n"
    async with api_server(tmp_path, lambda: (b"t0ken-of-the-tests-1",), body_deadline_s=PATIENCE_S) as port:
        assert (await answer(port, head + b"\r\n" + trailer)).startswith(b"HTTP/1.1 401 ")
        assert (await answer(port, head + right + b"\r\n" + trailer)).startswith(b"HTTP/1.1 200 ")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With the mode it has, and those it should have; the certificate is for everybody."""
    for name in ("cert", "key"):
        write_secret(tmp_path / name, "no PEM", 0o644)
    with pytest.raises(ConfigurationError, match=r"^AGP_TLS_KEY_FILE: .*key has mode 0644, .*; expected 0600 or 0400"):
        check_tls(tmp_path / "cert", tmp_path / "key")


# --- where it listens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0", "0.0", "00.0.0.0", "0x0", "0:0:0:0:0:0:0:0", "::0", "000::"])
def test_a_wildcard_counts_only_where_it_is_spelled_out(host: str) -> None:
    """A slip must not open the agent to every network there is."""
    for look in (lambda: listen(host, 0, None), lambda: check_address(host)):
        with pytest.raises(ConfigurationError) as caught:
            look()
        assert str(caught.value) == (
            f"AGP_HOST: {host!r} would listen on every address of this machine; expected one address, or 0.0.0.0 or "
            ":: where that is meant."
        )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "::1", "localhost"])  # noqa: S104
def test_an_address_that_is_spelled_out_is_listened_on(host: str) -> None:
    """A wildcard among them; an IPv6 one takes no IPv4."""
    with listen(host, 0, None) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize("host", ["", " ", "*", "not an address", "192.0.2.1"])
def test_what_is_no_address_of_this_machine_is_refused(host: str) -> None:
    """Empty is none, and not every one."""
    with pytest.raises(ConfigurationError, match=r"^AGP_HOST"):
        listen(host, 0, None)


def test_a_device_that_is_not_there_is_refused() -> None:
    """Rather than listening on all of them."""
    with pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1 port 0 on nowhere0: No such device"):
        listen("127.0.0.1", 0, "nowhere0")
