"""Section 5 of the CIS Docker Benchmark 1.6 (container runtime), as far as inspect can answer it. Pure.

Items that no container decides are left out: 5.1 (swarm mode), 5.23 and 5.24 (how people use docker exec), 5.28 (how
images are updated).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Json = Mapping[str, Any]
ITEMS_OF_PEOPLE: Final = ("5.1", "5.23", "5.24", "5.28")

_SENSITIVE: Final = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var/lib/docker")
_FIRST_FREE_PORT: Final = 1024


def _host(inspected: Json) -> Json:
    host: Json = inspected["HostConfig"]
    return host


def _options(inspected: Json) -> list[str]:
    return [str(option) for option in _host(inspected)["SecurityOpt"] or ()]


def _bindings(inspected: Json) -> list[Json]:
    return [one for bound in (_host(inspected)["PortBindings"] or {}).values() for one in bound or ()]


def _sources(inspected: Json) -> list[str]:
    return [mount["Source"].rstrip("/") or "/" for mount in inspected["Mounts"] if mount["Type"] == "bind"]


def _restarts_for_ever(inspected: Json) -> bool:
    policy = _host(inspected)["RestartPolicy"]
    return policy["Name"] not in {"", "no"} and not (
        policy["Name"] == "on-failure" and 0 < policy["MaximumRetryCount"] <= 5
    )


def _health_is_unknown(inspected: Json) -> bool:
    return (inspected["Config"].get("Healthcheck") or {}).get("Test") in (None, [], ["NONE"])


def _on_default_bridge(inspected: Json) -> bool:
    networks = inspected["NetworkSettings"]["Networks"]
    return any(name == "bridge" and one["EndpointID"] for name, one in networks.items())


FINDINGS: Final[dict[str, tuple[str, Callable[[Json], bool]]]] = {
    "5.2": ("no AppArmor profile", lambda one: not one["AppArmorProfile"] or one["AppArmorProfile"] == "unconfined"),
    "5.3": ("SELinux is switched off", lambda one: "label=disable" in _options(one)),
    "5.4": ("capabilities are kept", lambda one: _host(one)["CapDrop"] != ["ALL"] or bool(_host(one)["CapAdd"])),
    "5.5": ("privileged", lambda one: bool(_host(one)["Privileged"])),
    "5.6": ("a sensitive folder of the host is mounted", lambda one: bool({*_sources(one)} & {*_SENSITIVE})),
    "5.8": (
        "a privileged port",
        lambda one: any(int(b["HostPort"] or 65535) < _FIRST_FREE_PORT for b in _bindings(one)),
    ),
    "5.9": ("all ports are published", lambda one: bool(_host(one)["PublishAllPorts"])),
    "5.10": ("the host's network", lambda one: _host(one)["NetworkMode"] == "host"),
    "5.11": ("no limit of memory", lambda one: not _host(one)["Memory"]),
    "5.12": ("no limit of CPU", lambda one: not (_host(one)["NanoCpus"] or _host(one)["CpuShares"])),
    "5.13": ("a writable root file system", lambda one: not _host(one)["ReadonlyRootfs"]),
    "5.14": ("ports on every address", lambda one: any(b["HostIp"] in {"", "0.0.0.0", "::"} for b in _bindings(one))),  # noqa: S104
    "5.15": ("restarted without end", _restarts_for_ever),
    "5.16": ("the host's processes", lambda one: _host(one)["PidMode"] == "host"),
    "5.17": ("the host's IPC", lambda one: _host(one)["IpcMode"] == "host"),
    "5.18": ("devices of the host", lambda one: bool(_host(one)["Devices"])),
    "5.20": ("mounts are shared", lambda one: any(mount.get("Propagation") == "shared" for mount in one["Mounts"])),
    "5.21": ("the host's UTS namespace", lambda one: _host(one)["UTSMode"] == "host"),
    "5.22": ("no seccomp", lambda one: "seccomp=unconfined" in _options(one)),
    "5.25": ("another cgroup", lambda one: bool(_host(one)["CgroupParent"])),
    "5.26": ("new privileges", lambda one: not {"no-new-privileges", "no-new-privileges:true"} & {*_options(one)}),
    "5.27": ("no health check", _health_is_unknown),
    "5.29": ("no limit of processes", lambda one: not _host(one)["PidsLimit"] or _host(one)["PidsLimit"] < 0),
    "5.30": ("the default bridge", _on_default_bridge),
    "5.31": ("the host's user namespace", lambda one: _host(one)["UsernsMode"] == "host"),
    "5.32": ("the engine's socket", lambda one: any(source.endswith("docker.sock") for source in _sources(one))),
}
"""Of each item what is found, and whether it is."""


def findings(inspected: Json) -> dict[str, str]:
    """Every item that a container does not meet, with what was found."""
    return {number: said for number, (said, is_found) in FINDINGS.items() if is_found(inspected)}
