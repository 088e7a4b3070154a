"""Requests that the SDK has no bounded or no typed form of: it switches read timeouts off for streams."""

from collections.abc import Iterator, Mapping
from typing import cast
from urllib.parse import quote

from docker import APIClient
from docker.errors import create_api_error_from_http_exception
from docker.types.daemon import CancellableStream
from docker.utils.json_stream import json_stream
from requests import HTTPError, Response

from agp_agent.docker_engine.translate import Json

_CHUNK_BYTES = 2**16


def url(client: APIClient, *segments: str) -> str:
    """An address of the engine's API in the version that was agreed with it."""
    path = "/".join(quote(segment, safe="") for segment in segments)
    return f"{client.base_url}/v{client.api_version}/{path}"


def get_chunks(client: APIClient, params: Mapping[str, str], *segments: str) -> Iterator[bytes]:
    """GET with the client's timeout for every read, and yield the body as it comes."""
    with client.get(url(client, *segments), params=params, stream=True, timeout=client.timeout) as response:
        check(response)
        yield from response.iter_content(_CHUNK_BYTES)


def create_container(client: APIClient, body: Json, name: str | None = None) -> str:
    """Create a container from the API's own body; returns its id."""
    made = client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]  # untyped in the stubs
    return cast("str", made["Id"])


def inspect_image(client: APIClient, name: str) -> Json:
    """Inspect an image."""
    return cast("Json", client.inspect_image(name))  # type: ignore[no-untyped-call]  # untyped in the stubs


def json_lines(response: Response) -> "CancellableStream[Json]":
    """Follow a stream of JSON documents; another thread may close it. Raises the SDK's error for a refusal."""
    check(response)
    documents = cast("Iterator[Json]", json_stream(response.iter_content(None)))
    return CancellableStream(documents, response)


def check(response: Response) -> None:
    """Raise the SDK's error for a refusal."""
    try:
        response.raise_for_status()
    except HTTPError as error:
        create_api_error_from_http_exception(error)
