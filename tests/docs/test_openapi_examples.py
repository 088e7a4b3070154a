"""Every model and every error of the OpenAPI document has an example, and each is one."""

from typing import Any

import jsonschema
import pytest

from support.api_server import openapi_document

DOCUMENT: dict[str, Any] = openapi_document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
MODELS = [name for name, schema in SCHEMAS.items() if schema["type"] == "object"]
ANSWERS = {
    f"{method} {path} {status}": answer
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    for status, answer in operation["responses"].items()
}


def check(example: object, schema: dict[str, Any]) -> None:
    """Whether it is one, by the document's own schemas."""
    jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]}).validate(example)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_an_example_of_its_own(name: str) -> None:
    """The words without fields of their own are lists of what they may be."""
    (example,) = SCHEMAS[name]["examples"]
    check(example, {"$ref": f"#/components/schemas/{name}"})


@pytest.mark.parametrize("answer", [name for name in ANSWERS if name.split()[-1] >= "400"])
def test_every_error_has_an_example(answer: str) -> None:
    """With the sentence that a caller reads."""
    media = ANSWERS[answer]["content"]["application/json"]
    check(media["example"], media["schema"])
