"""The attempts that are safe on anybody's engine, in the order of SECURITY.md's table."""

from functools import partial
from typing import Final

from agp_agent.doctor.escape import baits
from agp_agent.doctor.escape.attempt import Attempt
from agp_agent.doctor.escape.programs import files, kernel, network, processes

_NO_NETWORK: Final = "a network namespace with nothing in it but lo"
_METADATA: Final = [(address, 80) for address in baits.METADATA]

SAFE_ATTEMPTS: Final = (
    Attempt(
        1,
        "write, replace or remount the playbook",
        files.change_the_playbook,
        "read-only bind mount, no capability",
        baits.own_playbook,
    ),
    Attempt(
        2, "find the engine's socket", network.ask_the_engine, "no socket is in the container", baits.engine_sockets
    ),
    Attempt(
        3,
        "mount anything",
        files.mount_anything,
        "no CAP_SYS_ADMIN, seccomp",
        partial(baits.nothing, target="/tmp"),  # noqa: S108  of the container
    ),
    Attempt(
        4,
        "see, trace or kill a process of the host",
        processes.touch_a_process_of_the_host,
        "a PID namespace of its own",
        baits.victim,
    ),
    Attempt(5, "raw sockets and network devices", network.send_raw_packets, "no CAP_NET_RAW, no device", baits.nothing),
    Attempt(
        6,
        "the cloud's metadata addresses",
        network.connect_everywhere,
        _NO_NETWORK,
        partial(baits.nothing, addresses=_METADATA),
    ),
    Attempt(
        7,
        "sysctl, core_pattern, SysRq",
        kernel.change_kernel_settings,
        "read-only /proc/sys, not root",
        baits.settings_of_the_kernel,
    ),
    Attempt(
        8,
        "files of the agent, of the host and of other tasks",
        files.find_others_files,
        "a mount namespace with the image and one folder",
        baits.secret_file,
    ),
    Attempt(
        9,
        "setuid, su, file capabilities",
        processes.become_root,
        "no new privileges, no capability, nothing setuid in the image",
        baits.nothing,
    ),
    Attempt(10, "unshare, setns, clone3", processes.leave_namespaces, "seccomp, no CAP_SYS_ADMIN", baits.victim),
    Attempt(
        11,
        "keyctl, bpf, perf, userfaultfd, io_uring, kexec",
        kernel.use_rare_system_calls,
        "seccomp, no capability",
        baits.nothing,
    ),
    Attempt(
        12,
        "cgroups and their release agent",
        kernel.use_cgroups,
        "read-only /sys/fs/cgroup, no CAP_SYS_ADMIN",
        partial(baits.nothing, release_agent="/bin/true"),
    ),
    Attempt(
        13,
        "fill disk, shared memory and log",
        files.fill_disks,
        "read-only root, sized tmpfs, a log that rotates",
        partial(baits.nothing, log_bytes=2**20),
    ),
    Attempt(
        14,
        "use up processes, files, memory, watches",
        processes.exhaust,
        "limits of memory, processes and files; a user of its own",
        baits.nothing,
    ),
    Attempt(15, "chown, mknod, read the disk", files.own_and_make_devices, "no CAP_MKNOD, device cgroup", baits.disks),
    Attempt(16, "the host's addresses and local sockets", network.connect_everywhere, _NO_NETWORK, baits.listeners),
    Attempt(
        19,
        "memory devices, the kernel's log, clocks, reboot",
        kernel.use_the_machine,
        "device cgroup, no capability, seccomp",
        baits.disks,
    ),
    Attempt(
        20,
        "run what was written, reach out through /proc",
        files.execute_what_was_written,
        "noexec, no descriptor of the host is left open, engine's own programs read-only",
        baits.nothing,
    ),
    Attempt(
        21,
        "huge command lines and environments",
        processes.pass_huge_arguments,
        "the kernel's own limits, and the memory limit counts them",
        partial(baits.nothing, number=160, words=40),
    ),
    Attempt(
        22,
        "oom_score_adj",
        processes.change_oom_scores,
        "no CAP_SYS_RESOURCE, a PID namespace of its own",
        baits.victim,
    ),
    Attempt(
        23,
        "stop itself for ever",
        processes.stop_itself,
        "the deadline, which ends the container from outside",
        baits.nothing,
        timeout_s=2,
    ),
    Attempt(
        24,
        "links and fifos where the agent reads",
        files.plant_links_and_fifos,
        "the agent reads its own files alone, none that a playbook can write",
        partial(baits.nothing, place="/playbook", target="/etc/shadow"),
    ),
    Attempt(
        25,
        "the kernel's keyrings, others' environment",
        processes.read_keys_and_environments,
        "seccomp, masked /proc/keys, a PID namespace of its own",
        baits.victim,
    ),
)
"""17 and 18 need an agent at work: only the tests make them."""
