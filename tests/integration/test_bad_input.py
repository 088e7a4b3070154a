"""Whatever a client sends wrong gets its 4xx with one sentence; nothing is echoed, nothing runs, nothing changes."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.api_server import api_server
from support.dashboard_stub import DashboardStub
from support.raw_http import chunked, connect, exchange, request
from support.wrong_bodies import MARK, WRONG_BODIES

BODY_LIMIT_BYTES = 6 * 2**20 + 16 * 1024
GOOD = json.dumps({"task_id": "t", "playbook": {"name": "p.sh", "content": f"echo {MARK}"}}).encode()


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent that is ready to run whatever it would accept."""
    with AgentProcess(folder, dashboard.url, dashboard.token) as process:
        yield process
        assert MARK not in process.log_text()
        assert MARK not in (process.state / "audit.jsonl").read_text()
    assert dashboard.deliveries() == []


@pytest.fixture(autouse=True)
def _nothing_changes(agent: AgentProcess) -> Iterator[None]:
    """After each test the agent is alive, its journal has no row, and nothing is on the engine."""
    yield
    assert agent.request("POST", "/heartbeat").json() == {"status": "ok"}
    with sqlite3.connect(agent.state / "journal.db") as journal:
        assert journal.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
    journal.close()
    assert agent.engine.containers(agent.instance) == []


def _json(agent: AgentProcess, **more: str) -> dict[str, str]:
    return {**agent.headers, "Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_a_wrong_body_is_400_with_the_field_and_what_was_expected(agent: AgentProcess, name: str) -> None:
    """The sentence is exact, and the body stays unrepeated."""
    body, detail = WRONG_BODIES[name]
    answer = agent.request("POST", "/execute_task", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (400, {"detail": detail})
    assert answer.headers["content-type"] == "application/json"
    assert MARK not in answer.text


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "json"],
)
def test_another_content_type_is_415(agent: AgentProcess, content_type: str | None) -> None:
    """Only a body that is declared as JSON is read as JSON, right as it may be."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = exchange(agent.port, [request("POST", "/execute_task", agent.headers | headers, GOOD)])
    assert (answer.status, answer.detail) == (415, "The Content-Type must be application/json.")


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "caf\u00e9", "a\tb"])
def test_an_idempotency_key_that_is_none_is_400(agent: AgentProcess, key: str) -> None:
    """It has 1 to 255 visible ASCII characters."""
    head = f"POST /execute_task HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer {agent.token}\r\n"
    head += f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(GOOD)}\r\n\r\n"
    answer = exchange(agent.port, [head.encode("latin-1") + GOOD])
    detail = "The Idempotency-Key header must have 1 to 255 visible ASCII characters."
    assert (answer.status, answer.detail) == (400, detail)


def test_two_idempotency_keys_are_400(agent: AgentProcess) -> None:
    """Which of them counts would be a guess."""
    headers = [*_json(agent).items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = agent.http.post("/execute_task", content=GOOD, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"detail": "The Idempotency-Key header must come once."})


@pytest.mark.parametrize("size", [2**20 + 1, 2**20 + 500_000])
def test_a_playbook_above_its_limit_is_413(agent: AgentProcess, size: int) -> None:
    """The body may be larger than the playbook's limit, for JSON spells a byte with up to six."""
    answer = agent.post_task("large", "#" * size)
    assert answer.status_code == 413
    assert answer.json() == {"detail": "playbook.content is larger than 1048576 bytes."}


def test_a_declared_length_above_the_limit_is_413_before_the_body_comes(agent: AgentProcess) -> None:
    """A client that waits for ``100 Continue`` sends nothing in vain."""
    head = request("POST", "/execute_task", _json(agent, Expect="100-continue"))
    head = head.replace(b"Content-Length: 0", f"Content-Length: {BODY_LIMIT_BYTES + 1}".encode())
    answer = exchange(agent.port, [head])
    assert (answer.status, answer.detail) == (413, f"The request body is larger than {BODY_LIMIT_BYTES} bytes.")
    assert answer.closed


def test_the_limit_itself_is_not_too_large(agent: AgentProcess) -> None:
    """A body of exactly the limit is read, and refused for what it is."""
    answer = exchange(agent.port, [request("POST", "/execute_task", _json(agent), b" " * BODY_LIMIT_BYTES)])
    assert answer.status == 400
    answer = exchange(agent.port, [request("POST", "/execute_task", _json(agent), b" " * (BODY_LIMIT_BYTES + 1))])
    assert answer.status == 413


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\r\n\r\n\0\0\0", id="zeros"),
        pytest.param(b"GET\r\n\r\n", id="no path"),
        pytest.param(b"hello\r\n\r\n", id="no request"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"POST /execute_task HTTP/9.9\r\n\r\n", id="version"),
        pytest.param(b"PO ST /execute_task HTTP/1.1\r\n\r\n", id="method"),
        pytest.param(b"POST /execute_task HTTP/1.1\r\nHost agent\r\n\r\n", id="header without colon"),
        pytest.param(b"POST /execute_task HTTP/1.1\r\nA: b\0c\r\n\r\n", id="NUL in a header"),
        pytest.param(b"POST /execute_task HTTP/1.1\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(b"POST /execute_task HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", id="length no number"),
        pytest.param(
            b"POST /execute_task HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two lengths"
        ),
        pytest.param(
            b"POST /execute_task HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunked",
        ),
    ],
)
def test_bytes_that_are_no_http_are_400(agent: AgentProcess, data: bytes) -> None:
    """The answer has the one shape of all errors, and the connection is closed."""
    answer = exchange(agent.port, [data])
    assert answer.status == 400
    assert answer.detail.endswith(".")
    assert answer.closed


def test_a_path_that_is_no_ascii_is_an_error_like_all_others(agent: AgentProcess) -> None:
    """Bytes that must not stand in a path end in a 4xx, token or not."""
    head = f"Host: agent\r\nAuthorization: Bearer {agent.token}\r\nContent-Length: 0\r\n\r\n".encode()
    assert exchange(agent.port, [b"POST /\xff\xfe HTTP/1.1\r\n" + head]).status in {400, 404}
    assert exchange(agent.port, [b"POST /%ff%fe HTTP/1.1\r\n" + head]).status == 404
    assert exchange(agent.port, [b"POST /tasks/%ff/cancel HTTP/1.1\r\n" + head]).status == 404


def test_a_broken_chunk_is_400(agent: AgentProcess) -> None:
    """A body that stops being HTTP in its middle ends the request."""
    parts = [*chunked("POST", "/execute_task", _json(agent), [GOOD], end=False), b"zz\r\nnonsense\r\n"]
    answer = exchange(agent.port, parts)
    assert answer.status == 400
    assert answer.closed


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(agent: AgentProcess) -> None:
    """Half an order is none."""
    with connect(agent.port) as connection:
        whole = request("POST", "/execute_task", _json(agent), GOOD)
        connection.sendall(whole[:-10])


@pytest.mark.parametrize("way", ["chunked", "declared"])
async def test_a_body_without_end_is_408(agent: AgentProcess, tmp_path: Path, way: str) -> None:
    """A body must arrive within its deadline; the connection is closed, or its rest would be taken for a request."""
    del agent
    token, headers = b"a-token-of-this-test", {"Content-Type": "application/json"}
    headers["Authorization"] = f"Bearer {token.decode()}"
    if way == "chunked":
        parts = b"".join(chunked("POST", "/execute_task", headers, [GOOD], end=False))
    else:
        parts = request("POST", "/execute_task", headers, GOOD + b" ")[:-1]
    async with api_server(tmp_path, lambda: (token,), body_deadline_s=0.2) as port:
        answer = await _exchange(port, parts)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body) == {"detail": "The request body did not arrive within 0.2 s."}


async def _exchange(port: int, data: bytes) -> bytes:
    """Send and read until the server closes; beside the server on one event loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer
