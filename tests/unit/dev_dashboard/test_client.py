"""The sending half."""

import json

import httpx
import pytest
import respx

from agp_agent.dev_dashboard.client import AgentUnreachable, send_task
from agp_agent.models import Playbook, Task

TASK = Task(task_id="t", playbook=Playbook(name="hello.sh", content="echo é\n"))


@respx.mock
def test_a_task_is_sent_as_the_contract_says() -> None:
    """Path, token and body are the contract's, and status and body come back."""
    route = respx.post("http://agent.test:8470/execute_task").respond(202, json={"status": "running"})
    assert send_task("http://agent.test:8470/", "secret", TASK) == (202, {"status": "running"})
    request = route.calls.last.request
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == TASK.model_dump()


@respx.mock
def test_redirects_are_not_followed() -> None:
    """The token goes to the agent and nowhere else."""
    respx.post("http://agent.test/execute_task").respond(307, headers={"Location": "http://other.test/"})
    assert send_task("http://agent.test", "secret", TASK).status == 307


@respx.mock
def test_an_answer_that_is_no_json_comes_back_as_text() -> None:
    """A proxy's error page is shown, not hidden behind a parser's error."""
    respx.post("http://agent.test/execute_task").respond(502, text="<h1>Bad gateway</h1>")
    assert send_task("http://agent.test", "secret", TASK) == (502, "<h1>Bad gateway</h1>")


@respx.mock
def test_an_agent_that_does_not_answer_is_named() -> None:
    """The sentence says which agent and what to check, and holds no token."""
    respx.post("http://agent.test/execute_task").mock(side_effect=httpx.ConnectError("refused"))
    with pytest.raises(AgentUnreachable, match=r"agent\.test did not answer \(refused\)") as caught:
        send_task("http://agent.test", "secret", TASK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["agent.test", "http://[", "http://agent.test:port"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    """A typing error in the address is no traceback."""
    with pytest.raises(AgentUnreachable):
        send_task(url, "secret", TASK)
