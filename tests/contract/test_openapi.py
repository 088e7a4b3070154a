"""The API against its own OpenAPI document: schemathesis sends what the document allows, and what it forbids."""

import secrets
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import AuthContext, Case

from support.api_server import api_in_thread, openapi_document

TOKEN: Final = secrets.token_urlsafe(32)
EXAMPLES: Final = 40
"""Of each kind for each operation."""

schema = schemathesis.openapi.from_dict(openapi_document())


@schema.auth()
class Token:
    """The project's own authentication: one bearer token."""

    def get(self, _case: "Case[Any]", _context: AuthContext) -> str:
        """Return the right one."""
        return TOKEN

    def set(self, case: "Case[Any]", data: str, _context: AuthContext) -> None:
        """Send it."""
        case.headers["Authorization"] = f"Bearer {data}"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the API is, which serves this very document behind its token."""
    with api_in_thread(tmp_path_factory.mktemp("api"), TOKEN, max_queued=10**6) as port:
        base = f"http://127.0.0.1:{port}"
        served = httpx.get(f"{base}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
        assert served.json() == schema.raw_schema
        yield base


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_operation_does_what_its_document_says(case: "Case[Any]", url: str) -> None:
    """Only stated statuses, headers and shapes; never a 500; what is wrong is refused, and what is right is taken."""
    answer = case.call_and_validate(base_url=url)
    assert answer.status_code != 500
