"""What is asked of Docker for a helper, and what counts as other rights."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agp_agent import seccomp
from agp_agent.docker_engine import DockerEngine
from agp_agent.docker_engine.helpers import helper_body
from agp_agent.docker_engine.translate import Json, differences
from fakes.docker_api import Answer, DockerApi, answer

JOINED = "a" * 64
COMMAND = ("/usr/local/bin/agp-fence", "table inet x {", "}")
MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug"),
    *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
IMAGE = {"Env": ["PATH=/usr/bin"], "Entrypoint": ["/usr/local/bin/agp-entry"]}
ASKED = helper_body(JOINED, "agp/fence:0.2.0", COMMAND, {"agp.instance": "1"})


def made(**host: Any) -> Json:
    """What inspect says of a helper that is exactly what was asked for, but for this."""
    config = copy.deepcopy(ASKED) | {"Env": IMAGE["Env"]}
    paths = {"MaskedPaths": MASKED, "ReadonlyPaths": READ_ONLY}
    told = {"Devices": None, "OomScoreAdj": 0, "Runtime": "runc"}
    made_host = config.pop("HostConfig") | told | paths | host
    return {"Config": config, "HostConfig": made_host, "Mounts": [], "Image": "sha256:1", "AppArmorProfile": ""}


def helper_differences(asked: Json, inspected: Json) -> list[str]:
    """Names of the differences, as they are found for every container."""
    return list(differences(asked, inspected, IMAGE, {"runc"}))


def test_a_helper_has_one_right_in_one_namespace() -> None:
    """NET_ADMIN, root, the other container's network, and nothing else of it or of the host."""
    host = ASKED["HostConfig"]
    assert (ASKED["User"], host["CapDrop"], host["CapAdd"]) == ("0:0", ["ALL"], ["NET_ADMIN"])
    assert host["NetworkMode"] == f"container:{JOINED}"
    assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
    assert host["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={seccomp.profile()}"]
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert not {"Mounts", "Binds", "Devices"} & set(host)
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert host["Memory"] == host["MemorySwap"] == 64 * 2**20
    assert (host["PidsLimit"], host["NanoCpus"]) == (16, 10**9)


def test_its_program_takes_the_place_of_the_image_s_entry() -> None:
    """The image's own waits for a release."""
    assert ASKED["Entrypoint"] == ["/usr/local/bin/agp-fence"]
    assert ASKED["Cmd"] == ["table inet x {", "}"]
    assert ASKED["Labels"] == {"agp.instance": "1"}


def test_what_was_asked_for_is_no_difference() -> None:
    """Nor are the names of capabilities as some engines write them."""
    assert helper_differences(ASKED, made()) == []
    assert helper_differences(ASKED, made(CapAdd=["CAP_NET_ADMIN"])) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Privileged", True),
        ("CapAdd", ["NET_ADMIN", "SYS_ADMIN"]),
        ("CapAdd", None),
        ("CapDrop", []),
        ("NetworkMode", "host"),
        ("NetworkMode", f"container:{'b' * 64}"),
        ("SecurityOpt", ["no-new-privileges:true", "seccomp=unconfined"]),
        ("ReadonlyRootfs", False),
        ("PidMode", "host"),
        ("Binds", ["/:/host"]),
        ("Devices", [{"PathOnHost": "/dev/mem"}]),
        ("SecurityOpt", ["no-new-privileges:true"]),
        ("Memory", 0),
        ("NanoCpus", 0),
        ("Sysctls", {"net.ipv4.ip_forward": "1"}),
        ("DeviceCgroupRules", ["a *:* rwm"]),
        ("CgroupParent", "/elsewhere"),
        ("ExtraHosts", ["registry.example:10.1.1.1"]),
        ("MaskedPaths", []),
        ("ReadonlyPaths", ["/proc/bus"]),
        ("Runtime", "kata"),
    ],
)
def test_every_other_right_is_named(field: str, value: object) -> None:
    """More of them, fewer, or elsewhere."""
    assert helper_differences(ASKED, made(**{field: value})) == [f"HostConfig.{field}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Entrypoint", ["/bin/sh"]),
        ("Entrypoint", None),
        ("Cmd", ["table inet x {", "policy accept", "}"]),
        ("Cmd", None),
        ("User", ""),
        ("Image", "agp/other:1"),
        ("Env", ["PATH=/usr/bin", "LD_PRELOAD=/x.so"]),
    ],
)
def test_another_program_is_named(field: str, value: object) -> None:
    """What runs with NET_ADMIN is what was asked for, of the image that was asked for."""
    inspected = made()
    inspected["Config"][field] = value
    assert helper_differences(ASKED, inspected) == [f"Config.{field}"]


def test_an_image_may_be_told_by_its_id() -> None:
    """Some engines write its name where the id was asked for."""
    assert helper_differences(ASKED | {"Image": "sha256:1"}, made()) == []


def test_an_unconfined_helper_is_named() -> None:
    """Where the engine confines others by AppArmor."""
    assert helper_differences(ASKED, made() | {"AppArmorProfile": "unconfined"}) == ["AppArmorProfile"]


async def test_a_helper_that_hangs_is_told_and_removed(api: DockerApi) -> None:
    """It is no sign of an engine that is away: that answers all the while."""
    running = made() | {"Id": JOINED, "State": {"Running": True}}
    running["Config"]["Image"] = "agp/fence:0.2.0"
    helper = {"Id": "helper", "State": {"Running": True}} | {
        key: running[key] for key in ("Config", "HostConfig", "Mounts", "Image")
    }
    api.routes |= {
        "GET /info": answer({"DefaultRuntime": "runc"}),
        "GET /images/sha256:1/json": answer({"Config": IMAGE}),
        f"GET /containers/{JOINED}/json": answer(running),
        "POST /containers/create": answer({"Id": "helper", "Warnings": []}, 201),
        "GET /containers/helper/json": answer(helper),
        "POST /containers/helper/start": lambda: Answer(204, b""),
        "POST /containers/helper/wait": lambda: Answer(200, _never()),
        "DELETE /containers/helper": lambda: Answer(204, b""),
    }
    engine = DockerEngine(api.url, timeout_s=0.5)
    helped = await engine.run_beside(JOINED, "agp/fence:0.2.0", COMMAND, {"agp.instance": "1"})
    await engine.aclose()
    assert (helped.exit_code, helped.output) == (124, "it did not end within 0.5 s")
    assert "DELETE /containers/helper" in api.requests


async def _never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def test_a_mount_is_one_too() -> None:
    """However it came about: an image's own volume is writable."""
    inspected = made() | {"Mounts": [{"Type": "volume", "Name": "v", "Destination": "/data", "RW": True}]}
    assert helper_differences(ASKED, inspected) == ["Mounts"]
