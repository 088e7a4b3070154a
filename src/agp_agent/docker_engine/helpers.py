"""Helper containers that set rules in another container's network namespace. Calls block."""

from collections.abc import Mapping
from typing import Final

from docker import APIClient
from requests.exceptions import RequestException

from agp_agent import seccomp
from agp_agent.docker_engine.frames import Demultiplexer
from agp_agent.docker_engine.http import create_container, get_chunks
from agp_agent.docker_engine.read_back import Known, check_apparmor, not_asked_for, read_back
from agp_agent.docker_engine.translate import CONFINED, FIELDS_OF, NO_NEW_PRIVILEGES, Json, log_config
from agp_agent.engine import Helped
from agp_agent.errors import LockdownRefused
from agp_agent.lacks import Lack

_OUTPUT_LIMIT_BYTES: Final = 2**20
_MEMORY_BYTES: Final = 64 * 2**20
_PIDS: Final = 16
_NANO_CPUS: Final = 10**9
_TIMED_OUT: Final = 124


def run_beside(
    client: APIClient,
    container_id: str,
    image: str,
    command: tuple[str, ...],
    labels: Mapping[str, str],
    accepted: frozenset[Lack],
    known: Known,
) -> Helped:
    """Create, compare, start, wait, read, remove. ``accepted``: what it may lack where the engine cannot do it."""
    joined_id = client.inspect_container(container_id)["Id"]
    body = helper_body(joined_id, image, command, labels)
    for lack in not_asked_for(client, accepted, known):
        for field in FIELDS_OF[lack]:
            body["HostConfig"].pop(field, None)
    helper_id = create_container(client, body)
    try:
        if wrong := read_back(client, body, helper_id, known):
            raise LockdownRefused(
                f"the engine made a helper that differs from what was asked for in {', '.join(wrong)}"
            )
        client.start(helper_id)
        check_apparmor(client, helper_id, known)
        exit_code = client.wait(helper_id, timeout=client.timeout)["StatusCode"]
        return Helped(exit_code, _printed(client, helper_id))
    except RequestException:
        if not client.inspect_container(helper_id)["State"]["Running"]:  # where the engine is away, this says so
            raise
        return Helped(_TIMED_OUT, f"it did not end within {client.timeout:g} s")
    finally:
        client.remove_container(helper_id, v=True, force=True)


def helper_body(joined_id: str, image: str, command: tuple[str, ...], labels: Mapping[str, str]) -> Json:
    """The body of ``POST /containers/create`` for a helper."""
    return {
        "Image": image,
        "Entrypoint": [command[0]],
        "Cmd": list(command[1:]),
        "User": "0:0",
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": CONFINED
        | {
            "NetworkMode": f"container:{joined_id}",
            "CapAdd": ["NET_ADMIN"],
            "SecurityOpt": [NO_NEW_PRIVILEGES, f"seccomp={seccomp.profile()}"],
            "Memory": _MEMORY_BYTES,
            "MemorySwap": _MEMORY_BYTES,
            "NanoCpus": _NANO_CPUS,
            "PidsLimit": _PIDS,
            "ShmSize": 2**20,
            "LogConfig": {"Type": "local", "Config": log_config(_OUTPUT_LIMIT_BYTES)},
        },
    }


def _printed(client: APIClient, helper_id: str) -> str:
    chunks = get_chunks(client, {"stdout": "1", "stderr": "1", "follow": "0"}, "containers", helper_id, "logs")
    demultiplexer, output = Demultiplexer(), bytearray()
    for chunk in chunks:
        for piece in demultiplexer.feed(chunk):
            output += piece.data
    return output[:_OUTPUT_LIMIT_BYTES].decode("utf-8", "replace")
