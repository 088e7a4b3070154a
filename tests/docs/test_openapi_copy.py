"""docs/openapi.json is what the agent serves: a change of the contract is seen in review.

``PYTHONPATH=tests python -m docs.test_openapi_copy`` writes it anew.
"""

import json
from pathlib import Path

from support.api_server import openapi_document

COPY = Path(__file__).parents[2] / "docs" / "openapi.json"


def written() -> str:
    """The document, without the version of the day."""
    document = openapi_document()
    document["info"] = document["info"] | {"version": "as /status says"}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_committed_copy_is_the_agents_document() -> None:
    """Byte for byte."""
    assert COPY.read_text() == written()


if __name__ == "__main__":
    COPY.write_text(written())
