"""Every answer of the contract between dashboard and agent, byte for byte, over real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from agp_agent.models import Playbook, Task, TaskResult
from support.agent_process import AgentProcess
from support.api_server import api_server
from support.dashboard_stub import DashboardStub
from support.raw_http import RawAnswer, chunked, exchange, request

UNAUTHORIZED = b'{"detail":"The bearer token is missing or invalid."}'
STATUSES = {"enum": ["pending", "running", "completed", "failed"], "title": "TaskStatus", "type": "string"}


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent with places for everything."""
    with AgentProcess(folder, dashboard.url, dashboard.token, {"AGP_MAX_RUNNING": 8}) as process:
        yield process


def _shape(model: type[BaseModel]) -> dict[str, Any]:
    """Keys, types and which are required; without the limits and words that the contract does not state."""
    schema = model.model_json_schema()
    keys = {
        name: {key: value for key, value in part.items() if key in {"type", "$ref", "anyOf", "default"}}
        for name, part in schema["properties"].items()
    }
    return {"keys": keys, "required": schema["required"], "closed": schema["additionalProperties"] is False}


def test_the_models_are_those_of_the_contract() -> None:
    """No key was added, none is missing, none changed its type."""
    string = {"type": "string"}
    assert _shape(Playbook) == {
        "keys": {"name": string, "content": string},
        "required": ["name", "content"],
        "closed": True,
    }
    assert _shape(Task) == {
        "keys": {"task_id": string, "playbook": {"$ref": "#/$defs/Playbook"}},
        "required": ["task_id", "playbook"],
        "closed": True,
    }
    error = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert _shape(TaskResult) == {
        "keys": {"task_id": string, "status": {"$ref": "#/$defs/TaskStatus"}, "output": string, "error": error},
        "required": ["task_id", "status", "output"],
        "closed": True,
    }
    status = TaskResult.model_json_schema()["$defs"]["TaskStatus"]
    assert {key: status[key] for key in STATUSES} == STATUSES


def _raw(agent: AgentProcess, method: str, path: str, body: bytes = b"", **headers: str) -> RawAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return exchange(agent.port, [request(method, path, agent.headers | named, body)])


def test_a_heartbeat_is_answered(agent: AgentProcess) -> None:
    """No body in, ``{"status":"ok"}`` out."""
    answer = _raw(agent, "POST", "/heartbeat")
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
    assert {name: answer.headers[name] for name in ("content-type", "content-length")} == {
        "content-type": "application/json",
        "content-length": "15",
    }
    assert set(answer.headers) == {"date", "content-type", "content-length"}


def test_a_task_is_accepted_and_its_result_delivered(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """202 with the three keys of the contract; then the four of the result."""
    body = b'{"task_id":"t-1","playbook":{"name":"hello.sh","content":"echo hello\\n"}}'
    answer = _raw(agent, "POST", "/execute_task", body, Content_Type="application/json")
    assert (answer.status, answer.body) == (
        202,
        b'{"message":"Task execution started","task_id":"t-1","status":"running"}',
    )
    assert set(answer.headers) == {"date", "content-type", "content-length"}
    delivery = dashboard.acknowledged("t-1")
    assert (delivery.method, delivery.path) == ("POST", "/api/v1/agents/report_result")
    assert delivery.body == b'{"task_id":"t-1","status":"completed","output":"hello\\n","error":null}'
    assert delivery.headers["content-type"] == "application/json"
    assert delivery.headers["authorization"] == f"Bearer {dashboard.token}"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_is_json_however_it_is_declared(agent: AgentProcess, dashboard: DashboardStub, content_type: str) -> None:
    """Parameters and case of the content type do not matter."""
    body = json.dumps({"task_id": content_type, "playbook": {"name": "p.none", "content": "x"}}).encode()
    assert _raw(agent, "POST", "/execute_task", body, Content_Type=content_type).status == 202
    assert dashboard.result(content_type)["error"].startswith("no runner for 'p.none'")


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/", 404, "There is nothing at this path."),
        ("POST", "/execute_tasks", 404, "There is nothing at this path."),
        ("POST", "/execute_task/", 404, "There is nothing at this path."),
        ("POST", "/tasks/unknown/cancel", 404, "There is no task with this id."),
        ("GET", "/tasks/a%2Fcancel", 404, "There is no task with this id."),
        ("POST", "/tasks/a%2Fcancel", 405, "This path does not take this method."),
        ("POST", "/tasks/../cancel", 404, "There is no task with this id."),
        ("GET", "/heartbeat", 405, "This path does not take this method."),
        ("GET", "/execute_task", 405, "This path does not take this method."),
        ("PUT", "/execute_task", 405, "This path does not take this method."),
        ("DELETE", "/heartbeat", 405, "This path does not take this method."),
    ],
)
def test_other_paths_and_methods_get_one_sentence(
    agent: AgentProcess, method: str, path: str, status: int, detail: str
) -> None:
    """404 and 405 have the shape of every error."""
    answer = _raw(agent, method, path)
    assert (answer.status, answer.detail) == (status, detail)
    if status == 405:
        assert answer.headers["allow"] == ("GET" if path.startswith("/tasks") else "POST")


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="scheme alone"),
        pytest.param("Bearer ", id="no token"),
        pytest.param("Bearer wrong-token-of-some-length", id="wrong"),
        pytest.param("Bearer {token}x", id="longer"),
        pytest.param("Bearer {token} {token}", id="twice"),
        pytest.param("{token}", id="no scheme"),
        pytest.param("Basic {token}", id="other scheme"),
        pytest.param("Token {token}", id="no such scheme"),
        pytest.param("Bearer caf\u00e9-caf\u00e9-caf\u00e9-caf\u00e9", id="not ASCII"),
        pytest.param("Bearer {dashboard}", id="the other direction's"),
    ],
)
@pytest.mark.parametrize("what", ["heartbeat", "task", "wrong body", "huge body", "nothing", "openapi"])
def test_without_the_right_token_there_is_one_answer(agent: AgentProcess, what: str, authorization: str | None) -> None:
    """401 comes before anything else is looked at, and never tells what was wrong with the token."""
    source = f"127.0.1.{sum(f'{what}{authorization}'.encode()) % 200 + 1}"  # a peer each: see the throttle's test
    headers = {}
    if authorization is not None:
        value = authorization.format(token=agent.token, dashboard=agent.dashboard_token)
        headers["Authorization"] = value
    good = b'{"task_id":"never","playbook":{"name":"p.sh","content":"echo"}}'
    json_headers, xml = {"Content-Type": "application/json"}, {"Content-Type": "application/xml"}
    parts = {
        "heartbeat": [request("POST", "/heartbeat", headers)],
        "task": [request("POST", "/execute_task", headers | json_headers, good)],
        "wrong body": [request("POST", "/execute_task", headers | xml, b"\xff" * 100)],
        "huge body": [*chunked("POST", "/execute_task", headers | json_headers, [b"[" * 2**20] * 10, end=True)],
        "nothing": [request("BREW", "/nowhere", headers).replace(b"BREW", b"DELETE")],
        "openapi": [request("GET", "/openapi.json", headers)],
    }[what]
    answer = exchange(agent.port, parts, source=source)
    assert (answer.status, answer.body) == (401, UNAUTHORIZED)
    assert set(answer.headers) <= {"date", "content-type", "content-length", "www-authenticate", "connection"}
    assert answer.headers["www-authenticate"] == "Bearer"


def test_two_authorizations_are_none(agent: AgentProcess) -> None:
    """Which of them counts would be a guess."""
    head = request("POST", "/heartbeat", agent.headers).replace(
        b"Host:", f"Authorization: Bearer {agent.token}\r\nHost:".encode()
    )
    assert exchange(agent.port, [head], source="127.0.2.1").status == 401


def test_a_guesser_is_disconnected_and_a_right_token_never_is(agent: AgentProcess) -> None:
    """Beyond ten wrong tokens a minute the connection is closed with the same answer; right ones always go through."""
    wrong = request("POST", "/heartbeat", {"Authorization": "Bearer wrong-token-of-some-length"})
    right = request("POST", "/heartbeat", agent.headers)
    answers = [exchange(agent.port, [wrong], source="127.0.3.1") for _ in range(15)]
    assert [answer.closed for answer in answers] == [False] * 10 + [True] * 5
    assert {(answer.status, answer.body) for answer in answers} == {(401, UNAUTHORIZED)}
    later = [exchange(agent.port, [right], source="127.0.3.1") for _ in range(30)]
    assert {(answer.status, answer.closed) for answer in later} == {(200, False)}
    assert not exchange(agent.port, [wrong], source="127.0.3.2").closed
    agent.wait_audited("auth failed", peer="127.0.3.2")
    lines = [json.loads(line) for line in agent.log_text().splitlines()]
    failed = [line for line in lines if line["event"] == "auth failed" and line["peer"] == "127.0.3.1"]
    assert [line["count"] for line in failed] == [1] * 10


def test_probes_answer_without_a_token_and_reveal_nothing(agent: AgentProcess) -> None:
    """Alive and ready, and no more than that."""
    health = exchange(agent.port, [request("GET", "/healthz", {})])
    ready = exchange(agent.port, [request("GET", "/readyz", {})])
    assert (health.status, health.body) == (200, b'{"status":"ok"}')
    assert (ready.status, ready.body) == (200, b'{"status":"ready"}')
    assert "server" not in health.headers


async def test_an_error_nobody_foresaw_is_500_without_a_detail_of_it(
    agent: AgentProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence sends the reader to the log, by a reference that stands there."""
    del agent

    def broken() -> tuple[bytes, ...]:
        raise RuntimeError("the wrong token is secret-of-the-test")

    async with api_server(tmp_path, broken, body_deadline_s=1) as port, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/heartbeat")
    assert answer.status_code == 500
    detail = answer.json()["detail"]
    assert answer.json() == {"detail": detail}
    assert detail.startswith("The agent failed to answer; its log tells why (reference ")
    assert "secret" not in detail
    assert detail.removesuffix(").")[-8:] in capsys.readouterr().out
