"""The playbook that looks around in a runner, and what it saw. Pure."""

import ipaddress
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from agp_agent.catalog import Runner
from agp_agent.catalog.runner import INVENTORY

METADATA: Final = "169.254.169.254"
"""Where clouds tell a machine its own secrets: no playbook may reach it, unless the catalog names it."""

_METADATA_PORT: Final = 80
_REACHED: Final = 0
_NO_TOOL: Final = 2
_TOOLS: Final = (
    "sh", "bash", "python3", "ansible-playbook", "ssh", "sshpass", "rsync", "git", "curl", "jq", "perl", "ruby", "node",
    "go", "java", "pwsh", "kubectl", "helm", "terraform", "tofu", "psql", "mysql", "aws", "az", "gcloud",
)  # fmt: skip
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+\w*")
_SAID_CHARS: Final = 200
"""Behind that, programs tell of their licence and what they were built with."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def script(runner: Runner) -> str:
    """A shell script that tells what a playbook of this runner sees."""
    places = [mount.target for mount in runner.mounts] + ([INVENTORY] if runner.inventory else [])
    variables = {
        "COMMAND": runner.command[0],
        "MOUNTS": " ".join(places),
        "TARGETS": " ".join(f"{address}|{port}" for address, port in _targets(runner)),
        "TOOLS": " ".join(_TOOLS),
    }
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    return head + (files("agp_agent.runner_check") / "probe.sh").read_text()


def _targets(runner: Runner) -> list[tuple[str, int]]:
    """What is tried: each single address with a port that the catalog allows, and the metadata service."""
    if runner.network == "none":
        return []
    allowed = [
        (str(one.network.network_address), one.port)
        for one in runner.allow
        if one.port is not None and one.network.num_addresses == 1
    ]
    return [*dict.fromkeys([*allowed, (METADATA, _METADATA_PORT)])]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that can be written. ``size_bytes`` is None where it is not bounded by itself."""

    path: str
    executable: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """What a playbook sees. Names only of secrets and variables; None is what nothing in the image could tell."""

    uid: int | None
    user: str
    home: str
    capabilities: int
    no_new_privileges: bool | None
    places: tuple[Place, ...]
    memory_bytes: int | None
    pids: int | None
    limits: Mapping[str, str]
    devices: tuple[str, ...]
    gateway: str | None
    resolvers: tuple[str, ...]
    reached: Mapping[str, bool | None]
    tools: Mapping[str, str]
    command: str
    unreadable: tuple[str, ...]
    secrets: tuple[str, ...]
    environment: tuple[str, ...]


def read(output: str) -> Sight | None:
    """What the script told; None where this is not all of its output, or not its at all."""
    told: defaultdict[str, list[str]] = defaultdict(list)
    for line in output.splitlines():
        key, _, value = line.partition("\t")
        told[key].append(value)
    if told["probe"] != ["1"] or told["end"] != ["1"]:
        return None
    uid, user, home = (*told["user"][0].split(" ", 2), "", "", "")[:3] if told["user"] else ("", "", "")
    status = dict(
        value.replace("\t", " ").split(": ", 1) for value in told["status"] if ": " in value.replace("\t", " ")
    )
    cgroup = dict(value.split(" ", 1) for value in told["cgroup"])
    return Sight(
        uid=_number(uid),
        user=user,
        home=home,
        capabilities=int(status.get("CapBnd", "0").strip(), 16) | int(status.get("CapEff", "0").strip(), 16),
        no_new_privileges=status["NoNewPrivs"].strip() == "1" if "NoNewPrivs" in status else None,
        places=_places(told["writable"], told["mount"]),
        memory_bytes=_number(cgroup.get("memory.max") or cgroup.get("memory/memory.limit_in_bytes")),
        pids=_number(cgroup.get("pids.max") or cgroup.get("pids/pids.max")),
        limits=dict(_limit(value) for value in told["limit"]),
        devices=tuple(told["device"]),
        gateway=next((_gateway(value) for value in told["gateway"]), None),
        resolvers=tuple(told["resolver"]),
        reached=dict(_reach(value) for value in told["reach"]),
        tools=dict(_tool(value) for value in told["tool"]),
        command=next(iter(told["command"]), ""),
        unreadable=tuple(value.split(" ")[0] for value in told["granted"] if value.endswith(" unreadable")),
        secrets=tuple(told["secret"]),
        environment=tuple(sorted({name for name in told["environment"] if _NAME.fullmatch(name)})),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _places(writable: list[str], mounts: list[str]) -> tuple[Place, ...]:
    options = {path: rest[1] for path, *rest in (line.split(" ") for line in mounts) if len(rest) > 1}
    found = [line.rpartition(" ") for line in writable]
    return tuple(Place(path, can == "exec", _size(options.get(path, ""))) for path, _, can in dict.fromkeys(found))


def _size(options: str) -> int | None:
    match = re.search(r"(?:^|,)size=(\d+)([kmg]?)", options)
    return int(match[1]) * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[match[2]] if match else None


def _limit(line: str) -> tuple[str, str]:
    """Name and hard limit out of a line of ``/proc/self/limits``, whose columns stand two blanks or more apart."""
    columns = re.split(r" {2,}", line.strip())
    return columns[0].removeprefix("Max "), columns[2] if len(columns) > 2 else columns[-1]  # noqa: PLR2004  soft, hard


def _gateway(line: str) -> str:
    """The address of the default route: ``/proc/net/route`` has it as the number that it is in memory."""
    device, _, number = line.partition(" ")
    address = int(number, 16).to_bytes(4, "little")
    return f"{ipaddress.IPv4Address(address)} by {device}"


def _reach(line: str) -> tuple[str, bool | None]:
    target, _, code = line.rpartition(" ")
    address, _, port = target.partition("|")
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return where, None if _number(code) == _NO_TOOL else _number(code) == _REACHED


def _tool(line: str) -> tuple[str, str]:
    name, _, said = line.partition("\t")
    version = _VERSION.search(said[:_SAID_CHARS])
    return name, version[0] if version else ""
