"""Pure translation between the port and Docker's API: what is asked for, and whether the engine made it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from agp_agent.engine import ContainerSpec, Mount, Tmpfs
from agp_agent.lacks import Lack

Json = dict[str, Any]

LOG_FILES = 2
"""With one file a rotation destroys nearly everything."""

_LOG_SLACK_BYTES = 2**16
"""Room for the start marker and for what each record weighs beside its bytes."""

_MASKED = frozenset(
    {
        *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi"),
        *("/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
    }
)
_READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
"""Of the paths that engines mask or protect by themselves, those that all versions have in common."""

_FORBIDDEN_IN_HOST_CONFIG = (
    "Annotations", "Binds", "BlkioWeight", "CapAdd", "Cgroup", "CgroupParent", "ContainerIDFile", "DeviceCgroupRules",
    "DeviceRequests", "Devices", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "Links", "OomScoreAdj",
    "PortBindings", "StorageOpt", "Sysctls", "VolumeDriver", "VolumesFrom",
)  # fmt: skip
"""Whatever else would widen what the container may do: never asked for, so it must read back empty."""

CONFINED: Final[Json] = {
    "ReadonlyRootfs": True,
    "Privileged": False,
    "CapDrop": ["ALL"],
    "CgroupnsMode": "private",
    "IpcMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "UsernsMode": "",
    "PublishAllPorts": False,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
}
"""What every container of the agent is given, helpers and those that are never started included."""
NO_NEW_PRIVILEGES: Final = "no-new-privileges:true"


FIELDS_OF: Mapping[Lack, tuple[str, ...]] = {
    Lack.SWAP: ("MemorySwap",),
    Lack.MEMORY: ("Memory", "MemorySwap"),
    Lack.PIDS: ("PidsLimit",),
    Lack.CPUS: ("NanoCpus",),
    Lack.LOG_DRIVER: ("LogConfig",),
}
"""What is asked for in vain where an engine lacks something."""


def creation(spec: ContainerSpec, without: Iterable[Lack] = ()) -> Json:
    """The body of ``POST /containers/create`` for one container, lockdown included.

    ``without``: what the engine lacks and its operator accepts to be missing.
    """
    host_config = _host_config(spec)
    for lack in without:
        for field in FIELDS_OF[lack]:
            host_config.pop(field, None)
    return {
        "Image": spec.image,
        "Cmd": list(spec.command),
        "User": f"{spec.uid}:{spec.uid}",
        "Hostname": spec.hostname,
        "WorkingDir": spec.working_dir,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": dict(spec.labels),
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "Tty": False,
        "NetworkDisabled": spec.network is None,
        "Healthcheck": {"Test": ["NONE"]},
        "StopTimeout": spec.stop_timeout_s,
        "HostConfig": host_config,
    }


def _host_config(spec: ContainerSpec) -> Json:
    body = _lockdown(spec)
    if spec.network is not None:
        body["NetworkMode"] = spec.network
    if spec.runtime is not None:
        body["Runtime"] = spec.runtime
    return body


def _lockdown(spec: ContainerSpec) -> Json:
    return CONFINED | {
        "Mounts": [mount_body(mount) for mount in spec.mounts],
        "Tmpfs": {path: tmpfs_options(tmpfs, spec.uid) for path, tmpfs in spec.tmpfs.items()},
        "SecurityOpt": [NO_NEW_PRIVILEGES, *([f"seccomp={spec.seccomp}"] if spec.seccomp else [])],
        "Dns": list(spec.dns),
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,
        "OomKillDisable": False,
        "NanoCpus": round(spec.cpus * 1e9),
        "PidsLimit": spec.pids,
        "ShmSize": spec.shm_bytes,
        "Ulimits": [
            _ulimit("nofile", spec.nofile),
            _ulimit("core", 0),
            _ulimit("fsize", spec.file_size_bytes),
        ],
        "Init": True,
        "LogConfig": {"Type": "local", "Config": log_config(spec.log_limit_bytes)},
    }


def _ulimit(name: str, value: int) -> Json:
    return {"Name": name, "Soft": value, "Hard": value}


def log_config(limit_bytes: int) -> dict[str, str]:
    """Options of the ``local`` log driver for a log that holds at least so much."""
    # Compression is off because it costs processor time and saves nothing on files that live for one task.
    return {"max-size": str(limit_bytes + _LOG_SLACK_BYTES), "max-file": str(LOG_FILES), "compress": "false"}


def tmpfs_options(tmpfs: Tmpfs, uid: int) -> str:
    """Mount options of a folder in memory. Without uid, gid and mode it would inherit the image's owner."""
    exec_option = "exec" if tmpfs.executable else "noexec"
    return f"nosuid,nodev,{exec_option},size={tmpfs.size_bytes},uid={uid},gid={uid},mode=0700"


def mount_body(mount: Mount) -> Json:
    """One entry of ``HostConfig.Mounts``; unlike ``Binds`` it fails where the source is missing."""
    body: Json = {"Type": mount.kind, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.kind == "bind":
        return body | {"BindOptions": {"Propagation": "rprivate"}}
    return body | {"VolumeOptions": {"NoCopy": True}}


def differences(
    asked: Json, inspected: Json, image: Json, default_runtimes: Collection[str] = frozenset()
) -> tuple[str, ...]:
    """Names of all fields in which the container that was made differs from what was asked for.

    Args:
        asked: the body that it was created by.
        inspected: what inspect says of the container.
        image: the image's own configuration, which the engine merges with what was asked.
        default_runtimes: its names for what runs containers that ask for no other; none where it does not tell.
    """
    config, host, wanted = inspected["Config"], inspected["HostConfig"], asked["HostConfig"]
    forbidden = {field: None for field in _FORBIDDEN_IN_HOST_CONFIG if field not in wanted}
    as_it_is = asked.keys() - {"Env", "HostConfig", "Image", "Labels"}
    wrong = [
        *_unequal("Config", {key: asked[key] for key in as_it_is}, config),
        *_unequal("HostConfig", wanted | forbidden, host),
    ]
    checks = {
        # By the name that was asked for, as Docker keeps it, or by the image's id, as Podman does where that was asked.
        "Config.Image": asked["Image"] in {config.get("Image"), inspected.get("Image")},
        "Config.Entrypoint": _plain(config.get("Entrypoint"))
        == _plain(asked.get("Entrypoint") or image.get("Entrypoint")),
        "Config.Env": _environment(image.get("Env") or ()) | _environment(asked.get("Env") or ())
        == _environment(config.get("Env") or ()),
        "Config.Labels": asked["Labels"].items() <= (config.get("Labels") or {}).items(),
        "HostConfig.MaskedPaths": set(host.get("MaskedPaths") or ()) >= _MASKED,
        "HostConfig.ReadonlyPaths": set(host.get("ReadonlyPaths") or ()) >= _READ_ONLY,
        "HostConfig.NetworkMode": host.get("NetworkMode") in _network_modes(asked),
        "HostConfig.Runtime": "Runtime" in wanted or not default_runtimes or host.get("Runtime") in default_runtimes,
        "NetworkSettings.Networks": _networks(inspected) <= {wanted.get("NetworkMode")},
        # Docker names the profile only when the container starts: see `confined_by_apparmor`.
        "AppArmorProfile": not inspected.get("AppArmorProfile") or confined_by_apparmor(inspected),
        "ProcessLabel": ":spc_t:" not in (inspected.get("ProcessLabel") or ""),
        "Mounts": _made(inspected.get("Mounts") or ()) == _wanted(wanted.get("Mounts") or ()),
    }
    return tuple(sorted({*wrong, *(name for name, right in checks.items() if not right)}))


def confined_by_apparmor(inspected: Json) -> bool:
    """Whether a container that was started has the profile of the engine's own, and nobody chose another."""
    name = inspected.get("AppArmorProfile") or ""
    return name == "docker-default" or name.startswith("containers-default-")  # the latter, with a version, Podman's


def _unequal(place: str, asked: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    return [f"{place}.{key}" for key, value in asked.items() if _word(key, value) != _word(key, made.get(key))]


def _word(key: str, value: Any) -> Any:
    """One spelling for what engines write in two: some put CAP_ before the names of capabilities."""
    if key in {"CapAdd", "CapDrop"}:
        value = [str(name).removeprefix("CAP_") for name in value or ()]
    return _plain(value)


def _plain(value: Any) -> Any:
    """One spelling for all that engines write for "nothing", at every depth."""
    if isinstance(value, Mapping):
        value = {key: plain for key, one in value.items() if (plain := _plain(one)) is not None}
    elif isinstance(value, list):
        value = [_plain(one) for one in value]
    return value or None


def _environment(lines: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _network_modes(asked: Json) -> set[str]:
    """What engines call the network that was asked for; one that is disabled has the name of any, and is none."""
    network: str | None = asked["HostConfig"].get("NetworkMode")
    return {"default", "bridge", "none", ""} if network is None else {network}


def _networks(inspected: Json) -> set[str | None]:
    """The networks it is in, or will be when it starts; engines list the one that is disabled without an endpoint."""
    config, networks = inspected["Config"], (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    return {name for name, one in networks.items() if one.get("EndpointID") or not config.get("NetworkDisabled")}


def _wanted(mounts: Iterable[Json]) -> set[tuple[str, ...]]:
    return {(mount["Type"], mount["Source"], mount["Target"], "ro" if mount["ReadOnly"] else "rw") for mount in mounts}


def _made(mounts: Iterable[Json]) -> set[tuple[str, ...]]:
    return {
        (
            mount["Type"],
            mount.get("Name", "") if mount["Type"] == "volume" else mount["Source"],
            mount["Destination"],
            _access(mount),
        )
        for mount in mounts
        if mount["Type"] != "tmpfs"
    }


def _access(mount: Json) -> str:
    if mount.get("Propagation") not in {"", "rprivate", None}:
        return "propagates"
    return "rw" if mount["RW"] else "ro"
