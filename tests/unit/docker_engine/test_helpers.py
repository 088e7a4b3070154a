"""What is asked of Docker for a helper, and what counts as other rights."""

import copy
from typing import Any

import pytest

from agp_agent.docker_engine.helpers import helper_body, helper_differences
from agp_agent.docker_engine.translate import Json

JOINED = "a" * 64
COMMAND = ("/usr/local/bin/agp-fence", "table inet x {", "}")
ASKED = helper_body(JOINED, "agp/fence:0.2.0", COMMAND, {"agp.instance": "1"})


def made(**host: Any) -> Json:
    """What inspect says of a helper that is exactly what was asked for, but for this."""
    config = copy.deepcopy(ASKED)
    made_host = config.pop("HostConfig") | {"PidMode": "", "Devices": None} | host
    return {"Config": config, "HostConfig": made_host, "Mounts": []}


def test_a_helper_has_one_right_in_one_namespace() -> None:
    """NET_ADMIN, root, the other container's network, and nothing else of it or of the host."""
    host = ASKED["HostConfig"]
    assert (ASKED["User"], host["CapDrop"], host["CapAdd"]) == ("0:0", ["ALL"], ["NET_ADMIN"])
    assert host["NetworkMode"] == f"container:{JOINED}"
    assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert not {"Mounts", "Binds", "PidMode", "Devices"} & set(host)
    assert host["Memory"] == host["MemorySwap"] == 64 * 2**20
    assert host["PidsLimit"] == 16


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
        ("Memory", 0),
    ],
)
def test_every_other_right_is_named(field: str, value: object) -> None:
    """More of them, fewer, or elsewhere."""
    assert helper_differences(ASKED, made(**{field: value})) == [field]


def test_a_mount_is_one_too() -> None:
    """However it came about: an image's own volume is writable."""
    inspected = made() | {"Mounts": [{"Type": "volume", "Destination": "/data"}]}
    assert helper_differences(ASKED, inspected) == ["Mounts"]
