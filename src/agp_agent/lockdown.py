"""What confines a container, as data for people: the defaults, and what the catalog made of them. Pure."""

from collections.abc import Collection, Mapping

from agp_agent import seccomp
from agp_agent.engine import ContainerSpec, Mount
from agp_agent.lacks import Lack

_MIB = 2**20


_NOT_ENFORCED = "not enforced: the engine cannot, and AGP_ACCEPT_DEGRADED accepts it"
_MEASURES_OF: Mapping[Lack, tuple[str, ...]] = {
    Lack.SWAP: ("swap",),
    Lack.MEMORY: ("memory", "swap"),
    Lack.PIDS: ("processes",),
    Lack.CPUS: ("cpus",),
    Lack.LOG_DRIVER: ("log",),
}


def lockdown(spec: ContainerSpec, *, network: str, without: Collection[Lack] = ()) -> dict[str, str]:
    """Every measure by its name, as it is asked of the engine and read back after each creation.

    ``network`` is what its plan grants; ``without``: what the engine lacks and its operator accepts to be missing.
    """
    missing = {measure for lack in without for measure in _MEASURES_OF[lack]}
    asked = _asked(spec, network)
    return {measure: _NOT_ENFORCED if measure in missing else value for measure, value in asked.items()}


def _asked(spec: ContainerSpec, network: str) -> dict[str, str]:
    return {
        "user": str(spec.uid) if spec.uid else "one of its own for each container, never root",
        "capabilities": "none",
        "new privileges": "never",
        "privileged": "never",
        "seccomp": "the agent's profile" if spec.seccomp == seccomp.profile() else "the catalog's profile",
        "apparmor": "the engine's profile, where the host has AppArmor",
        "namespaces": "private: pid, ipc, uts, mount, network, cgroup",
        "devices": "none",
        "ports": "none",
        "groups": "none",
        "root file system": "read-only",
        "writable": _writable(spec),
        "mounts": ", ".join(map(_mount, spec.mounts)) or "the playbook alone, read-only",
        "memory": f"{spec.memory_bytes // _MIB} MiB",
        "swap": "none",
        "cpus": f"{spec.cpus:g}",
        "processes": str(spec.pids),
        "open files": str(spec.nofile),
        "largest file": f"{spec.file_size_bytes // _MIB} MiB",
        "core files": "none",
        "shared memory": f"{spec.shm_bytes // _MIB} MiB",
        "network": network,
        "environment": ", ".join(spec.env) or "the image's alone",
        "runtime": spec.runtime or "the engine's default",
        "process 1": "the engine's init",
        "restart": "never",
        "log": f"local, {spec.log_limit_bytes // _MIB} MiB",
    }


def _writable(spec: ContainerSpec) -> str:
    folders = [
        f"{path} ({tmpfs.size_bytes // _MIB} MiB in memory, {'exec' if tmpfs.executable else 'noexec'})"
        for path, tmpfs in spec.tmpfs.items()
    ]
    return ", ".join([*folders, *(f"{mount.target} (host)" for mount in spec.mounts if not mount.read_only)])


def _mount(mount: Mount) -> str:
    return f"{mount.source} at {mount.target}, {'read-only' if mount.read_only else 'writable'}"
