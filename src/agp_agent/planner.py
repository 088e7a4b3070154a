"""Turns a runner into a plan for its container, with every hardening default. Pure."""

import dataclasses
from dataclasses import dataclass
from typing import Final

from agp_agent import seccomp
from agp_agent.catalog import PLAYBOOK, Runner
from agp_agent.engine import ContainerSpec, Mount, PullPolicy

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
    """Without slot: name, user and mount are filled in by ``in_slot``."""

    def in_slot(self, name: str, uid: int, mount: Mount) -> ContainerSpec:
        """The container for one slot."""
        labels = {**self.container.labels, "agp.slot": name, "agp.uid": str(uid)}
        return dataclasses.replace(self.container, name=name, uid=uid, mounts=(mount,), labels=labels)


def plan(runner: Runner, limits: Limits, labels: dict[str, str]) -> RunSpec:
    """The plan for one container of ``runner``; ``labels`` are the agent's own."""
    playbook = f"{PLAYBOOK_DIR}/{runner.playbook_file}"
    container = ContainerSpec(
        name="",
        image=runner.image,
        command=tuple(playbook if word == PLAYBOOK else word for word in runner.command),
        uid=0,
        labels={**labels, "agp.runner": runner.name},
        env=runner.env,
        mounts=(),
        tmpfs=runner.tmpfs,
        memory_bytes=runner.memory,
        cpus=runner.cpus,
        pids=runner.pids,
        # Small writes cost the log more than their own bytes.
        log_limit_bytes=max(_LOG_MIN_BYTES, _LOG_FRAME_OVERHEAD * limits.output_limit_bytes),
        stop_timeout_s=max(1, round(limits.stop_grace_s)),
        seccomp=seccomp.profile(),
    )
    return RunSpec(
        runner=runner.name,
        pull=runner.pull,
        playbook_file=runner.playbook_file,
        timeout_s=runner.timeout_s or limits.task_timeout_s,
        stop_grace_s=limits.stop_grace_s,
        output_limit_bytes=limits.output_limit_bytes,
        container=container,
    )
