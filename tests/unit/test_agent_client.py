"""Paths that the operator's commands ask for."""

import httpx
import pytest

from agp_agent.agent_client import task_path


@pytest.mark.parametrize(
    ("task_id", "path"),
    [
        ("..", "/tasks/%2E%2E/logs"),
        (".", "/tasks/%2E/logs"),
        ("a.b/c d", "/tasks/a%2Eb%2Fc%20d/logs"),
        ("\udcff", "/tasks/%FF/logs"),  # a byte of the command line that is no UTF-8
    ],
)
def test_a_task_s_path_stays_below_tasks(task_id: str, path: str) -> None:
    """Also as the HTTP client sends it, which takes steps up out of a path."""
    asked = task_path(task_id, "logs")
    assert asked == path
    assert httpx.URL("http://agent" + asked).raw_path == path.encode()
