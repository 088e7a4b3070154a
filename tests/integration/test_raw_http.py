"""Raw bytes against the agent: whatever comes, it answers or hangs up in time, and nothing of it stays."""

import json
import re
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.memory import MemoryGrowth
from support.raw_corpus import AMBIGUOUS, UNFINISHED, corpus
from support.raw_http import connect
from support.wrong_bodies import MARK

STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
AT_ONCE: Final = 16
_SILENCE_S: Final = 0.5
WARM_UP: Final = 300
REQUESTS: Final = 3000
MAY_GROW_BYTES: Final = 16 * 2**20
LEAK_BYTES: Final = 16 * 1024
"""Of each request, in the server that leaks: three times what may be grown."""


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent; whether its engine is there does not matter."""
    with AgentProcess(folder, dashboard.url, dashboard.token, ready=False) as process:
        yield process
        assert MARK not in process.log_text()
        assert "request failed" not in process.log_text()
    assert dashboard.deliveries() == []


def said(port: int, data: bytes, *, in_a_hurry: bool = False) -> bytes:
    """Send it, and return all that comes, until the server hangs up or has said nothing for a while after its answer.

    A client ``in_a_hurry`` tells the server at once that nothing follows.
    """
    with connect(port) as connection:
        received = b""
        try:
            connection.sendall(data)
            if in_a_hurry:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
                connection.settimeout(_SILENCE_S)
        except TimeoutError:
            assert received, "the server keeps the connection open without a word"
        except ConnectionError:
            pass  # closed over bytes that it did not read
        return received


def test_every_broken_request_is_answered_or_hung_up_on_and_never_500(agent: AgentProcess) -> None:
    """Each gets the statuses that are stated, with one sentence that repeats nothing; no hidden request is taken on."""
    wrong = corpus(agent.token)
    with ThreadPoolExecutor(AT_ONCE) as clients:
        said_to = clients.map(lambda data: said(agent.port, data), wrong.values())
        answers = dict(zip(wrong, said_to, strict=True))
    statuses = {name: {int(status) for status in STATUS.findall(answer)} for name, answer in answers.items()}
    stated = {200, 202, 400, 401, 404, 405, 408, 413, 415, 431}
    assert {name: found for name, found in statuses.items() if found - stated} == {}
    assert {name for name, answer in answers.items() if MARK.encode() in answer or b"smuggled" in answer} == set()
    assert {name for name, found in statuses.items() if not found} == set()
    assert {name: statuses[name] for name in AMBIGUOUS} == {name: {400} for name in AMBIGUOUS}
    assert statuses["100 at once"] == {200}
    assert len(STATUS.findall(answers["100 at once"])) == 100
    assert agent.audit("task accepted") == []
    assert agent.request("POST", "/heartbeat").status_code == 200


def test_a_request_that_is_never_finished_is_hung_up_on(agent: AgentProcess) -> None:
    """With 408, as soon as the deadline for its headers is over; others are answered meanwhile."""
    with ThreadPoolExecutor(AT_ONCE) as clients:
        waiting = {name: clients.submit(said, agent.port, data) for name, data in UNFINISHED.items()}
        assert agent.request("POST", "/heartbeat").status_code == 200
        answers = {name: one.result() for name, one in waiting.items()}
    assert {name: STATUS.findall(answer) for name, answer in answers.items()} == {
        name: [b"400" if name == "half a TLS hello" else b"408"] for name in UNFINISHED
    }


def growth(pid: int, ask: Callable[[int], object]) -> int:
    """By how many bytes a process grows over thousands of requests, after some that it may learn from."""
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(ask, range(WARM_UP)))
        with MemoryGrowth(pid) as grown:
            list(clients.map(ask, range(REQUESTS)))
            return grown.peak_bytes


def test_thousands_of_broken_requests_leave_nothing_in_memory(agent: AgentProcess) -> None:
    """The control below shows that the measure would see it."""
    wrong = [data for data in corpus(agent.token).values() if len(data) < 200_000]
    found = Counter[bytes]()

    def ask(number: int) -> None:
        found.update(STATUS.findall(said(agent.port, wrong[number % len(wrong)], in_a_hurry=True)))

    assert growth(agent.process.pid, ask) < MAY_GROW_BYTES
    assert found[b"400"] > REQUESTS / 4  # control: they are broken
    assert found[b"500"] == 0


LEAKY: Final = f"""
    import http.server
    kept = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            kept.append(bytearray(b"x" * {LEAK_BYTES}))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


def test_the_measure_would_see_a_leak() -> None:
    """A server that keeps 16 KiB of each request grows beyond what the agent may."""
    script = [sys.executable, "-c", textwrap.dedent(LEAKY)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            request = b"POST / HTTP/1.0\r\n\r\n"
            assert growth(server.pid, lambda _: said(port, request, in_a_hurry=True)) > MAY_GROW_BYTES
        finally:
            server.terminate()


def test_every_answer_to_bytes_that_are_no_http_is_one_sentence(agent: AgentProcess) -> None:
    """In the shape of every error."""
    head, _, body = said(agent.port, b"\xff\xfe no http\r\n\r\n", in_a_hurry=True).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert list(json.loads(body)) == ["detail"]
