"""What is told of a runner that was tried: for people, for programs, and whether it is as it should be. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agp_agent.catalog import Runner
from agp_agent.catalog.runner import INVENTORY
from agp_agent.runner_check.probe import METADATA, Sight
from agp_agent.visible import visible_line

_KIB: Final = 2**10
NO_CONTRACT: Final = (
    "its image does not keep the runner contract: its entry did not answer the agent's release; "
    "build it FROM agp/runner-shell or another runner's image, or as images/README.md says"
)

_ANSWERS: Final = {True: "answers", False: "does not answer", None: "was not tried: the image has no tool for it"}


@dataclass(frozen=True, slots=True)
class Report:
    """One runner, the image that it was tried in, and either what a playbook sees there or what was in the way."""

    runner: Runner
    image_digest: str | None = None
    error: str | None = None
    sight: Sight | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, one sentence each; none: it is as the catalog says."""
        if self.error is not None:
            return (self.error,)
        if self.sight is None:
            return ("what was to look around in it ended before it was done",)
        return tuple(_problems(self.runner, self.sight))

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "runner": self.runner.name,
            "image": self.runner.image,
            "image_digest": self.image_digest,
            "problems": list(self.problems),
            "sees": dict(_rows(self.runner, self.sight)) if self.sight else None,
        }

    def text(self) -> str:
        """For people: a few lines. Whatever came out of the image is made safe to look at."""
        digest = f" ({self.image_digest[:19]}…)" if self.image_digest else ""
        lines = [f"{self.runner.name}: {'not usable' if self.problems else 'fine'}, {self.runner.image}{digest}"]
        lines += [f"  problem      {visible_line(problem)}" for problem in self.problems]
        if self.sight:
            lines += [f"  {name:<12} {visible_line(value)}" for name, value in _rows(self.runner, self.sight)]
        return "\n".join(lines)


def _problems(runner: Runner, sight: Sight) -> Iterator[str]:
    yield from _too_much(runner, sight)
    yield from _missing(runner, sight)


def _too_much(runner: Runner, sight: Sight) -> Iterator[str]:
    """What its playbooks can do and should not: the engine was asked for less, and said that it had given less."""
    if sight.uid == 0:
        yield "its playbooks run as root"
    if sight.capabilities or sight.no_new_privileges is False:
        yield "its playbooks have capabilities, or can gain rights"
    allowed = {*runner.tmpfs, *(mount.target for mount in runner.mounts if mount.rw), "/run/secrets"}
    for place in sight.places:
        if place.path not in allowed:
            yield f"its playbooks can write to {place.path}, which the catalog does not say"
    if not _allows_metadata(runner) and any(
        reached for where, reached in sight.reached.items() if where.startswith(METADATA)
    ):
        yield f"its playbooks reach {METADATA}, where clouds keep the secrets of this machine"


def _missing(runner: Runner, sight: Sight) -> Iterator[str]:
    """What the catalog grants its playbooks and they cannot use."""
    if not sight.command:
        yield f"its command {runner.command[0]} is not in the image"
    for path in sight.unreadable:
        yield f"{path} is mounted, and the user of its playbooks cannot read it: give others the right to (chmod o+rX)"
    for secret in sorted({secret.name for secret in runner.secrets} - set(sight.secrets)):
        yield f"the secret {secret} did not arrive"


def _allows_metadata(runner: Runner) -> bool:
    return any(METADATA in str(one) for one in runner.allow)


def _rows(runner: Runner, sight: Sight) -> Iterator[tuple[str, str]]:
    yield "user", f"{sight.uid} ({sight.user or 'without a name'}), home {sight.home or 'none'}, {_rights(sight)}"
    yield "writable", _joined(_place(place.path, place.executable, place.size_bytes) for place in sight.places)
    yield "limits", _joined(_limits(runner, sight))
    yield "network", _joined(_network(runner, sight))
    yield "command", " ".join(runner.command)
    yield "tools", _joined(f"{name} {version}".strip() for name, version in sight.tools.items())
    yield "mounts", _joined(_mounts(runner))
    yield "secrets", _joined(f"/run/secrets/{name}" for name in sight.secrets)
    yield "environment", ", ".join(sight.environment) or "not told"


def _joined(parts: Iterator[str]) -> str:
    return " · ".join(parts) or "none"


def _rights(sight: Sight) -> str:
    if sight.capabilities:
        return f"capabilities {sight.capabilities:x}"
    return "no capabilities" + (", none to gain" if sight.no_new_privileges else "")


def _place(path: str, executable: bool, size_bytes: int | None) -> str:  # noqa: FBT001  the fields of a Place
    size = "of the host" if size_bytes is None else _size(size_bytes)
    return f"{path} {size} {'exec' if executable else 'noexec'}"


def _size(size_bytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < _KIB or size_bytes % _KIB or unit == "GiB":
            return f"{size_bytes} {unit}"
        size_bytes //= _KIB
    raise AssertionError("the last unit takes all")


def _limits(runner: Runner, sight: Sight) -> Iterator[str]:
    yield f"memory {_size(sight.memory_bytes or runner.memory)}"
    yield f"{runner.cpus:g} CPU"
    yield f"{sight.pids or runner.pids} processes"
    for name, value in sight.limits.items():
        yield f"{name} {_size(int(value)) if value.isdecimal() and name.endswith('size') else value}"
    if runner.timeout_s:
        yield f"{runner.timeout_s:g} s"


def _network(runner: Runner, sight: Sight) -> Iterator[str]:
    if runner.network == "none":
        yield f"none ({', '.join(sight.devices) or 'no device'})"
        return
    yield f"outbound ({', '.join(sight.devices)})"
    if sight.gateway:
        yield f"gateway {sight.gateway}"
    yield f"resolver {', '.join(sight.resolvers) or 'none'}"
    yield f"allowed beside the internet: {', '.join(map(str, runner.allow)) or 'nothing'}"
    for where, reached in sight.reached.items():
        yield f"{where} {_ANSWERS[reached]}"


def _mounts(runner: Runner) -> Iterator[str]:
    for mount in runner.mounts:
        yield f"{mount.target} {'writable' if mount.rw else 'read-only'} ({mount.source})"
    if runner.inventory:
        yield f"{INVENTORY} read-only ({runner.inventory})"
