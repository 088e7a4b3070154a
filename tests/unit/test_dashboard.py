"""What the dashboard's answers mean, and how the real client behaves on the wire."""

import asyncio
import contextlib
import email.utils
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agp_agent.dashboard import Answer, Headers, HttpDashboard, Meaning, interpret
from agp_agent.errors import ConfigurationError
from agp_agent.models import TaskResult, TaskStatus
from agp_agent.tokens import TokenSource
from support.certificates import certify
from support.dashboard_stub import DashboardStub, Reply
from support.secret_files import write_secret

RECEIVED = b'{"message":"Result received"}'
RESULT = TaskResult(task_id="té st", status=TaskStatus.FAILED, output="a\x00\u2028🚀\n", error="exit code 2")
TOKEN = "t0ken-of-the-tests-1"
PATIENCE_S = 20.0

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


# --- interpret ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, Meaning.HOLD) for status in (401, 403)),
        *((status, Meaning.RETRY) for status in (404, 405, 408, 409, 425, 429)),
        *((status, Meaning.RETRY) for status in (500, 501, 502, 503, 504, 507, 520, 599)),
        *((status, Meaning.RETRY) for status in (201, 202, 204, 206, 299)),
        *((status, Meaning.RETRY) for status in (300, 301, 302, 303, 304, 307, 308, 399)),
        (413, Meaning.TOO_LARGE),
        *((status, Meaning.REFUSED) for status in (400, 402, 406, 410, 411, 414, 415, 418, 422, 431, 451)),
    ],
)
def test_the_status_decides_what_becomes_of_the_result(status: int, meaning: Meaning) -> None:
    """Whatever the body says; the reason names the number."""
    answer = interpret(status, RECEIVED, None)
    assert answer.meaning is meaning
    assert f"answered {status}" in answer.why


@pytest.mark.parametrize(
    ("status", "retry_after", "away"),
    [
        *((status, None, True) for status in (401, 403, 429, 502, 503, 504)),
        *((status, None, False) for status in (200, 204, 302, 400, 404, 409, 413, 422, 500, 501)),
        (404, "5", True),
        (500, "5", True),
        (400, "5", False),
    ],
)
def test_some_answers_are_about_the_dashboard_and_not_about_the_result(
    status: int, retry_after: str | None, *, away: bool
) -> None:
    """Then no other result would be taken now either."""
    assert interpret(status, RECEIVED, retry_after).away is away


@given(st.integers(100, 599), st.binary(max_size=100), st.none() | st.text(max_size=20))
def test_every_answer_has_a_meaning(status: int, body: bytes, retry_after: str | None) -> None:
    """Nothing is an acknowledgement but a 200, and nothing raises."""
    answer = interpret(status, body, retry_after)
    assert (answer.meaning is Meaning.ACKNOWLEDGED) == (answer.why == "")
    assert answer.meaning is not Meaning.ACKNOWLEDGED or status == 200
    assert answer.retry_after_s is None or 0 <= answer.retry_after_s <= 3600


@pytest.mark.parametrize("body", [RECEIVED, b'{"message":""}', b' {"message": "ok", "more": [1]} '])
def test_an_object_with_a_message_acknowledges(body: bytes) -> None:
    """Further keys do no harm."""
    assert interpret(200, body, None) == Answer(Meaning.ACKNOWLEDGED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"<html>login</html>",
        b"{}",
        b"[]",
        b"null",
        b'"message"',
        b'{"message":null}',
        b'{"message":1}',
        b'{"message":["x"]}',
        b'{"Message":"x"}',
        b'{"message":"x"',
        b"[" * 100_000,
        b'{"message":"' + b"x" * 100_000 + b'"}',
        b"\xff\xfe",
    ],
)
def test_a_200_without_a_message_is_no_acknowledgement(body: bytes) -> None:
    """A captive portal answers 200 too: the result is kept and tried again."""
    answer = interpret(200, body, None)
    assert answer.meaning is Meaning.RETRY
    assert "not an acknowledgement" in answer.why


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        (" 7 ", 7.0),
        ("-5", 0.0),
        ("3600", 3600.0),
        ("1e9", 3600.0),
        ("inf", 3600.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2195 07:28:00 GMT", 3600.0),
        ("Wed, 99 Foo 2015", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms_and_capped(retry_after: str | None, seconds: float | None) -> None:
    """Numbers and dates; nonsense is as if it were not there."""
    assert interpret(503, b"", retry_after).retry_after_s == seconds
    assert interpret(429, b"", retry_after).retry_after_s == seconds


def test_a_date_in_retry_after_is_held_against_the_clock() -> None:
    """Ten minutes from now are ten minutes, give or take the second that dates are cut to."""
    then = datetime.now(UTC) + timedelta(minutes=10)
    seconds = interpret(503, b"", email.utils.format_datetime(then, usegmt=True)).retry_after_s
    assert seconds is not None
    assert 590 < seconds <= 600


# --- over real HTTP ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def client(
    url: str, token: TokenSource | None = None, **options: Path | str | None
) -> AsyncIterator[HttpDashboard]:
    """Make the real client."""
    source = token or TokenSource("AGP_DASHBOARD_TOKEN", SecretStr(TOKEN), None)
    dashboard = HttpDashboard(url, source, **options)  # type: ignore[arg-type]
    try:
        yield dashboard
    finally:
        await dashboard.aclose()
        await dashboard.aclose()


async def report(dashboard: HttpDashboard) -> Answer:
    """Deliver the result of these tests."""
    return await asyncio.wait_for(dashboard.report(RESULT, Headers("agent/t%C3%A9/1/abc", "3:ff")), PATIENCE_S)


@pytest.fixture
def stub() -> Iterator[DashboardStub]:
    """A real dashboard on loopback that takes the token of these tests."""
    with DashboardStub() as dashboard:
        dashboard.token = TOKEN
        yield dashboard


@contextmanager
def raw_server(answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve one connection with whatever bytes the test wants, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with (
                contextlib.suppress(OSError),  # the client hung up, as it may
                accepted,
                tls.wrap_socket(accepted, server_side=True) if tls else accepted as connection,
            ):
                received = b""
                while b'"exit code 2"}' not in received and (more := connection.recv(65536)):
                    received += more
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


async def test_a_result_goes_out_as_the_contract_says(stub: DashboardStub) -> None:
    """POST on the endpoint, JSON of the four fields, token, key and audit head in headers."""
    async with client(stub.url) as dashboard:
        assert await report(dashboard) == Answer(Meaning.ACKNOWLEDGED)
    (delivery,) = stub.deliveries()
    assert (delivery.method, delivery.path) == ("POST", "/api/v1/agents/report_result")
    assert delivery.headers["authorization"] == f"Bearer {TOKEN}"
    assert delivery.headers["content-type"] == "application/json"
    assert delivery.headers["idempotency-key"] == "agent/t%C3%A9/1/abc"
    assert delivery.headers["agp-audit-head"] == "3:ff"
    assert json.loads(delivery.body) == {
        "task_id": "té st",
        "status": "failed",
        "output": "a\x00\u2028🚀\n",
        "error": "exit code 2",
    }


async def test_a_base_url_with_a_path_keeps_it(stub: DashboardStub) -> None:
    """The endpoint is appended."""
    async with client(f"{stub.url}/base") as dashboard:
        await report(dashboard)
    assert stub.deliveries()[0].path == "/base/api/v1/agents/report_result"


async def test_a_redirect_is_not_followed(stub: DashboardStub) -> None:
    """The token goes to no other place; the result is kept."""
    with DashboardStub() as elsewhere:
        stub.reply = Reply(302, b"", {"Location": f"{elsewhere.url}/api/v1/agents/report_result"})
        async with client(stub.url) as dashboard:
            answer = await report(dashboard)
        assert answer.meaning is Meaning.RETRY
        assert "redirects are not followed" in answer.why
        assert elsewhere.deliveries() == []


async def test_the_wait_that_the_dashboard_asks_for_is_told(stub: DashboardStub) -> None:
    """With the status of a dashboard that is overloaded."""
    stub.reply = Reply(503, b"", {"Retry-After": "17"})
    async with client(stub.url) as dashboard:
        assert await report(dashboard) == Answer(Meaning.RETRY, "the dashboard answered 503", 17.0, away=True)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
async def test_a_proxy_of_the_environment_is_not_used(
    stub: DashboardStub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Only the settings name one."""
    with DashboardStub() as proxy:
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with client(stub.url) as dashboard:
            assert (await report(dashboard)).meaning is Meaning.ACKNOWLEDGED
        assert proxy.deliveries() == []
    assert len(stub.deliveries()) == 1


async def test_a_proxy_of_the_settings_is_used() -> None:
    """A userspace tailnet needs it: the dashboard's name need not even resolve here."""
    with DashboardStub() as proxy:
        proxy.token = TOKEN
        async with client("http://dashboard.invalid", proxy=proxy.url) as dashboard:
            await report(dashboard)
        (delivery,) = proxy.deliveries()
        assert delivery.headers["host"] == "dashboard.invalid"


async def test_a_rotated_token_is_used_at_the_next_attempt(stub: DashboardStub, tmp_path: Path) -> None:
    """The file is read at each delivery: what was held goes out without a restart."""
    file = tmp_path / "token"
    write_secret(file, "an-old-token-of-before\n")
    source = TokenSource("AGP_DASHBOARD_TOKEN", None, file)
    async with client(stub.url, source) as dashboard:
        assert (await report(dashboard)).meaning is Meaning.HOLD
        write_secret(file, f"{TOKEN}\nan-old-token-of-before\n")
        assert (await report(dashboard)).meaning is Meaning.ACKNOWLEDGED


async def test_a_token_file_that_cannot_be_read_holds_the_result(stub: DashboardStub, tmp_path: Path) -> None:
    """Nothing is sent without a token."""
    async with client(stub.url, TokenSource("AGP_DASHBOARD_TOKEN", None, tmp_path / "missing")) as dashboard:
        answer = await report(dashboard)
    assert answer.meaning is Meaning.HOLD
    assert "AGP_DASHBOARD_TOKEN_FILE" in answer.why
    assert stub.deliveries() == []


async def test_a_token_that_is_not_ascii_goes_out_as_its_bytes(stub: DashboardStub) -> None:
    """It is wrong or right; it never breaks the delivery."""
    async with client(stub.url, TokenSource("AGP_DASHBOARD_TOKEN", SecretStr("ü" * 16), None)) as dashboard:
        assert (await report(dashboard)).meaning is Meaning.HOLD
    assert stub.deliveries()[0].headers["authorization"].encode("latin-1") == f"Bearer {'ü' * 16}".encode()


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    """64 KiB are more than any acknowledgement needs."""
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 2**28:
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent += 0x10000

    with raw_server(endless) as url:
        async with client(url) as dashboard:
            answer = await report(dashboard)
    assert answer.meaning is Meaning.RETRY
    assert sent < 2**26


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnogzi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_tried_again(answer: bytes) -> None:
    """Whatever comes back on the wire, nothing is raised."""
    with raw_server(lambda connection: connection.sendall(answer)) as url:
        async with client(url) as dashboard:
            assert (await report(dashboard)).meaning is Meaning.RETRY


async def test_a_dashboard_that_is_not_there_is_tried_again() -> None:
    """The reason says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with client(f"http://127.0.0.1:{port}") as dashboard:
        answer = await report(dashboard)
    assert answer.meaning is Meaning.RETRY
    assert answer.away
    assert answer.why.startswith("the dashboard was not reached: ConnectError")


@pytest.mark.parametrize(
    "error",
    [
        *(httpx.ConnectTimeout("x"), httpx.ReadTimeout("x"), httpx.ReadError("x"), httpx.RemoteProtocolError("x")),
        *(httpx.PoolTimeout("x"), httpx.ProxyError("x"), httpx.UnsupportedProtocol("x"), TimeoutError()),
    ],
)
async def test_every_error_of_the_transport_is_tried_again(error: Exception) -> None:
    """The protocol promises never to raise."""
    with respx.mock:
        respx.post("http://dashboard.test/api/v1/agents/report_result").mock(side_effect=error)
        async with client("http://dashboard.test") as dashboard:
            assert (await report(dashboard)).meaning is Meaning.RETRY


async def test_an_answer_that_drips_is_given_up_after_the_total_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole never does."""
    monkeypatch.setattr("agp_agent.dashboard._DEADLINE_S", 0.3)
    dripped = 0

    def drip(connection: socket.socket) -> None:
        nonlocal dripped
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while dripped < 10_000:
            connection.sendall(b"x")
            dripped += 1
            time.sleep(0.01)

    with raw_server(drip) as url:
        async with client(url) as dashboard:
            answer = await report(dashboard)
    assert answer == Answer(Meaning.RETRY, "the dashboard did not answer within 0.3 s", away=True)
    assert 0 < dripped < 1000


# --- over TLS ----------------------------------------------------------------------------------------------------


@contextmanager
def tls_server(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Serve one acknowledgement over TLS, with a certificate of its own for ``name``; yields URL and certificate."""
    certify(folder, name)
    cert = folder / "cert.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, folder / "key.pem")

    def acknowledge(connection: socket.socket) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"message": "x"}')

    with raw_server(acknowledge, context) as url:
        yield url.replace("http://", "https://"), cert


async def test_a_dashboard_with_a_certificate_of_the_given_authority_is_reported_to(tmp_path: Path) -> None:
    """Control for what follows."""
    with tls_server(tmp_path, "127.0.0.1") as (url, cert):
        async with client(url, ca_file=cert) as dashboard:
            assert await report(dashboard) == Answer(Meaning.ACKNOWLEDGED)


@pytest.mark.parametrize("why", ["authority", "name"])
async def test_a_dashboard_that_cannot_be_verified_gets_nothing(tmp_path: Path, why: str) -> None:
    """Neither the token nor the result: it is of an unknown authority, or its certificate is another's."""
    with tls_server(tmp_path, "127.0.0.1" if why == "authority" else "192.0.2.1") as (url, cert):
        async with client(url, ca_file=None if why == "authority" else cert) as dashboard:
            answer = await report(dashboard)
    assert answer.meaning is Meaning.RETRY
    assert "CERTIFICATE_VERIFY_FAILED" in answer.why


async def test_the_environment_does_not_decide_whom_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do a netrc file's passwords take the token's place."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password of-somebody\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with DashboardStub() as stub:
        stub.token = TOKEN
        async with client(stub.url) as dashboard:
            assert await report(dashboard) == Answer(Meaning.ACKNOWLEDGED)
    assert stub.deliveries()[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_ca_file_that_cannot_be_used_is_an_error_at_once(tmp_path: Path, content: str | None) -> None:
    """Not only at the first result."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"^AGP_DASHBOARD_CA_FILE: .*ca\.pem cannot be used"):
        HttpDashboard("https://x", TokenSource("AGP_DASHBOARD_TOKEN", SecretStr(TOKEN), None), ca_file=file)
