"""Prints SECURITY.md's table of the lockdown, from the very body that the agent sends to the engine.

``PYTHONPATH=tests python -m docs.lockdown_table``
"""

import json
from typing import Any, Final

from agp_agent import catalog
from agp_agent.docker_engine.translate import creation
from agp_agent.engine import Mount
from agp_agent.planner import Limits, plan
from agp_agent.settings import Settings

BEGIN: Final = "<!-- lockdown: made by tests/docs/lockdown_table.py -->"
END: Final = "<!-- end of lockdown -->"

_NO_LOCK: Final = frozenset(
    {"Image", "Cmd", "Labels", "AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "Tty", "WorkingDir", "Env"}
)
"""What a container is for, and not what holds it."""
_WHY: Final = {
    "User": "one of 20000 to 20255 for each container: never root, and with quotas of its own",
    "Hostname": "fixed: it tells nothing",
    "StdinOnce": "the container ends by itself where the agent dies before the release",
    "NetworkDisabled": "a network namespace with nothing but lo",
    "Healthcheck": "nothing of an image runs beside the playbook",
    "StopTimeout": "seconds from TERM to KILL (`AGP_STOP_GRACE_S`)",
    "Mounts": "the playbook, and nothing else of the host",
    "Tmpfs": "all that it can write, in memory that counts against its limit",
    "ReadonlyRootfs": "the image cannot be changed",
    "Privileged": "no way around all of this",
    "CapDrop": "no capability at all",
    "SecurityOpt": "setuid programs give nothing; the agent's own profile of system calls",
    "CgroupnsMode": "its own view of control groups",
    "IpcMode": "its own shared memory",
    "PidMode": "its own processes",
    "UTSMode": "its own name",
    "UsernsMode": "what the engine has by default; userns-remap holds",
    "PublishAllPorts": "no port of the host",
    "Dns": "no resolver of its own",
    "Memory": "bytes (`memory` of the runner)",
    "MemorySwap": "the same: no swap",
    "OomKillDisable": "the kernel may end it where its memory is used up",
    "NanoCpus": "1 CPU (`cpus`)",
    "PidsLimit": "processes and threads (`pids`)",
    "ShmSize": "bytes of /dev/shm",
    "Ulimits": "open files, no core files, the largest file",
    "Init": "the engine's init is process 1, and reaps",
    "RestartPolicy": "it runs once",
    "AutoRemove": "the agent removes it, after it has read how it ended",
    "LogConfig": "bounded, rotated; read only where the agent died meanwhile",
}


def asked() -> dict[str, Any]:
    """What the engine is asked for a container of the built-in shell runner, without what is no lock."""
    settings = Settings.model_construct()
    limits = Limits(settings.task_timeout_s, settings.stop_grace_s, settings.output_limit_bytes)
    spec = plan(catalog.load().runners["shell"], limits, {})
    body = creation(spec.in_slot("slot", 20000, Mount("bind", "/…/slots/…/playbook", "/playbook")))
    fields = {key: value for key, value in body.items() if key != "HostConfig"} | body["HostConfig"]
    return {key: value for key, value in fields.items() if key not in _NO_LOCK}


def table() -> str:
    """The table as Markdown. Raises ``KeyError`` for a field that nobody has explained."""
    lines = ["| field | value | what it does |", "|---|---|---|"]
    lines += [f"| `{key}` | `{_shown(value)}` | {_WHY[key]} |" for key, value in asked().items()]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        value = ["seccomp=…" if str(one).startswith("seccomp=") else one for one in value]
    return json.dumps(value, ensure_ascii=False).replace("|", "\\|")


if __name__ == "__main__":
    print(table())  # noqa: T201  that is what it is for
