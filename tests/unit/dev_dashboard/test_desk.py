"""Agents, history and calls: tokens that belong to one agent, results that find their task, words that are words."""

import json

import httpx
import pytest

from agp_agent.dev_dashboard.desk import Call, Desk
from agp_agent.dev_dashboard.store import ResultStore
from agp_agent.errors import InvalidBody
from agp_agent.models import Playbook, Task, TaskResult, TaskStatus
from unit.dev_dashboard.conftest import PAGE_KEY

LATEST = 2**62


@pytest.fixture
def desk(store: ResultStore) -> Desk:
    """Over a store in memory."""
    return Desk(store)


def task(task_id: str = "t") -> Task:
    """One to send."""
    return Task(task_id=task_id, playbook=Playbook(name="a.sh", content="true\n"))


def done(task_id: str = "t") -> TaskResult:
    """Its result."""
    return TaskResult(task_id=task_id, status=TaskStatus.COMPLETED, output="hi\n")


def statuses(desk: Desk, words: str = "", status: str = "", before: int = LATEST) -> list[tuple[str, str]]:
    """What the history says."""
    return [(one["task_id"], one["status"]) for one in desk.history(words, status, before, 50)]


def test_an_agent_is_known_by_the_token_of_its_results(desk: Desk) -> None:
    """Which is made where none is given; neither name nor token may belong to two."""
    made = desk.register("web1", "http://web1:8470/", "t1")
    assert desk.register("web2", "http://web2:8470", "t2", "mine") == "mine"
    one, two = desk.agents()
    assert (one.url, two.token) == ("http://web1:8470", "t2")
    assert [desk.agent_of(token.encode()) for token in (made, "mine", "wrong", "")] == [one.id, two.id, None, None]
    for name, token in (("web1", "other"), ("web3", "mine")):
        with pytest.raises(InvalidBody, match="registered already"):
            desk.register(name, "http://x", "t", token)
    desk.forget(one.id)
    assert desk.agent_of(made.encode()) is None


def test_the_history_of_a_forgotten_agent_is_nobodys(desk: Desk) -> None:
    """The next one registered may get its number, and must not get its tasks: it would cancel them."""
    desk.register("web1", "http://x", "t")
    (first,) = desk.agents()
    sent = desk.begin(first, task())
    desk.forget(first.id)
    desk.register("web2", "http://y", "t")
    (second,) = desk.agents()
    assert second.id == first.id
    found = desk.entry(sent)
    assert found is not None
    assert (found["agent_id"], found["agent"]) == (None, None)


def test_a_result_finds_its_task_and_one_that_nobody_sent_has_its_own_line(desk: Desk, store: ResultStore) -> None:
    """Sent twice, the latest gets it; a refused one never."""
    desk.register("web1", "http://x", "t")
    (agent,) = desk.agents()
    first, second, third = (desk.begin(agent, task()) for _ in range(3))
    desk.refused(third, "409: already queued")
    store.add(done(), "k", agent.id)
    store.add(done(), "k", agent.id)
    store.add(done("other"))
    assert statuses(desk) == [("other", "completed"), ("t", "refused"), ("t", "completed"), ("t", "sent")]
    found = desk.entry(second)
    assert found is not None
    assert (found["times_received"], found["content"]) == (2, "true\n")
    assert statuses(desk, before=second) == [("t", "sent")]
    assert desk.entry(first + 100) is None


def test_what_was_not_answered_may_have_a_result_all_the_same(desk: Desk, store: ResultStore) -> None:
    """The answer was lost, the task was not."""
    desk.register("web1", "http://x", "t")
    (agent,) = desk.agents()
    desk.unanswered(desk.begin(agent, task()), "No answer: reset")
    assert statuses(desk) == [("t", "unanswered")]
    store.add(done(), None, agent.id)
    assert statuses(desk) == [("t", "completed")]


def test_a_result_of_another_agent_is_not_taken_for_it(desk: Desk, store: ResultStore) -> None:
    """Two agents may have been sent the same id."""
    for name in ("web1", "web2"):
        desk.register(name, "http://x", "t", name)
    one, two = desk.agents()
    desk.begin(one, task())
    store.add(done(), None, two.id)
    assert [(line["agent"], line["status"]) for line in desk.history("", "", LATEST, 9)] == [
        ("web2", "completed"),
        ("web1", "sent"),
    ]


def test_the_history_is_filtered_by_words_that_are_words(desk: Desk, store: ResultStore) -> None:
    """And by state."""
    for task_id in ("100%", "100x", "a_b", "it's"):
        store.add(done(task_id))
    assert statuses(desk, "0%") == [("100%", "completed")]
    assert statuses(desk, "a_b") == [("a_b", "completed")]
    assert statuses(desk, "it's") == [("it's", "completed")]
    assert statuses(desk, status="failed") == []


def test_calls_are_kept_without_tokens_bounded_in_size_and_number(desk: Desk, store: ResultStore) -> None:
    """The newest of one task."""
    entry_id = desk.entry_of_result(store.add(done()).id)
    headers = {"Authorization": "Bearer s3cret", "content-type": "application/json"}
    for number in range(50):
        desk.note(entry_id, Call("POST", f"http://x/{number}", headers, "b" * 100_000, 202, "{}"))
    found = desk.entry(entry_id)
    assert found is not None
    assert [call["url"] for call in found["calls"]] == [f"http://x/{number}" for number in range(10, 50)]
    assert found["calls"][0]["request_headers"]["Authorization"] == "Bearer $TOKEN"
    assert "s3cret" not in json.dumps(found)
    assert "67232 characters not kept here" in found["calls"][0]["request_body"]


async def test_results_come_with_the_token_of_their_agent(
    anonymous: httpx.AsyncClient, store: ResultStore, desk: Desk
) -> None:
    """And are shown among its calls, as they came."""
    token = desk.register("web1", "http://x", "t")
    body = {"task_id": "t", "status": "completed", "output": "hi\n", "error": None}
    for bearer, status in ((token, 200), (token + "x", 401)):
        answer = await anonymous.post(
            "/api/v1/agents/report_result", json=body, headers={"Authorization": f"Bearer {bearer}"}
        )
        assert answer.status_code == status
    await anonymous.get("/", params={"key": PAGE_KEY})
    shown = (await anonymous.get("/desk/tasks/1")).json()
    assert (shown["agent"], shown["output"]) == ("web1", "hi\n")
    (call,) = shown["calls"]
    assert (call["is_ours"], call["status"], json.loads(call["request_body"])) == (0, 200, body)
    assert call["request_headers"]["authorization"] == "Bearer $TOKEN"
    assert store.counts() == (1, 1)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/desk/agents", {}, "name: Field required"),
        ("/desk/agents", {"name": " ", "url": "http://x", "token": "t"}, "name: "),
        ("/desk/agents", {"name": "a", "url": "ftp://x", "token": "t"}, "url: "),
        ("/desk/agents", {"name": "a", "url": "http://x?y", "token": "t"}, "url: "),
        ("/desk/agents", {"name": "a", "url": "http://x", "token": "••••"}, "token: "),
        ("/desk/agents", {"name": "a", "url": "http://x", "token": "t", "report_token": "é"}, "report_token: "),
        ("/desk/agents", [], "the body: "),
        ("/desk/tasks", {"agent_id": "1", "name": "a", "content": "b"}, "agent_id: "),
        ("/desk/tasks", {"agent_id": 7, "name": "a", "content": "b"}, "not registered"),
        ("/desk/tasks", {"agent_id": 1, "name": "", "content": "b"}, "name: "),
        ("/desk/tasks", {"agent_id": 1, "name": "a\n", "content": "b"}, "no control characters"),
        ("/desk/tasks", {"agent_id": 1, "name": "a", "content": ""}, "content: "),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_sent(
    anonymous: httpx.AsyncClient, desk: Desk, path: str, body: object, said: str
) -> None:
    """One sentence; the history stays as it is."""
    desk.register("web1", "http://127.0.0.1:1", "t")
    await anonymous.get("/", params={"key": PAGE_KEY})
    answer = await anonymous.post(path, json=body)
    assert answer.status_code in {400, 404}
    assert said in answer.json()["detail"]
    assert desk.history("", "", LATEST, 9) == []


async def test_a_form_of_another_site_is_refused(anonymous: httpx.AsyncClient) -> None:
    """Browsers send those kinds without asking; the cookie is strict beside."""
    await anonymous.get("/", params={"key": PAGE_KEY})
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await anonymous.post("/desk/agents", content=b"{}", headers={"Content-Type": kind})
        assert (answer.status_code, "must be JSON" in answer.text) == (400, True)


@pytest.mark.parametrize(("site", "status"), [("same-origin", 404), ("same-site", 401), ("cross-site", 401)])
async def test_another_page_of_the_same_machine_is_refused(
    anonymous: httpx.AsyncClient, site: str, status: int
) -> None:
    """Its requests bring the cookie along, and say where they come from."""
    await anonymous.get("/", params={"key": PAGE_KEY})
    answer = await anonymous.post("/desk/tasks/1/cancel", headers={"Sec-Fetch-Site": site})
    assert answer.status_code == status


async def test_an_agent_that_does_not_answer_is_told_and_the_task_stays_in_the_history(
    anonymous: httpx.AsyncClient, desk: Desk
) -> None:
    """With the call as it was."""
    desk.register("web1", "http://127.0.0.1:1", "t")
    await anonymous.get("/", params={"key": PAGE_KEY})
    body = {"agent_id": 1, "name": "a.sh", "content": "true"}
    sent = (await anonymous.post("/desk/tasks", json=body)).json()
    shown = (await anonymous.get(f"/desk/tasks/{sent['id']}")).json()
    assert shown["status"] == "unanswered"
    assert shown["unanswered"].startswith("No answer: ")
    assert shown["calls"][0]["status"] is None
    assert (await anonymous.get("/desk")).json()["agents"][0]["light"] == "down"
