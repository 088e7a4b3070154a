"""The sending half of a dashboard: hand one Task to an agent. With it the demo drives a real agent."""

from typing import Final, NamedTuple

import httpx

from agp_agent.errors import AgentError
from agp_agent.models import Task

_TIMEOUT_S: Final = 30.0


class AgentUnreachable(AgentError):
    """The agent did not answer; whether it got the task is not known."""


class Answer(NamedTuple):
    """What the agent said: the HTTP status, and the body as JSON value, or as text where it is no JSON."""

    status: int
    body: object


def send_task(agent_url: str, token: str, task: Task) -> Answer:
    """Send a task to the agent at ``agent_url`` (scheme, host and port). No proxy, no redirects, one attempt of 30 s.

    Raises:
        AgentUnreachable: no answer came, or the address is no address.
    """
    url = f"{agent_url.rstrip('/')}/execute_task"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=_TIMEOUT_S) as client:
            response = client.post(url, headers=headers, content=task.model_dump_json())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise AgentUnreachable(f"The agent at {agent_url} did not answer ({reason}); check that it runs.") from error
    return Answer(response.status_code, _body(response))


def _body(response: httpx.Response) -> object:
    try:
        body: object = response.json()
    except ValueError:
        return response.text
    return body
