"""The dashboard's HTTP side, called without a socket."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from agp_agent.dev_dashboard.incoming import BODY_LIMIT_BYTES
from agp_agent.dev_dashboard.server import create_app
from agp_agent.dev_dashboard.store import ReceivedResult, ResultStore
from agp_agent.models import TaskResult
from unit.dev_dashboard.conftest import client_of

REPORT = "/api/v1/agents/report_result"
RESULTS = "/api/v1/results"
PAGE_KEY = "page-key-of-the-tests"
BODY = {"task_id": "t", "status": "completed", "output": "ok\n", "error": None}


def detail(response: httpx.Response) -> str:
    """Return the sentence of an error answer, having checked its shape."""
    body = response.json()
    assert list(body) == ["detail"]
    assert isinstance(body["detail"], str)
    assert body["detail"].endswith(".")
    return str(body["detail"])


async def test_a_result_is_acknowledged_stored_and_shown(
    agent: httpx.AsyncClient, store: ResultStore, shown: list[ReceivedResult], result: TaskResult
) -> None:
    """The contract's success, with everything it stands for done."""
    content = result.model_dump_json()
    response = await agent.post(REPORT, content=content, headers={"Content-Type": "application/json; charset=utf-8"})
    assert (response.status_code, response.json()) == (200, {"message": "Result received"})
    assert store.newest() == shown
    assert shown[0].output == result.output


async def test_error_may_be_left_out(agent: httpx.AsyncClient) -> None:
    """The contract gives it a default."""
    response = await agent.post(REPORT, json={"task_id": "t", "status": "pending", "output": ""})
    assert response.status_code == 200


async def test_the_same_key_again_is_acknowledged_and_stored_once(
    agent: httpx.AsyncClient, store: ResultStore, shown: list[ReceivedResult]
) -> None:
    """An agent that never saw the acknowledgement may send again."""
    for _ in range(3):
        response = await agent.post(REPORT, json=BODY, headers={"Idempotency-Key": "agent/t/1/x"})
        assert (response.status_code, response.json()) == (200, {"message": "Result received"})
    assert store.counts() == (1, 3)
    assert [received.duplicates for received in shown] == [0, 1, 2]


async def test_the_same_key_with_another_result_is_409(agent: httpx.AsyncClient, store: ResultStore) -> None:
    """The dashboard does not acknowledge what it does not keep."""
    headers = {"Idempotency-Key": "k"}
    await agent.post(REPORT, json=BODY, headers=headers)
    response = await agent.post(REPORT, json=BODY | {"output": "other"}, headers=headers)
    assert response.status_code == 409
    assert "another result" in detail(response)
    assert store.counts() == (1, 1)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic a-token-of-the-tests-é",
        "a-token-of-the-tests-é",
        "Bearer \xff",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", REPORT), ("GET", RESULTS)])
async def test_every_wrong_token_gets_the_same_401(
    anonymous: httpx.AsyncClient, store: ResultStore, authorization: str | None, method: str, path: str
) -> None:
    """Missing, malformed and wrong are not told apart, and the body is not looked at."""
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    response = await anonymous.request(method, path, content=b"{no json", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert detail(response).startswith("The request needs the header 'Authorization: Bearer <token>'")
    assert store.counts() == (0, 0)


async def test_two_tokens_are_none(agent: httpx.AsyncClient) -> None:
    """A request that says two things is not believed."""
    right = agent.headers["authorization"].encode()
    headers = [(b"authorization", right), (b"authorization", b"Bearer other")]
    response = await agent.get(RESULTS, headers=headers)
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b'{"task_id": NaN}', "task_id must be a string"),
        (b"[]", "JSON object with task_id, status, output and error"),
        (b"null", "JSON object"),
        (b"[" * 100_000, "valid JSON"),
        (json.dumps(BODY).encode("utf-16"), "valid JSON"),
        (json.dumps(BODY | {"output": "\udc80"}).encode(), "valid JSON"),
        (json.dumps(BODY | {"task_id": 5}).encode(), "task_id must be a string"),
        (json.dumps(BODY | {"output": None}).encode(), "output must be a string"),
        (json.dumps(BODY | {"error": ["secret"]}).encode(), "error must be a string"),
        (
            json.dumps(BODY | {"status": "secret"}).encode(),
            "status must be one of pending, running, completed and failed",
        ),
        (json.dumps(BODY | {"secret": 1}).encode(), "a key is not a known key; expected only"),
        (json.dumps({"task_id": "t", "status": "failed"}).encode(), "output is required"),
    ],
)
async def test_a_body_that_is_no_result_is_400(
    agent: httpx.AsyncClient, store: ResultStore, content: bytes, expected: str
) -> None:
    """The sentence names the field and what was expected, and echoes nothing."""
    response = await agent.post(REPORT, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert expected in detail(response)
    assert "secret" not in detail(response)
    assert store.counts() == (0, 0)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_of_another_type_is_415(agent: httpx.AsyncClient, content_type: str | None) -> None:
    """A body must say that it is JSON."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await agent.post(REPORT, content=json.dumps(BODY).encode(), headers=headers)
    assert response.status_code == 415
    assert "application/json" in detail(response)


async def test_a_body_without_end_is_413(agent: httpx.AsyncClient, store: ResultStore) -> None:
    """The limit is counted as the bytes come, so an undeclared length does not pass it."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 2**20
            yield b" " * 2**20

    response = await agent.post(REPORT, content=endless(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert str(BODY_LIMIT_BYTES) in detail(response)
    assert taken <= BODY_LIMIT_BYTES + 2**21
    assert store.counts() == (0, 0)


async def test_a_declared_length_above_the_limit_is_413(agent: httpx.AsyncClient) -> None:
    """Nothing of such a body is read."""
    headers = {"Content-Type": "application/json", "Content-Length": str(BODY_LIMIT_BYTES + 1)}
    response = await agent.post(REPORT, content=b"{}", headers=headers)
    assert response.status_code == 413


async def test_a_body_of_nearly_the_limit_is_kept(agent: httpx.AsyncClient, store: ResultStore) -> None:
    """The limit itself is not over the limit."""
    frame = len(json.dumps(BODY | {"output": ""}))
    content = json.dumps(BODY | {"output": "x" * (BODY_LIMIT_BYTES - frame)})
    response = await agent.post(REPORT, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert len(store.newest()[0].output) == BODY_LIMIT_BYTES - frame


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("GET", "/openapi.json", 404),
        ("POST", f"{REPORT}/", 404),
        ("GET", REPORT, 405),
        ("DELETE", RESULTS, 405),
    ],
)
async def test_other_addresses_and_methods_get_a_sentence(
    agent: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """Framework pages are off, and routing errors have the one error shape."""
    response = await agent.request(method, path)
    assert response.status_code == status
    assert REPORT in detail(response)
    assert ("allow" in response.headers) == (status == 405)


async def test_a_store_that_fails_is_503_with_a_time_to_wait(agent: httpx.AsyncClient, store: ResultStore) -> None:
    """What could not be kept is not acknowledged."""
    store.close()
    response = await agent.post(REPORT, json=BODY)
    assert response.status_code == 503
    assert "send it again" in detail(response)
    assert int(response.headers["retry-after"]) > 0


async def test_an_error_of_the_dashboard_itself_is_500_with_a_sentence(store: ResultStore) -> None:
    """Even a mistake in here keeps the shape, and tells the client no more."""

    def mistake(_received: ReceivedResult) -> None:
        message = "secret"
        raise RuntimeError(message)

    transport = httpx.ASGITransport(create_app(store, "token", PAGE_KEY, mistake), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://dashboard.test") as client:
        response = await client.post(REPORT, json=BODY, headers={"Authorization": "bearer token"})
    assert response.status_code == 500
    assert "secret" not in detail(response)


async def test_scripts_read_the_results(agent: httpx.AsyncClient) -> None:
    """Newest first, with every field, or one task's alone."""
    for task_id in ("a", "b &?=é"):
        await agent.post(REPORT, json=BODY | {"task_id": task_id}, headers={"Idempotency-Key": str(len(task_id))})
    response = await agent.get(RESULTS)
    assert [one["task_id"] for one in response.json()["results"]] == ["b &?=é", "a"]
    response = await agent.get(RESULTS, params={"task_id": "b &?=é"})
    assert response.json() == {
        "results": [
            {
                "id": 2,
                "task_id": "b &?=é",
                "status": "completed",
                "output": "ok\n",
                "error": None,
                "idempotency_key": "6",
                "received_at": "2026-01-02T03:04:08+00:00",
                "last_received_at": "2026-01-02T03:04:08+00:00",
                "times_received": 1,
                "duplicates": 0,
            }
        ]
    }


async def test_a_misspelt_parameter_is_400(agent: httpx.AsyncClient) -> None:
    """A filter that is not one does not answer with everything."""
    response = await agent.get(RESULTS, params={"taskid": "a"})
    assert response.status_code == 400
    assert "task_id" in detail(response)


@pytest.mark.parametrize("query", ["", "?key=", "?key=wrong", "?key=%C3%A9", "?other=page-key-of-the-tests"])
async def test_the_page_is_locked_without_its_link(agent: httpx.AsyncClient, store: ResultStore, query: str) -> None:
    """Nobody sees a result without the link, not even with the token; the visitor learns where the link is."""
    store.add(TaskResult.model_validate_json(json.dumps(BODY | {"task_id": "concealed"})))
    response = await agent.get(
        f"/{query}", headers={"Cookie": "agp_dashboard=page-key-of-the-tests; agp_dashboard_x=y"}
    )
    assert response.status_code == 401
    assert "the terminal where it was started" in response.text
    assert "concealed" not in response.text
    assert "set-cookie" not in response.headers


async def test_the_link_opens_the_page_once_and_leaves_a_cookie(
    store: ResultStore, anonymous: httpx.AsyncClient, result: TaskResult
) -> None:
    """The cookie alone opens page, history and whole outputs from then on; the link opens nothing any more."""
    store.add(result)
    by_link = await anonymous.get("/", params={"key": PAGE_KEY})
    cookie = by_link.headers["set-cookie"]
    assert by_link.status_code == 200
    for flag in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert flag in cookie
    assert "Max-Age" not in cookie
    assert PAGE_KEY not in cookie
    by_cookie = await anonymous.get("/")
    assert by_cookie.text == by_link.text
    assert "set-cookie" not in by_cookie.headers
    (listed,) = (await anonymous.get("/desk")).json()["tasks"]
    assert listed["task_id"] == result.task_id
    output = await anonymous.get(f"/desk/tasks/{listed['id']}/output")
    assert output.text == result.output
    assert output.headers["content-type"] == "text/plain; charset=utf-8"
    anonymous.cookies.clear()
    assert (await anonymous.get("/", params={"key": PAGE_KEY})).status_code == 401


async def test_the_next_link_is_told_when_one_was_used(store: ResultStore) -> None:
    """So that another browser may come in."""
    links: list[str] = []
    app = create_app(store, "token", PAGE_KEY, print, links.append)
    for key in (PAGE_KEY, None):
        async with client_of(app) as browser:
            assert (await browser.get("/", params={"key": key or links[0]})).status_code == 200
    assert len(set(links)) == 2


async def test_every_page_carries_the_strict_policy(anonymous: httpx.AsyncClient, store: ResultStore) -> None:
    """Locked or not, page or text, nothing may run, frame, sniff or keep it."""
    store.add(TaskResult.model_validate_json(json.dumps(BODY)))
    locked = await anonymous.get("/")
    opened = await anonymous.get("/", params={"key": PAGE_KEY})
    output = await anonymous.get("/desk/tasks/1/output")
    for response in (locked, opened, output):
        assert response.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"


DESK = [
    *(("GET", path) for path in ("/desk", "/desk/tasks/1", "/desk/tasks/1/details", "/desk/tasks/1/output")),
    *(("GET", "/desk/tasks/1/live"), ("POST", "/desk/tasks/1/cancel"), ("POST", "/desk/tasks")),
    *(("POST", "/desk/agents"), ("DELETE", "/desk/agents/1")),
]


@pytest.mark.parametrize(("method", "path"), DESK)
async def test_what_the_page_uses_is_locked_too(
    agent: httpx.AsyncClient, store: ResultStore, method: str, path: str
) -> None:
    """There is no way around the link, not even with the token."""
    store.add(TaskResult.model_validate_json(json.dumps(BODY)))
    response = await agent.request(method, path, json={})
    assert response.status_code == 401
    assert "terminal" in detail(response)


@pytest.mark.parametrize("number", ["2", "0", "-1", "x", "٣", "9" * 18, "9" * 19, "9" * 5000])
async def test_an_unknown_task_is_404(anonymous: httpx.AsyncClient, number: str) -> None:
    """Any number that is none, too."""
    await anonymous.get("/", params={"key": PAGE_KEY})
    for path in (f"/desk/tasks/{number}", f"/desk/tasks/{number}/output", f"/desk/tasks/{number}/live"):
        response = await anonymous.get(path)
        assert response.status_code == 404
        assert "knows no such" in detail(response)


@pytest.mark.parametrize(("token", "key"), [("", "key"), ("token", "")])
def test_an_empty_secret_is_refused(store: ResultStore, token: str, key: str) -> None:
    """An empty secret would let everybody in."""
    with pytest.raises(ValueError, match="must not be empty"):
        create_app(store, token, key, print)


def test_no_address_of_the_framework_is_left(app: FastAPI) -> None:
    """Nothing is served but what is written here."""
    assert len(app.routes) == 3 + len(DESK)
