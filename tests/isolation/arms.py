"""The two arms of each attempt that needs no agent at work: a scene on the host, and the hole of the control arm."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import docker

from agp_agent import seccomp
from agp_agent.doctor.escape import SAFE_ATTEMPTS, Attempt, baits
from agp_agent.doctor.escape.attempt import Host, Scene
from isolation import host
from isolation.control import NO_SECCOMP, ROOT, UNMASKED, Hole, bind

Judge = Callable[[Host], AbstractAsyncContextManager[Scene]]
ATTEMPTS: Final = {attempt.number: attempt for attempt in SAFE_ATTEMPTS}
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Arms:
    """One attempt, its scene on a host that the test may look at as root, and what lets it succeed."""

    attempt: Attempt
    judge: Callable[[docker.DockerClient], Judge]
    hole: Callable[[Mapping[str, Any]], Hole]

    @property
    def number(self) -> int:
        """Its place in the table."""
        return self.attempt.number


def _root(name: str, *capabilities: str, seccomp: bool = False, **more: Any) -> Hole:
    """Root with these capabilities; ``seccomp`` keeps the profile."""
    host_config = {"CapAdd": list(capabilities), **({} if seccomp else NO_SECCOMP), **more.pop("host", {})}
    return Hole(name, ROOT, host_config, **more)


_NETWORK: Final[dict[str, Any]] = {"config": {"NetworkDisabled": False}}

ARMS: Final = (
    Arms(
        ATTEMPTS[1],
        lambda _client: baits.own_playbook,
        lambda _facts: _root("root with CAP_SYS_ADMIN, no seccomp", "SYS_ADMIN", "DAC_OVERRIDE"),
    ),
    Arms(
        ATTEMPTS[2],
        lambda _client: baits.engine_sockets,
        lambda _facts: _root(
            "root, docker.sock mounted", seccomp=True, mounts=[bind("/var/run/docker.sock", "/var/run/docker.sock")]
        ),
    ),
    Arms(
        ATTEMPTS[3],
        lambda _client: host.shared_folder,
        lambda facts: _root(
            "root with CAP_SYS_ADMIN, no seccomp, a shared mount",
            "SYS_ADMIN",
            mounts=[bind(facts["shared"], "/bait", propagation="rshared")],
            facts={"target": "/bait/inside"},
        ),
    ),
    Arms(
        ATTEMPTS[4],
        lambda _client: baits.victim,
        lambda _facts: _root(
            "root in the host's PID namespace with CAP_KILL, SYS_PTRACE, no seccomp",
            *("KILL", "SYS_PTRACE"),
            host={"PidMode": "host"},
        ),
    ),
    Arms(
        ATTEMPTS[5],
        lambda _client: host.sniffer,
        lambda _facts: _root(
            "root with CAP_NET_RAW on a bridge, no seccomp", "NET_RAW", host={"NetworkMode": "bridge"}, **_NETWORK
        ),
    ),
    Arms(
        ATTEMPTS[6],
        lambda client: partial(host.fake_metadata, client=client),
        lambda facts: Hole("a bridge", host={"NetworkMode": facts["network"]}, **_NETWORK),
    ),
    Arms(
        ATTEMPTS[7],
        lambda _client: host.changed_sysctl,
        lambda _facts: _root("root, /proc unmasked and writable", seccomp=True, host=UNMASKED),
    ),
    Arms(
        ATTEMPTS[9],
        lambda client: partial(host.hostile_image, client=client),
        lambda facts: Hole(
            "new privileges allowed (the image has a setuid program in both)",
            host={"SecurityOpt": [f"seccomp={seccomp.profile()}"]},
            config={"Image": facts["image"]},
        ),
    ),
    Arms(
        ATTEMPTS[10],
        lambda _client: host.own_namespace,
        lambda _facts: _root(
            "root in the host's PID namespace with CAP_SYS_ADMIN, SYS_PTRACE, SYS_CHROOT, SETFCAP, no seccomp",
            *("SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT", "SETFCAP"),
            host={"PidMode": "host"},
        ),
    ),
    Arms(
        ATTEMPTS[11],
        lambda _client: host.keyrings,
        lambda _facts: _root(
            "root with CAP_SYS_ADMIN, SYS_PACCT, SYS_PTRACE, no seccomp",
            *("SYS_ADMIN", "SYS_PACCT", "SYS_PTRACE"),
        ),
    ),
    Arms(
        ATTEMPTS[12],
        lambda _client: host.release_agent,
        lambda _facts: _root(
            "root with CAP_SYS_ADMIN, no seccomp, the host's cgroup namespace",
            "SYS_ADMIN",
            "DAC_OVERRIDE",
            host={"CgroupnsMode": "host"},
        ),
    ),
    Arms(
        ATTEMPTS[13],
        lambda client: partial(host.disk_usage, client=client),
        lambda _facts: _root(
            "root, a writable root file system, a log without limit",
            seccomp=True,
            host={"ReadonlyRootfs": False, "LogConfig": {"Type": "json-file", "Config": {}}},
        ),
    ),
    Arms(
        ATTEMPTS[15],
        lambda _client: host.disk,
        lambda _facts: _root(
            "root with CAP_MKNOD and CAP_DAC_READ_SEARCH, all devices allowed, no seccomp",
            "MKNOD",
            "DAC_READ_SEARCH",
            host={"DeviceCgroupRules": ["a *:* rwm"]},
            facts={"place": "/dev"},
        ),
    ),
    Arms(
        ATTEMPTS[16],
        lambda _client: baits.listeners,
        lambda _facts: Hole("the host's network", host={"NetworkMode": "host"}, **_NETWORK),
    ),
    Arms(
        ATTEMPTS[19],
        lambda _client: host.kernel_log,
        lambda _facts: _root(
            "root with CAP_SYSLOG, SYS_TIME, SYS_BOOT, SYS_RAWIO and /dev/kmsg, no seccomp",
            "SYSLOG",
            "SYS_TIME",
            "SYS_BOOT",
            "SYS_RAWIO",
            host={"Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "rwm"}]},
        ),
    ),
    Arms(
        ATTEMPTS[20],
        lambda _client: host.running_copy,
        lambda _facts: Hole(
            "/work without noexec", host={"Tmpfs": {"/work": "exec,mode=1777,size=64m", "/tmp": "exec,size=64m"}}
        ),
    ),
    Arms(
        ATTEMPTS[21],
        lambda _client: host.memory_of_arguments,
        lambda _facts: Hole("2 GiB of memory", host={"Memory": 2048 * _MIB, "MemorySwap": 2048 * _MIB}),
    ),
    Arms(
        ATTEMPTS[22],
        lambda _client: baits.victim,
        lambda _facts: _root("root in the host's PID namespace", seccomp=True, host={"PidMode": "host"}),
    ),
    Arms(
        ATTEMPTS[25],
        lambda _client: host.key_and_environment,
        lambda _facts: _root(
            "root in the host's PID namespace with CAP_SYS_PTRACE, no seccomp",
            "SYS_PTRACE",
            host={"PidMode": "host", **UNMASKED},
        ),
    ),
)
