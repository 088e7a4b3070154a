"""What the unit tests of the development dashboard share: a store, its application, and a way to call it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI

from agp_agent.dev_dashboard.server import create_app
from agp_agent.dev_dashboard.store import ReceivedResult, ResultStore
from agp_agent.models import TaskResult, TaskStatus

TOKEN = "a-token-of-the-tests-é"
PAGE_KEY = "page-key-of-the-tests"


class SteppingClock:
    """A clock that goes on by one second at each look."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the next second."""
        self._now += timedelta(seconds=1)
        return self._now


@pytest.fixture
def store() -> Iterator[ResultStore]:
    """A store in memory."""
    with ResultStore(None, SteppingClock()) as opened:
        yield opened


@pytest.fixture
def shown() -> list[ReceivedResult]:
    """What the application handed to ``on_result``."""
    return []


@pytest.fixture
def app(store: ResultStore, shown: list[ReceivedResult]) -> FastAPI:
    """The application over the store in memory."""
    return create_app(store, TOKEN, PAGE_KEY, shown.append)


@pytest.fixture
async def anonymous(app: FastAPI) -> httpx.AsyncClient:
    """A client without token and cookie."""
    return client_of(app)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client of an application."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://dashboard.test")


@pytest.fixture
async def agent(anonymous: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client with the right token."""
    anonymous.headers["Authorization"] = f"Bearer {TOKEN}"
    return anonymous


@pytest.fixture
def result() -> TaskResult:
    """A result of a playbook that failed, full of what a hostile playbook prints."""
    return TaskResult(
        task_id="<script>alert(1)</script>",
        status=TaskStatus.FAILED,
        output="</pre><script>alert(2)</script>\n"
        "\x1b[31mred\x1b]52;c;aGk=\x07\x9b2J \x00 é \u202etxt.exe\r\nlast\rover",
        error='exit code 2 "&<b>\x1b[2J\nforged completed other',
    )
