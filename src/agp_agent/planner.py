"""Turns a runner into a plan for its container, with every hardening default. Pure."""

import dataclasses
from dataclasses import dataclass
from typing import Final

from agp_agent import seccomp
from agp_agent.catalog import PLAYBOOK, Runner
from agp_agent.catalog.runner import INVENTORY
from agp_agent.destinations import Destination
from agp_agent.engine import ContainerSpec, Mount, PullPolicy, Tmpfs
from agp_agent.secret_files import SECRETS_DIR, TMPFS_BYTES, Secret

PLAYBOOK_DIR: Final = "/playbook"
"""Where the slot is mounted, read-only."""

_LOG_FRAME_OVERHEAD: Final = 2
_LOG_MIN_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say where the runner says nothing."""

    task_timeout_s: float
    stop_grace_s: float
    output_limit_bytes: int


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All that the executor needs to run a playbook; it knows neither task nor journal."""

    runner: str
    pull: PullPolicy
    playbook_file: str
    timeout_s: float
    stop_grace_s: float
    output_limit_bytes: int
    container: ContainerSpec
    """Without slot: name, user and the playbook's mount are filled in by ``in_slot``."""
    secrets: tuple[Secret, ...] = ()
    """Travel with the release, and appear in ``/run/secrets``."""
    outbound: bool = False
    """Whether the container gets a network: the internet, and beside it only what ``allow`` names."""
    allow: tuple[Destination, ...] = ()
    uid: int | None = None
    """The operator's choice of a user for all containers of this runner; None: each gets one of its own."""

    def in_slot(self, name: str, uid: int, mount: Mount) -> ContainerSpec:
        """The container for one slot."""
        labels = {**self.container.labels, "agp.slot": name, "agp.uid": str(uid)}
        mounts = (mount, *self.container.mounts)
        return dataclasses.replace(self.container, name=name, uid=uid, mounts=mounts, labels=labels)


def plan(runner: Runner, limits: Limits, labels: dict[str, str]) -> RunSpec:
    """The plan for one container of ``runner``; ``labels`` are the agent's own."""
    playbook = f"{PLAYBOOK_DIR}/{runner.playbook_file}"
    container = ContainerSpec(
        name="",
        image=runner.image,
        command=tuple(playbook if word == PLAYBOOK else word for word in runner.command),
        uid=0,
        labels={**labels, "agp.runner": runner.name},
        env=_environment(runner),
        mounts=_mounts(runner),
        tmpfs=_tmpfs(runner),
        memory_bytes=runner.memory,
        cpus=runner.cpus,
        pids=runner.pids,
        # Small writes cost the log more than their own bytes.
        log_limit_bytes=max(_LOG_MIN_BYTES, _LOG_FRAME_OVERHEAD * limits.output_limit_bytes),
        stop_timeout_s=max(1, round(limits.stop_grace_s)),
        runtime=runner.runtime,
        seccomp=runner.seccomp.text if runner.seccomp else seccomp.profile(),
    )
    return RunSpec(
        runner=runner.name,
        pull=runner.pull,
        playbook_file=runner.playbook_file,
        timeout_s=runner.timeout_s or limits.task_timeout_s,
        stop_grace_s=limits.stop_grace_s,
        output_limit_bytes=limits.output_limit_bytes,
        container=container,
        secrets=runner.secret_files,
        outbound=runner.network == "outbound",
        allow=runner.allow,
        uid=runner.user,
    )


def _environment(runner: Runner) -> dict[str, str]:
    return ({"ANSIBLE_INVENTORY": INVENTORY} if runner.inventory else {}) | runner.env


def _mounts(runner: Runner) -> tuple[Mount, ...]:
    mounts = [Mount("bind", mount.source, mount.target, read_only=not mount.rw) for mount in runner.mounts]
    if runner.inventory:
        mounts.append(Mount("bind", runner.inventory, INVENTORY))
    return tuple(mounts)


def _tmpfs(runner: Runner) -> dict[str, Tmpfs]:
    return runner.tmpfs | ({SECRETS_DIR: Tmpfs(TMPFS_BYTES)} if runner.secrets else {})
