"""The checks: each takes the facts and gives one finding. Pure."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from agp_agent.doctor.facts import Facts, RunnerFacts
from agp_agent.engine import OWN_IMAGES
from agp_agent.lacks import Lack, listed

_GIB: Final = 2**30
_FREE_FAIL_BYTES: Final = 64 * 2**20
_CLOCK_OFF_S: Final = 2.0
_TAILNET: Final = ip_network("100.64.0.0/10")
_RUNC_LEAKED_DESCRIPTOR: Final = (1, 1, 12)
_RUNC_FIRST_MENDED_LINE: Final = (1, 2)
_RUNC_PROC_RACES: Final = (((1, 2), (1, 2, 8)), ((1, 3), (1, 3, 3)))
"""Each line of releases with the one that mended it; later lines never had them."""
_DEBIAN_LEAKED_DESCRIPTOR: Final = re.compile(r"1\.1\.5\+ds1-1\+deb12u[1-9]")
_BEFORE_RELEASE: Final = re.compile(r"[-~]rc")
_KERNEL_OLDEST: Final = (5, 10)


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``means`` and ``mend`` are empty where all is well."""

    check: str
    level: Level
    said: str
    means: str = ""
    mend: str = ""


def _ok(check: str, said: str) -> Finding:
    return Finding(check, Level.OK, said)


def _warn(check: str, said: str, means: str, mend: str) -> Finding:
    return Finding(check, Level.WARN, said, means, mend)


def _fail(check: str, said: str, means: str, mend: str) -> Finding:
    return Finding(check, Level.FAIL, said, means, mend)


def configuration(facts: Facts) -> Finding:
    """The settings, as ``serve`` needs them."""
    if not facts.configuration:
        return _ok("configuration", "settings, tokens and catalog can be used")
    said = " ".join(facts.configuration)
    return _fail(
        "configuration", said, "`agp-agent serve` would not start.", "Mend each; `config check` tells the same."
    )


def engine(facts: Facts) -> Finding:
    """Whether the engine answers, and who it is."""
    if facts.engine is None:
        return _fail("engine", facts.engine_problem, "No task can run.", "Start it, or give DOCKER_HOST its address.")
    one = facts.engine
    if one.kind == "Podman":
        return _fail(
            "engine",
            f"Podman {one.version}",
            "Its Docker socket cannot carry the lockdown (network, tmpfs, seccomp, stdin): every container is refused.",
            "Use Docker; rootless Docker where it is the root that matters.",
        )
    return _ok("engine", f"{one.name}: {one.version}, API {one.api_version}, {one.cores} cores, {one.operating_system}")


def socket(facts: Facts) -> Finding:
    """Who may use the engine."""
    where = facts.endpoint
    if where.startswith("http://"):
        return _fail(
            "socket",
            f"{where} is open to whoever reaches it",
            "The engine's API is root on its host, here without a password.",
            "Use the unix socket, or TLS (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH).",
        )
    if facts.socket_mode is not None and facts.socket_mode & 0o006:
        return _fail(
            "socket",
            f"{where} has mode {facts.socket_mode:04o}",
            "Every user of this machine is root on it through this socket.",
            "chmod 660 it, and let only the agent into its group.",
        )
    return _ok("socket", f"{where}; whoever may use it is root on the engine's host, the agent included")


def runtime(facts: Facts) -> Finding:
    """The program that makes containers, and its known holes."""
    one = facts.engine
    if one is None:
        return _unknown("runtime")
    said = f"{one.default_runtime} {one.runtime_version or 'of unknown version'}"
    number = _numbers(one.runtime_version)
    if one.default_runtime != "runc" or len(number) != len(_RUNC_LEAKED_DESCRIPTOR):
        return _unjudged_runtime(said)
    mend = "Update runc; a distribution may have mended an older number (its security tracker knows)."
    if number < _RUNC_LEAKED_DESCRIPTOR and not _DEBIAN_LEAKED_DESCRIPTOR.match(one.runtime_version):
        means = "Older than 1.1.12: an image can get out through a descriptor that is left open (CVE-2024-21626)."
        return _warn("runtime", said, means, mend)
    if number[:2] < _RUNC_FIRST_MENDED_LINE or any(line <= number < mended for line, mended in _RUNC_PROC_RACES):
        means = (
            "Older than 1.2.8 and 1.3.3: races while /proc is masked let a hostile image write to it "
            "(CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)."
        )
        return _warn("runtime", said, means, mend)
    return _unjudged_runtime(said) if _BEFORE_RELEASE.search(one.runtime_version) else _ok("runtime", said)


def _unjudged_runtime(said: str) -> Finding:
    """Another program, a version without a number, or one from before its release."""
    means = "The doctor knows the holes of runc's releases alone."
    return _unknown("runtime", f"{said}: whether it has known holes is not known", means, "See its own advisories.")


def kernel(facts: Facts) -> Finding:
    """The wall that all containers share."""
    if facts.engine is None:
        return _unknown("kernel")
    release = facts.engine.kernel
    number = _numbers(release)[:2]
    if not number:
        return _unknown("kernel", f"{release or 'a kernel'} of unknown version")
    if number < _KERNEL_OLDEST:
        means = "Nobody mends kernels older than 5.10 any more, and the kernel is the wall around every container."
        return _warn("kernel", release, means, "Update the kernel of the engine's host.")
    return _ok("kernel", release)


def cgroups(facts: Facts) -> Finding:
    """What limits containers, and whether every limit can be had."""
    one = facts.engine
    if one is None:
        return _unknown("cgroups")
    if missing := one.lacks - {Lack.LOG_DRIVER}:
        judged = _warn if missing <= facts.accepted else _fail
        means = "A task can use up what is not limited; its container is refused unless AGP_ACCEPT_DEGRADED names it."
        mend = "Enable the cgroup controllers (delegation, swapaccount=1), or use cgroup v2."
        return judged("cgroups", f"cannot be limited: {listed(missing)}", means, mend)
    if one.cgroup_version == "1":
        means = "Version 1 has release agents, which the kernel runs as root (attempt 12), and is being given up."
        return _warn("cgroups", "version 1", means, "Boot with systemd.unified_cgroup_hierarchy=1.")
    if not one.cgroup_version:
        return _unknown("cgroups", "memory, swap and processes are limited; by which version is not known")
    return _ok("cgroups", f"version {one.cgroup_version}, memory, swap and processes are limited")


def live_restore(facts: Facts) -> Finding:
    """What a restart of the engine does to tasks."""
    if facts.engine is None:
        return _unknown("live restore")
    if facts.engine.live_restore:
        return _ok("live restore", "tasks outlive a restart of the engine")
    means = "A restart or an update of the engine ends every running task (reported as lost or failed)."
    return _warn("live restore", "off", means, 'Set "live-restore": true in /etc/docker/daemon.json.')


def root(facts: Facts) -> Finding:
    """Whether root in a container is root of the host."""
    if facts.engine is None:
        return _unknown("root")
    for name, said in (("rootless", "the engine has no root"), ("userns", "containers have user ids of their own")):
        if name in facts.engine.security:
            return _ok("root", said)
    means = "A hole in kernel or engine that makes a task root of its container makes it root of the host."
    return _warn(
        "root", "neither rootless nor userns-remap", means, "Use rootless Docker, or userns-remap where you can."
    )


def seccomp(facts: Facts) -> Finding:
    """Whether system calls can be filtered."""
    if facts.engine is None:
        return _unknown("seccomp")
    if "seccomp" in facts.engine.security:
        return _ok("seccomp", "the agent's own profile is used")
    means = "No system call can be refused: containers of tasks are refused instead."
    return _fail("seccomp", "not in this engine or kernel", means, "Use a kernel with CONFIG_SECCOMP_FILTER.")


def access_control(facts: Facts) -> Finding:
    """A second wall, of the kernel's security modules."""
    if facts.engine is None:
        return _unknown("access control")
    there = [name for name in ("apparmor", "selinux") if name in facts.engine.security]
    if there:
        return _ok("access control", f"{there[0]} is enforced")
    means = "There is no second wall behind namespaces, capabilities and seccomp."
    return _warn("access control", "neither AppArmor nor SELinux", means, "Enable one of them on the engine's host.")


def log_driver(facts: Facts) -> Finding:
    """What completes output after the agent's own death."""
    if facts.engine is None:
        return _unknown("log driver")
    if Lack.LOG_DRIVER not in facts.engine.lacks:
        return _ok("log driver", "local")
    judged = _warn if Lack.LOG_DRIVER in facts.accepted else _fail
    means = (
        "What a task prints while the agent is away is kept less exactly; refused unless AGP_ACCEPT_DEGRADED names it."
    )
    return judged("log driver", "this engine has no driver `local`", means, "Use an engine that has it.")


def disk(facts: Facts) -> Finding:
    """Room for journal, results and spool."""
    if facts.free_bytes is None:
        return _fail(
            "disk", f"{facts.state_dir} is not there and cannot be made", "The agent keeps all in it.", "Make it."
        )
    said = f"{facts.free_bytes / _GIB:.1f} GiB free for {facts.state_dir}"
    if facts.free_bytes < _FREE_FAIL_BYTES:
        return _fail("disk", said, "With less than 64 MiB tasks are refused with 503.", "Free space, or AGP_STATE_DIR.")
    if facts.free_bytes < _GIB:
        return _warn("disk", said, "Results of 14 days (AGP_RESULT_RETENTION_S) may not fit.", "Free at least 1 GiB.")
    return _ok("disk", said)


def clock(facts: Facts) -> Finding:
    """Whether times in audit and retention mean anything."""
    if facts.clock_offset_s is not None and abs(facts.clock_offset_s) > _CLOCK_OFF_S:
        said = f"the engine's host is {facts.clock_offset_s:+.1f} s from this one"
        return _warn("clock", said, "Times in audit and results do not agree.", "Run NTP on both.")
    if facts.clock_synchronised is False:
        means = "Times in the audit trail may be wrong, and retention counts by them."
        return _warn("clock", "the kernel says that it is not synchronised", means, "Run chrony or systemd-timesyncd.")
    if facts.clock_synchronised:
        return _ok("clock", "synchronised")
    return _unknown("clock") if facts.clock_offset_s is None else _ok("clock", "agrees with the engine's host")


def _address_of(host: str) -> IPv4Address | IPv6Address | None:
    """None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def listening(facts: Facts) -> Finding:
    """Who can reach the agent's API."""
    one = facts.listening
    if one is None:
        return _unknown("address")
    said = one.host + (f" on {one.interface}" if one.interface else "")
    if one.problem:
        mend = "Wait for the device (tailscaled), or mend AGP_HOST and AGP_INTERFACE."
        return _fail("address", f"{said}: {one.problem}", "`agp-agent serve` cannot listen there.", mend)
    address = _address_of(one.host)
    if address is not None and address.is_unspecified and not one.interface:
        means = "The API answers on every network of this machine; the token is all that stands before it."
        return _warn("address", said, means, "Listen on the tailnet alone: AGP_HOST with AGP_INTERFACE.")
    if address is not None and address in _TAILNET and not one.interface:
        means = "Linux answers for this address on every device: a host beside this one can reach it by a static route."
        return _warn("address", said, means, "Set AGP_INTERFACE=tailscale0 beside it.")
    return _ok("address", said)


def dashboard(facts: Facts) -> Finding:
    """Whether results can be delivered."""
    if facts.dashboard_url is None:
        return _warn("dashboard", "AGP_DASHBOARD_URL is not set", "Results go nowhere.", "Set it before `serve`.")
    if facts.dashboard_problem:
        means = "Results are kept and tried again until it answers."
        said = f"{facts.dashboard_proxy or facts.dashboard_url}: {facts.dashboard_problem}"
        return _warn(
            "dashboard", said, means, "Check the URL, AGP_DASHBOARD_CA_FILE, AGP_DASHBOARD_PROXY, the network."
        )
    if facts.dashboard_proxy:
        said = f"the proxy {facts.dashboard_proxy} answers; whether {facts.dashboard_url} does is not known"
        means = "The doctor sends nothing, so it comes as far as the proxy."
        return _unknown("dashboard", said, means, "See in /status whether results are delivered.")
    return _ok("dashboard", f"{facts.dashboard_url} answers")


def neighbours(facts: Facts) -> Finding:
    """Another agent under the same name."""
    if facts.strangers is None:
        return _unknown("neighbours")
    if not facts.strangers:
        return _ok("neighbours", f"no other agent is called {facts.agent_id}" if facts.agent_id else "none")
    said = f"{len(facts.strangers)} containers of an agent with the name {facts.agent_id!r} and another state directory"
    means = f"Two agents have one name, or a state directory was lost: {', '.join(facts.strangers)}."
    return _warn("neighbours", said, means, "Give each its own AGP_AGENT_ID; remove what nobody owns by hand.")


def runners(facts: Facts) -> Iterator[Finding]:
    """For each runner: its image, and a container of it that was read back."""
    for name, runner in facts.runners.items():
        check = f"runner {name}"
        if runner.problem:  # first: an engine that refused to look has not said that the image is missing
            mend = "Mend the engine, or the runner in the catalog; the agent will not run anything weaker."
            yield _fail(check, runner.problem, "Its tasks are refused.", mend)
        elif runner.digest is None:
            yield _without_image(check, runner)
        else:
            fence = ", and its fence holds" if runner.outbound else ""
            yield _ok(check, f"{runner.image} ({runner.digest[:19]}): the whole lockdown reads back{fence}")


def _without_image(check: str, runner: RunnerFacts) -> Finding:
    said = f"{runner.image} is not on the engine"
    own = runner.image.startswith(OWN_IMAGES)
    mend = "`make images`, or load it by hand." if own else f"docker pull {runner.image}, or load it by hand."
    if not runner.pulls:
        return _fail(check, said, "Its tasks end as image_unavailable.", mend)
    if own:
        return _warn(check, said, "Its first task asks a public registry, where anybody may have it.", mend)
    return _warn(check, said, "Its first task waits for the pull.", mend)


def _unknown(
    check: str,
    said: str = "not known",
    means: str = "The engine, or this machine, did not tell.",
    mend: str = "See the check `engine`.",
) -> Finding:
    """A warning: what cannot be known is not well."""
    return _warn(check, said, means, mend)


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: ``v1.1.12-0-g51d5e94`` is (1, 1, 12)."""
    match = re.match(r"v?(\d+(?:\.\d+)+)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


CHECKS: Final[tuple[Callable[[Facts], Finding], ...]] = (
    configuration, engine, socket, runtime, kernel, cgroups, live_restore, root, seccomp, access_control, log_driver,
    disk, clock, listening, dashboard, neighbours,
)  # fmt: skip


def examine(facts: Facts) -> list[Finding]:
    """All findings, in the order in which one reads them."""
    return [*(check(facts) for check in CHECKS), *runners(facts)]
