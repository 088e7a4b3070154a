"""The agent's own endpoints: one task, the whole agent, and the document of them all."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from agp_agent.journal import JournalUnavailable
from agp_agent.models import Task
from support.api_server import Api, api, serving
from support.orders import ROOM, due_now, finished, order, release, to_preparing

TOKEN = b"t0ken-of-the-tests-1"
KEYS = [
    *("task_id", "attempt", "state", "status", "outcome", "reason", "error", "exit_code", "playbook_name"),
    *("playbook_sha256", "runner", "image", "image_digest", "container_id", "accepted_at", "started_at"),
    *("finished_at", "output_bytes", "output_omitted_bytes", "delivery"),
]
TOLD = ["recap", "failures"]
"""What only the answer about one task has."""
ODD_IDS = ["a b", "a/cancel", "..", ".", "../../etc", "%2e%2e", "?x=1", "#", "~", "\U0001f642", "a%2Fb", "x" * 256, "+"]


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Api]:
    """The routes over an empty journal."""
    async with api(tmp_path, lambda: (TOKEN,)) as routes:
        yield routes


@pytest.fixture
async def client(made: Api) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the right token, over a real socket."""
    headers = {"Authorization": f"Bearer {TOKEN.decode()}"}
    async with serving(made) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as one:
        yield one


async def test_a_task_has_exactly_the_keys_that_were_agreed(made: Api, client: httpx.AsyncClient) -> None:
    """Times are RFC 3339 in UTC, or null."""
    run_id = (await made.journal.accept(order("t"), ROOM)).run_id
    await to_preparing(made.journal, run_id)
    await made.journal.running(run_id, release("c7"))
    answer = await client.get("/tasks/t")
    found = answer.json()
    assert (answer.status_code, list(found)) == (200, [*KEYS, *TOLD])
    assert list(found["delivery"]) == ["state", "attempts", "last_error", "next_attempt_at", "acknowledged_at"]
    assert (found["state"], found["status"], found["container_id"]) == ("running", "running", "c7")
    assert (found["image"], found["image_digest"]) == ("agp/x", "sha256:1")
    assert found["started_at"] == "2025-06-15T15:06:40.500000Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", found["accepted_at"])
    assert (found["finished_at"], found["outcome"], found["delivery"]["state"]) == (None, None, "pending")


async def test_an_acknowledged_task_tells_its_end_and_its_delivery(made: Api, client: httpx.AsyncClient) -> None:
    """What the dashboard knows, an operator finds here too."""
    await finished(made.journal, "t")
    await made.journal.acknowledge((await due_now(made.journal))[0])
    found = (await client.get("/tasks/t")).json()
    assert (found["status"], found["outcome"], found["reason"], found["exit_code"]) == (
        *("completed", "succeeded", "exit_code", 0),
    )
    assert (found["delivery"]["state"], found["delivery"]["acknowledged_at"] is None) == ("acknowledged", False)


@pytest.mark.parametrize("task_id", ODD_IDS)
async def test_any_id_is_found_percent_encoded_and_by_its_alias(
    made: Api, client: httpx.AsyncClient, task_id: str
) -> None:
    """Nothing in an id is taken for a part of the path; both routes take both spellings."""
    await made.journal.accept(order(task_id), ROOM)
    alias = f"~{hashlib.sha256(task_id.encode()).hexdigest()}"
    for segment in (quote(task_id, safe="").replace(".", "%2E"), alias):
        assert (await client.get(f"/tasks/{segment}")).json()["task_id"] == task_id
        assert (await client.post(f"/tasks/{segment}/cancel")).status_code == 202


async def test_an_id_that_looks_like_an_alias_is_found_by_itself(made: Api, client: httpx.AsyncClient) -> None:
    """Where no other task's hash is meant."""
    task_id = "~" + "a" * 64
    await made.journal.accept(order(task_id), ROOM)
    assert (await client.get(f"/tasks/{task_id}")).json()["task_id"] == task_id
    assert (await client.get("/tasks/~" + "b" * 64)).status_code == 404


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/tasks/unknown", "There is no task with this id."),
        ("/tasks/%FF", "A task id in a path must be percent-encoded UTF-8."),
        ("/tasks/%ED%A0%80", "A task id in a path must be percent-encoded UTF-8."),
        ("/tasks/", "There is nothing at this path."),
        ("/tasks/a/b", "There is nothing at this path."),
        ("/tasks%2Ft", "There is nothing at this path."),
        ("/st%61tus", "There is nothing at this path."),
    ],
)
async def test_what_is_not_there_is_404_with_one_sentence(client: httpx.AsyncClient, path: str, sentence: str) -> None:
    """Paths are compared as they come."""
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": sentence})


async def test_who_cancelled_stands_in_the_trail(made: Api, client: httpx.AsyncClient, tmp_path: Path) -> None:
    """By address and by the fingerprint of the token."""
    await made.journal.accept(order("t"), ROOM)
    await client.post("/tasks/t/cancel")
    await client.post("/tasks/unknown/cancel")
    await made.audit.flush()
    (line,) = [json.loads(text) for text in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert (line["event"], line["task_id"], line["peer"]) == ("cancel requested", "t", "127.0.0.1")
    assert line["token_fingerprint"] == hashlib.sha256(TOKEN).hexdigest()[:8]


async def test_the_status_is_told_behind_the_token(client: httpx.AsyncClient) -> None:
    """With all its parts."""
    answer = await client.get("/status")
    assert answer.status_code == 200
    assert list(answer.json()) == [
        *("version", "agent_id", "ready", "draining", "paused", "problems", "warnings", "engine", "runners"),
        *("slots", "queue", "outbox", "audit_head"),
    ]
    assert answer.json()["outbox"] == {"pending": 0, "dead_letters": 0, "oldest_age_s": None}
    assert (await client.get("/status", headers={"Authorization": "Bearer wrong"})).status_code == 401


async def test_a_journal_that_cannot_be_read_is_503(made: Api, client: httpx.AsyncClient) -> None:
    """To come back to."""

    async def broken(_operation: object) -> object:
        raise JournalUnavailable("the disk is gone")

    made.journal._db.read = broken  # type: ignore[assignment, method-assign]
    for path in ("/status", "/tasks/t"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json() == {"detail": "The agent cannot read its journal at the moment; try again later."}


# --- the document ------------------------------------------------------------------------------------------------


async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the OpenAPI document."""
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


ALWAYS = {"400", "408", "431", "500"}


async def test_every_operation_states_every_status_it_can_answer(client: httpx.AsyncClient) -> None:
    """Also what the server itself answers to what is no request."""
    found = {
        f"{method.upper()} {path}": set(operation["responses"])
        for path, operations in (await document(client))["paths"].items()
        for method, operation in operations.items()
    }
    assert found == {
        "POST /heartbeat": ALWAYS | {"200", "401"},
        "POST /execute_task": ALWAYS | {"202", "401", "409", "413", "415", "503"},
        "POST /pause": ALWAYS | {"200", "401", "503"},
        "POST /resume": ALWAYS | {"200", "401", "503"},
        "POST /outbox/retry": ALWAYS | {"202", "401", "503"},
        "POST /tasks/{task_id}/delivery/retry": ALWAYS | {"202", "401", "404", "503"},
        "POST /tasks/{task_id}/delivery/drop": ALWAYS | {"200", "401", "404", "503"},
        "GET /tasks": ALWAYS | {"200", "401", "503"},
        "GET /tasks/{task_id}/logs": ALWAYS | {"200", "401", "404", "503"},
        "GET /tasks/{task_id}": ALWAYS | {"200", "401", "404", "503"},
        "POST /tasks/{task_id}/cancel": ALWAYS | {"202", "401", "404", "409", "503"},
        "GET /status": ALWAYS | {"200", "401", "503"},
        "GET /metrics": ALWAYS | {"200", "401", "503"},
        "GET /openapi.json": ALWAYS | {"200", "401"},
        "GET /healthz": ALWAYS | {"200"},
        "GET /readyz": ALWAYS | {"200", "503"},
    }


async def test_every_operation_but_the_probes_needs_the_token(client: httpx.AsyncClient) -> None:
    """The document itself, too."""
    found = await document(client)
    assert found["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert found["security"] == [{"token": []}]
    without = {path for path, operations in found["paths"].items() for one in operations.values() if "security" in one}
    assert without == {"/healthz", "/readyz"}
    assert (await client.get("/openapi.json", headers={"Authorization": ""})).status_code == 401


async def test_the_document_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """Every reference leads to a part of it; the task's schema is the model's, limits included."""
    found = await document(client)
    text = json.dumps(found)
    for name in re.findall(r'"\$ref": "([^"]+)"', text):
        part: Any = found
        for step in name.removeprefix("#/").split("/"):
            part = part[step]
    assert "http://" not in text
    assert "https://" not in text
    task = found["components"]["schemas"]["Task"]
    assert task["required"] == Task.model_json_schema()["required"]
    assert (task["properties"]["task_id"]["maxLength"], task["additionalProperties"]) == (256, False)


async def test_the_document_is_a_page_too(client: httpx.AsyncClient) -> None:
    """All operations and models; without a script, and nothing is loaded from anywhere."""
    answer = await client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for operation in ("POST /execute_task", "GET /tasks/{task_id}/logs", "POST /pause", "GET /healthz"):
        assert operation in answer.text
    assert "<h3>TaskDetails</h3>" in answer.text
    assert not any(word in answer.text for word in ("<script", "http://", "https://", " src=", " href="))
