"""Pure reading of the engine's answers into the port's words."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from docker.utils import parse_repository_tag

from agp_agent.docker_engine.translate import Json
from agp_agent.engine import ContainerState, EngineInfo, History, Image, Mount, OwnedContainer
from agp_agent.lacks import Lack

_NEVER = "0001-01-01T00:00:00Z"
_REMEMBERED = 256
"""Events that dockerd keeps in memory, of all kinds."""


def container_state(inspected: Json) -> ContainerState:
    """What inspect says of a container's life. One that never ran has not ended, whatever its exit code says."""
    state = inspected["State"]
    running = bool(state["Running"])
    started_s, ended_s = _times_s(state)
    return ContainerState(
        container_id=inspected["Id"],
        running=running,
        ended=not running and state["StartedAt"] != _NEVER,
        exit_code=state["ExitCode"],
        oom_killed=bool(state["OOMKilled"]),
        error=state["Error"],
        ran_s=ended_s - started_s if started_s and ended_s else None,
        ended_s=ended_s,
        paused=bool(state.get("Paused")),
    )


def _times_s(state: Json) -> tuple[float | None, float | None]:
    """When it started, and when it ended, by the clock of the engine's host."""
    started, finished = state["StartedAt"], state.get("FinishedAt", _NEVER)
    if state["Running"] or _NEVER in {started, finished}:
        return None, None
    return float(unix_time(started)), float(unix_time(finished))


def owned_container(listed: Json) -> OwnedContainer:
    """One line of the list of containers. While a container is being removed it may have no name any more."""
    names = listed.get("Names") or [""]
    return OwnedContainer(
        container_id=listed["Id"],
        name=names[0].removeprefix("/"),
        labels=listed.get("Labels") or {},
        created_at_s=float(listed["Created"]),
    )


def host_mounts(inspected: Json) -> list[Mount]:
    """A container's bind mounts and volumes, each as the folder on the engine's host that is behind it."""
    return [
        Mount(kind="bind", source=mount["Source"], target=mount["Destination"])
        for mount in inspected.get("Mounts") or ()
        if mount["Type"] in {"bind", "volume"}
    ]


def history(container_id: str, events: Iterable[Json]) -> History:
    """Count what the engine remembers of one container; ``events`` are all that it remembers of anything."""
    events = list(events)
    own = [event for event in events if event.get("Actor", {}).get("ID") == container_id]
    actions = [event["Action"] for event in own]
    deaths = [event for event in own if event["Action"] == "die"]
    code = deaths[-1]["Actor"].get("Attributes", {}).get("exitCode", "") if deaths else ""
    return History(
        created="create" in actions,
        kills=actions.count("kill"),
        died=bool(deaths),
        died_s=deaths[-1]["timeNano"] / 1e9 if deaths and "timeNano" in deaths[-1] else None,
        exit_code=int(code) if code.isdecimal() else None,
        remembers_from_s=events[0].get("timeNano", 0) / 1e9 if len(events) >= _REMEMBERED else 0.0,
    )


def engine_info(info: Json, api_version: str) -> EngineInfo:
    """Who the engine is. What an older or another engine does not tell stays empty, and is not lacking."""
    clock = info.get("SystemTime")
    return EngineInfo(
        name=info["Name"],
        version=info["ServerVersion"],
        cores=info["NCPU"],
        memory_bytes=info["MemTotal"],
        api_version=api_version,
        operating_system=info.get("OperatingSystem", ""),
        kernel=info.get("KernelVersion", ""),
        clock_s=float(unix_time(clock)) if clock else None,
        default_runtime=info.get("DefaultRuntime", ""),
        runtime_version=(info.get("RuncCommit") or {}).get("ID", ""),
        cgroup_version=info.get("CgroupVersion", ""),
        live_restore=info.get("LiveRestoreEnabled", False),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        security=tuple(one.removeprefix("name=").partition(",")[0] for one in info.get("SecurityOptions") or ()),
        lacks=lacks(info),
        kind="Podman" if "BuildahVersion" in info else "Docker",
    )


def lacks(info: Json) -> frozenset[Lack]:
    """What of the lockdown the engine says it cannot do; what it does not speak of it is trusted to do."""
    drivers = (info.get("Plugins") or {}).get("Log")
    missing = {
        Lack.SWAP: info.get("SwapLimit") is False,
        Lack.MEMORY: info.get("MemoryLimit") is False,
        Lack.PIDS: info.get("PidsLimit") is False,
        Lack.CPUS: info.get("CpuCfsQuota") is False,
        Lack.LOG_DRIVER: drivers is not None and "local" not in drivers,
    }
    return frozenset(lack for lack, is_missing in missing.items() if is_missing)


def image(name: str, inspected: Json) -> Image:
    """The image by its registry's digest where it came from one, else by its own id: both are hashes of its content."""
    repository, pin = repository_and_pin(name)
    known = [one.partition("@")[::2] for one in inspected.get("RepoDigests") or []]
    same = [digest for of, digest in known if of == repository] or [digest for _, digest in known]
    digest = pin if pin is not None and pin in same else next(iter(same), inspected["Id"])
    return Image(name=name, digest=digest, image_id=inspected["Id"])


def repository_and_pin(name: str) -> tuple[str, str | None]:
    """An image's repository without its tag, and the digest that its name ends with, if it does."""
    before, _, pin = name.partition("@")
    return parse_repository_tag(before)[0], pin or None


def unix_time(system_time: str) -> str:
    """The engine's clock as its own API takes it: seconds and nanoseconds, ``1700000000.123456789``."""
    whole, _, rest = system_time.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if rest else whole[19:]
    moment = datetime.fromisoformat(whole[:19] + zone.replace("Z", "+00:00"))
    return f"{int(moment.timestamp())}.{digits or '0':0<9}"


def api_version(text: Any) -> tuple[int, ...]:
    """``1.41`` as a tuple that compares."""
    return tuple(int(part) for part in str(text).split("."))
