"""The engine's answers in the port's words."""

from typing import Any

import pytest

from agp_agent.docker_engine import reading
from agp_agent.engine import EngineInfo, History, Mount
from agp_agent.lacks import Lack

NEVER = "0001-01-01T00:00:00Z"
ONCE = "2026-01-02T03:04:05.678Z"


def inspected(**state: Any) -> dict[str, Any]:
    """An inspect answer with this state."""
    base = {"Running": False, "StartedAt": NEVER, "ExitCode": 0, "OOMKilled": False, "Error": ""}
    return {"Id": "abc", "State": base | state}


@pytest.mark.parametrize(
    ("state", "running", "ended"),
    [
        ({}, False, False),
        ({"ExitCode": 127, "Error": "no such file"}, False, False),
        ({"Running": True, "StartedAt": ONCE}, True, False),
        ({"Running": True, "Paused": True, "StartedAt": ONCE}, True, False),
        ({"StartedAt": ONCE, "ExitCode": 3}, False, True),
        ({"StartedAt": ONCE, "Dead": True}, False, True),
    ],
    ids=["created", "could not be started", "running", "paused", "exited", "dead"],
)
def test_what_never_ran_has_not_ended(state: dict[str, Any], *, running: bool, ended: bool) -> None:
    """Docker gives a container that could not be started an exit code: it means nothing."""
    read = reading.container_state(inspected(**state))
    assert (read.running, read.ended) == (running, ended)
    assert read.error == state.get("Error", "")


def test_a_container_without_a_name_is_listed() -> None:
    """While it is being removed the engine may have taken its name away."""
    listed = {"Id": "abc", "Names": None, "Labels": None, "Created": 1_700_000_000}
    read = reading.owned_container(listed)
    assert (read.name, dict(read.labels), read.created_at_s) == ("", {}, 1_700_000_000.0)


def test_memory_folders_are_no_mounts() -> None:
    """Only what has a folder on the host is told."""
    mounts = [
        {"Type": "tmpfs", "Source": "", "Destination": "/tmp"},
        {"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/v"},
    ]
    assert reading.host_mounts({"Mounts": mounts}) == [Mount("bind", "/var/lib/docker/volumes/v/_data", "/v")]


def test_history_counts_only_its_own_container() -> None:
    """The engine matches by prefix and name: what belongs to another is left out."""
    events = [
        {"Action": action, "Actor": {"ID": who}}
        for action, who in [("create", "abc"), ("kill", "abc"), ("kill", "abc"), ("kill", "abcd"), ("die", "abcd")]
    ]
    assert reading.history("abc", events) == History(created=True, kills=2, died=False)


def test_a_full_memory_has_forgotten_what_was_before() -> None:
    """An end that it should remember, and does not, was missed; one from before its oldest event need not have been."""
    events = [{"Action": "pull", "timeNano": (1000 + n) * 10**9, "Actor": {"ID": "image"}} for n in range(256)]
    full, young = reading.history("abc", events), reading.history("abc", events[1:])
    assert (full.remembers_from_s, full.missed(999.0), full.missed(1000.5)) == (1000.0, False, True)
    assert (young.remembers_from_s, young.missed(999.0)) == (0.0, True)


@pytest.mark.parametrize(("attributes", "code"), [({"exitCode": "255"}, 255), ({"exitCode": "?"}, None), ({}, None)])
def test_history_tells_what_the_engine_saw_it_die_with(attributes: dict[str, str], code: int | None) -> None:
    """As far as the engine says it."""
    events = [{"Action": "die", "timeNano": 1_500_000_000, "Actor": {"ID": "abc", "Attributes": attributes}}]
    assert reading.history("abc", events) == History(died=True, died_s=1.5, exit_code=code)


@pytest.mark.parametrize(
    ("name", "digests", "digest"),
    [
        ("agp/x:1", [], "sha256:id"),
        ("agp/x:1", ["other/x@sha256:1", "agp/x@sha256:2"], "sha256:2"),
        ("agp/x:1", ["other/x@sha256:1"], "sha256:1"),
        ("reg:5000/x", ["reg:5000/x@sha256:3"], "sha256:3"),
        ("agp/x@sha256:4", ["agp/x@sha256:4"], "sha256:4"),
        ("agp/x@sha256:4", ["agp/x@sha256:1", "agp/x@sha256:4"], "sha256:4"),
        ("reg:5000/x:1@sha256:4", ["other/x@sha256:1", "reg:5000/x@sha256:3", "reg:5000/x@sha256:4"], "sha256:4"),
        ("docker.io/library/x@sha256:4", ["y@sha256:1", "x@sha256:4"], "sha256:4"),
        ("reg:5000/x@sha256:5", ["other/x@sha256:1", "reg:5000/x@sha256:3"], "sha256:3"),
        ("sha256:id", ["agp/x@sha256:6"], "sha256:6"),
    ],
)
def test_the_registrys_digest_comes_first(name: str, digests: list[str], digest: str) -> None:
    """That which the name asks for, if it is one of the image's; an image that was built here has only its own id."""
    read = reading.image(name, {"Id": "sha256:id", "RepoDigests": digests})
    assert (read.name, read.digest, read.image_id) == (name, digest, "sha256:id")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00.123456789Z", "1767225600.123456789"),
        ("2026-01-01T00:00:00.5Z", "1767225600.500000000"),
        ("2026-01-01T00:00:00Z", "1767225600.000000000"),
        ("2026-01-01T02:00:00.000000001+02:00", "1767225600.000000001"),
        ("2025-12-31T19:00:00-05:00", "1767225600.000000000"),
    ],
)
def test_the_engines_clock_keeps_its_nanoseconds(text: str, seconds: str) -> None:
    """Otherwise the latest events would fall behind the end of the question."""
    assert reading.unix_time(text) == seconds


def test_api_versions_compare_as_numbers() -> None:
    """1.9 is older than 1.41."""
    assert reading.api_version("1.9") < reading.api_version("1.41") < (1, 42)


def test_an_engine_tells_what_it_can_do() -> None:
    """Versions as they were built, security options by their names, the clock of its host."""
    info = {
        "Name": "host",
        "ServerVersion": "20.10.24+dfsg1",
        "NCPU": 2,
        "MemTotal": 2**33,
        "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
        "KernelVersion": "6.1.0",
        "SystemTime": "2026-01-02T03:04:05.500000000Z",
        "DefaultRuntime": "runc",
        "RuncCommit": {"ID": "1.1.5+ds1-1+deb12u1", "Expected": ""},
        "Runtimes": {"runc": {}, "runsc": {}},
        "CgroupVersion": "1",
        "MemoryLimit": True,
        "SwapLimit": False,
        "PidsLimit": True,
        "LiveRestoreEnabled": True,
        "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default", "name=userns"],
        "Plugins": {"Log": ["local", "json-file"]},
    }
    assert reading.engine_info(info, "1.41") == EngineInfo(
        name="host",
        version="20.10.24+dfsg1",
        cores=2,
        memory_bytes=2**33,
        lacks=frozenset({Lack.SWAP}),
        api_version="1.41",
        operating_system="Debian GNU/Linux 12 (bookworm)",
        kernel="6.1.0",
        clock_s=1767323045.5,
        default_runtime="runc",
        runtime_version="1.1.5+ds1-1+deb12u1",
        runtimes=("runc", "runsc"),
        cgroup_version="1",
        live_restore=True,
        security=("apparmor", "seccomp", "userns"),
    )


def test_an_engine_that_tells_little_is_not_taken_for_weak() -> None:
    """What another engine's answer lacks stays empty; limits count as there, for each container is read back."""
    info = {"Name": "host", "ServerVersion": "5.4.2", "NCPU": 1, "MemTotal": 2**30, "RuncCommit": None, "Plugins": None}
    assert reading.engine_info(info, "1.41") == EngineInfo("host", "5.4.2", 1, 2**30, api_version="1.41")


def test_podman_is_known_by_what_it_alone_tells() -> None:
    """It answers as Docker does, and is another engine."""
    info = {"Name": "host", "ServerVersion": "4.3.1", "NCPU": 1, "MemTotal": 2**30, "BuildahVersion": "1.28.2"}
    assert reading.engine_info(info, "1.41").kind == "Podman"


def test_the_engine_tells_what_it_has_and_what_it_lacks() -> None:
    """What an engine does not speak of, it is trusted to do: that is read back from every container."""
    info = {"Name": "n", "ServerVersion": "1", "NCPU": 2, "MemTotal": 3}
    silent = reading.engine_info(info, "1.41")
    assert (silent.lacks, silent.runtimes, silent.security) == (frozenset(), (), ())
    told = reading.engine_info(
        info
        | {
            "Runtimes": {"runsc": {}, "runc": {}},
            "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
            "SwapLimit": False,
            "MemoryLimit": True,
            "PidsLimit": False,
            "CpuCfsQuota": True,
            "Plugins": {"Log": ["k8s-file", "journald"]},
        },
        "1.41",
    )
    assert told.runtimes == ("runc", "runsc")
    assert told.security == ("seccomp", "rootless")
    assert told.lacks == {Lack.SWAP, Lack.PIDS, Lack.LOG_DRIVER}
