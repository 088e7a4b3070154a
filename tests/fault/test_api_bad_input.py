"""Rows 27, 28, 29 and 31: ids, playbooks, bodies and tokens that nobody should send, beside tasks that are good."""

import hashlib
import json
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.engine_events import EngineEvents
from support.memory import MemoryGrowth
from support.raw_http import RawAnswer, chunked, connect, exchange, read_answer, request
from support.wrong_bodies import MARK, WRONG_BODIES

MIB: Final = 2**20
JSON: Final = {"Content-Type": "application/json"}

WRONG_IDS: Final = {
    "empty": ("", "must not be empty."),
    "NUL": ("a\0b", "must be text with no control characters."),
    "line feed": ("a\nb", "must be text with no control characters."),
    "C1": ("a\x9bb", "must be text with no control characters."),
    "lone surrogate": ("a\ud83d", "must be text with no lone surrogates."),
    "10,000 characters": ("x" * 10_000, "must have at most 256 characters."),
}
ODD_IDS: Final = (
    "../x",
    "-rf",
    "\U0001f642\u202e",
    " two  spaces ",
    "%2e%2e",
    "..",
    "/",
    "~0",
    "$(touch /x)",
    "a/../../b",
)

BOMB: Final = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)
HASH: Final = "import hashlib; print(hashlib.sha256(open(__file__, 'rb').read()).hexdigest())"


def test_odd_ids_run_like_any_other_and_impossible_ones_are_400(start_watched: StartWatched) -> None:
    """Row 27: `../x`, `-rf`, emoji, blanks and `%2e%2e` run; NUL, controls, surrogates and endless ids are 400."""
    watched = start_watched()
    agent = watched.agent
    files = {path.name for path in agent.state.iterdir()}
    with EngineEvents(agent.instance) as events:
        watched.neighbours()
        for about, (task_id, why) in WRONG_IDS.items():
            answer = _send(agent, task_id, "echo never")
            assert (answer.status, answer.detail) == (400, f"Invalid body: task_id {why}"), about
        for task_id in ODD_IDS:
            watched.send("echo odd\n", task_id)
        results = watched.check()
        names = {event.name for event in events.seen("create")}
    assert {results[task_id]["output"].partition("\n")[2] for task_id in ODD_IDS} == {"odd\n"}
    assert all(name.replace("agp-", "").replace("-", "").isalnum() and name.isascii() for name in names), names
    assert {path.name for path in agent.state.iterdir()} == files


def _send(agent: AgentProcess, task_id: str, content: str, name: str = "playbook.sh") -> RawAnswer:
    """Send a task whose strings may be no Unicode."""
    body = json.dumps({"task_id": task_id, "playbook": {"name": name, "content": content}})
    return exchange(agent.port, [request("POST", "/execute_task", agent.headers | JSON, body.encode())])


@pytest.mark.usefixtures("machines_engine")
def test_playbooks_are_judged_by_their_interpreter(start_watched: StartWatched) -> None:
    """Row 28: NUL, CRLF, BOM and invalid YAML arrive byte for byte; a YAML bomb costs us nothing; empty is 400."""
    watched = start_watched()
    agent = watched.agent
    exact = {
        "NUL": ("p.sh", 'sha256sum <"$0" | cut -d " " -f 1\nexit\n\0\0\n'),
        "CRLF": ("p.py", f"{HASH}\r\n# end\r\n"),
        "BOM": ("p.py", f"\ufeff{HASH}\n"),
        "name": ("../../etc/passwd.py", f"{HASH}\n"),
    }
    with MemoryGrowth(agent.process.pid) as growth:
        watched.neighbours()
        empty = _send(agent, "empty", "")
        assert (empty.status, empty.detail) == (400, "Invalid body: playbook.content must not be empty.")
        for task_id, (name, content) in exact.items():
            agent.accept_task(task_id, content, name)
        agent.accept_task("invalid YAML", "- hosts: [all\n  tasks: {\n\t- x", "../../etc/passwd.yml")
        agent.accept_task("YAML bomb", f"- hosts: all\n  vars:\n{_indented(BOMB)}", "known-by-its-shape")
        for task_id in (*exact, "invalid YAML", "YAML bomb"):
            watched.note(task_id)
        results = watched.check()
        assert growth.peak_bytes < 32 * MIB
    for task_id, (_, content) in exact.items():
        assert results[task_id]["output"].strip() == hashlib.sha256(content.encode()).hexdigest(), task_id
    assert results["invalid YAML"]["error"] == "exit code 4"  # Ansible's own
    assert "passwd" not in results["invalid YAML"]["output"]
    assert results["YAML bomb"]["error"] is None  # Ansible does not unfold what nobody asks for
    assert agent.audit("task finished", task_id="YAML bomb")[0]["runner"] == "ansible"


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_a_playbook_of_100_mb_is_413_and_costs_no_memory(start_watched: StartWatched) -> None:
    """Row 28: declared, chunked or to be continued it is counted on the stream; the client gets the whole answer."""
    watched = start_watched()
    agent = watched.agent
    headers, piece, number = agent.headers | JSON, b"[" * MIB, 100
    declared = request("POST", "/execute_task", headers).replace(b"Length: 0", b"Length: %d" % (number * MIB))
    ask_first = declared.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    too_large = "The request body is larger than 6307840 bytes."
    watched.neighbours()
    with MemoryGrowth(agent.process.pid) as growth:
        for parts in (
            [declared, *([piece] * number)],
            [*chunked("POST", "/execute_task", headers, [piece] * number, end=True)],
            [ask_first],
        ):
            with connect(agent.port) as connection:
                for part in parts:
                    connection.sendall(part)
                answer = read_answer(connection)
            assert (answer.status, answer.detail) == (413, too_large)
        assert growth.peak_bytes < 4 * 6 * MIB
    watched.check()


def _behind_token(data: bytearray) -> int:
    return data.index(b"\r\n", data.index(b"Bearer ")) + 1


def _mutations(agent: AgentProcess, number: int) -> list[bytes]:
    """A good request with what a broken client or line makes of it; the same ones every time."""
    chance = random.Random(29)  # noqa: S311  no secret depends on it
    found = []
    for one in range(number):
        good = json.dumps({"task_id": f"broken {one:03}", "playbook": {"name": "p.none", "content": MARK}}).encode()
        data = bytearray(request("POST", "/execute_task", agent.headers | JSON, good))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(_behind_token(data), len(data))
            length = chance.choice((0, 0, 1, 2, 40))
            data[place : place + length] = chance.randbytes(chance.choice((0, 1, 1, 8)))
        found.append(bytes(data))
    return found


def _answer_to(agent: AgentProcess, data: bytes) -> bytes:
    """Send it, say that nothing follows, and return all that comes back."""
    with connect(agent.port) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


def test_wrong_bodies_are_4xx_and_never_500(start_watched: StartWatched) -> None:
    """Row 29: wrong types and lengths, deep JSON, NaN, duplicate keys, UTF-16, 500 broken requests: 4xx, never 500."""
    watched = start_watched()
    agent = watched.agent
    watched.neighbours()
    with ThreadPoolExecutor(8) as clients:
        wrong = [request("POST", "/execute_task", agent.headers | JSON, body) for body, _ in WRONG_BODIES.values()]
        assert {one.status for one in clients.map(lambda data: exchange(agent.port, [data]), wrong)} == {400}
        types = [
            {"Content-Type": name} for name in ("text/plain", "application/x-yaml", "application/json5", "json", "")
        ]
        others = [request("POST", "/execute_task", agent.headers | one, b"{}") for one in (*types, {})]
        assert {one.status for one in clients.map(lambda data: exchange(agent.port, [data]), others)} == {415}
        no_length = request("POST", "/execute_task", agent.headers | JSON).replace(b"Content-Length: 0\r\n", b"")
        assert exchange(agent.port, [no_length]).status == 400
        answers = list(clients.map(lambda data: _answer_to(agent, data), _mutations(agent, 500)))
    statuses = Counter(answer.split(b" ", 2)[1][:1] if answer else b"none" for answer in answers)
    watched.send("echo the last\n")  # whatever was accepted before it stands in the trail before it
    for line in agent.audit("task accepted"):  # of some the answer was lost: bytes behind the request reset it
        if line["task_id"] not in watched.accepted:
            watched.note(line["task_id"])
    assert statuses[b"4"] > 300  # control: they are broken
    assert set(statuses) <= {b"2", b"4", b"none"}
    watched.check()
    assert "request failed" not in agent.log_text()


def test_whatever_is_wrong_with_the_token_the_answer_is_the_same(start_watched: StartWatched) -> None:
    """Row 31: empty, twice, no ASCII, 60 KB, in the query: the same 401; 1 MB: 431; any case of the scheme is right."""
    watched = start_watched()
    agent = watched.agent
    right = f"Bearer {agent.token}".encode()
    wrong = {
        "missing": [],
        "empty": [b""],
        "no token": [b"Bearer "],
        "wrong": [b"Bearer " + b"x" * 43],
        "its beginning": [right[:-1]],
        "with a NUL behind it, percent-encoded": [right + b"%00"],
        "twice": [right, right],
        "right and wrong": [right, b"Bearer wrong"],
        "no ASCII": [b"Bearer \xff\xfe\xc3\xa9"],
        "look-alike": ["Bearer \uff41".encode()],
        "60 KB": [b"Bearer " + b"x" * 60_000],
        "other scheme": [b"Basic " + right[7:]],
    }
    watched.neighbours()
    answers = {about: _authorized(agent, values, peer) for peer, (about, values) in enumerate(wrong.items())}
    answers["query"] = _authorized(agent, [], 100, f"/heartbeat?token={agent.token}&access_token={agent.token}")
    assert {(one.status, one.body) for one in answers.values()} == {
        (401, b'{"detail":"The bearer token is missing or invalid."}')
    }
    for values in ([b"Bearer " + b"x" * MIB], [right + b"x" * MIB]):
        assert _authorized(agent, values, 101).status == 431
    for scheme in (b"bearer", b"BEARER", b"bEaReR"):
        assert _authorized(agent, [scheme + right[6:]], 102).status == 200
    watched.check()  # no token in any log, neither the one of the query


def _authorized(agent: AgentProcess, values: list[bytes], peer: int, path: str = "/heartbeat") -> RawAnswer:
    """A request with these Authorization headers, from an address of its own: nobody is taken for a guesser."""
    lines = b"".join(b"Authorization: " + value + b"\r\n" for value in values)
    data = request("POST", path, {}).replace(b"Content-Length", lines + b"Content-Length")
    return exchange(agent.port, [data], source=f"127.0.4.{peer + 1}")
