"""Helper containers that set rules in another container's network namespace. Calls block."""

from collections.abc import Mapping
from typing import Any, Final

from docker import APIClient
from requests.exceptions import RequestException

from agp_agent.docker_engine.frames import Demultiplexer
from agp_agent.docker_engine.http import create_container, get_chunks
from agp_agent.docker_engine.reading import lacks
from agp_agent.docker_engine.translate import FIELDS_OF, Json, log_config, widened
from agp_agent.engine import Helped
from agp_agent.errors import LockdownRefused
from agp_agent.lacks import Lack

_OUTPUT_LIMIT_BYTES: Final = 2**20
_MEMORY_BYTES: Final = 64 * 2**20
_PIDS: Final = 16
_TIMED_OUT: Final = 124


def run_beside(
    client: APIClient,
    container_id: str,
    image: str,
    command: tuple[str, ...],
    labels: Mapping[str, str],
    accepted: frozenset[Lack],
) -> Helped:
    """Create, compare, start, wait, read, remove. ``accepted``: what it may lack where the engine cannot do it."""
    joined_id = client.inspect_container(container_id)["Id"]
    body = helper_body(joined_id, image, command, labels)
    for lack in accepted and accepted & lacks(client.info()):
        for field in FIELDS_OF[lack]:
            body["HostConfig"].pop(field, None)
    helper_id = create_container(client, body)
    try:
        if wrong := helper_differences(body, client.inspect_container(helper_id)):
            raise LockdownRefused(
                f"the engine made a helper that differs from what was asked for in {', '.join(wrong)}"
            )
        client.start(helper_id)
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
        "HostConfig": {
            "NetworkMode": f"container:{joined_id}",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN"],
            "SecurityOpt": ["no-new-privileges:true"],
            "ReadonlyRootfs": True,
            "Privileged": False,
            "CgroupnsMode": "private",
            "IpcMode": "private",
            "Memory": _MEMORY_BYTES,
            "MemorySwap": _MEMORY_BYTES,
            "PidsLimit": _PIDS,
            "ShmSize": 2**20,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "LogConfig": {"Type": "local", "Config": log_config(_OUTPUT_LIMIT_BYTES)},
        },
    }


def helper_differences(asked: Json, inspected: Json) -> list[str]:
    """Names of the fields in which the helper that was made has other rights than it should."""
    host: Json = inspected["HostConfig"]
    wrong = [field for field, value in asked["HostConfig"].items() if _plain(field, host.get(field)) != value]
    wrong += [field for field in ("Mounts", "PidMode", "UTSMode", "UsernsMode") if host.get(field)]
    wrong += widened(inspected)
    if inspected.get("Mounts"):
        wrong.append("Mounts")
    return [*wrong, *_another_program(asked, inspected)]


def _another_program(asked: Json, inspected: Json) -> list[str]:
    """What it would run instead, or as whom. The image goes by its name, as Docker says, or by its id."""
    config: Json = inspected["Config"]
    wrong = [field for field in ("Entrypoint", "Cmd", "User") if (config.get(field) or []) != asked[field]]
    return wrong if asked["Image"] in {config.get("Image"), inspected.get("Image")} else [*wrong, "Image"]


def _plain(field: str, value: Any) -> Any:
    """One spelling for what engines write in two: some put CAP_ before the names of capabilities."""
    if field in {"CapAdd", "CapDrop"}:
        return [str(name).removeprefix("CAP_") for name in value or ()]
    return value


def _printed(client: APIClient, helper_id: str) -> str:
    chunks = get_chunks(client, {"stdout": "1", "stderr": "1", "follow": "0"}, "containers", helper_id, "logs")
    demultiplexer, output = Demultiplexer(), bytearray()
    for chunk in chunks:
        for piece in demultiplexer.feed(chunk):
            output += piece.data
    return output[:_OUTPUT_LIMIT_BYTES].decode("utf-8", "replace")
