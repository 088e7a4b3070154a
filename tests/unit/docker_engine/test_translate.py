"""What is asked of Docker for a container, and what counts as a difference."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agp_agent.docker_engine.translate import FIELDS_OF, Json, creation, differences
from agp_agent.engine import ContainerSpec, Mount, Tmpfs
from agp_agent.lacks import Lack

SPEC = ContainerSpec(
    name="agp-slot-1",
    image="agp/runner-shell:0.2.0",
    command=("agp-shell", "/playbook/playbook.sh"),
    uid=20007,
    labels={"agp.slot": "1"},
    env={"A": "1", "PATH": "/bin"},
    mounts=(Mount("bind", "/srv/slot", "/playbook"), Mount("volume", "inventory", "/inventory")),
    tmpfs={"/tmp": Tmpfs(2**26), "/work": Tmpfs(2**28, executable=True)},
    memory_bytes=2**29,
    cpus=1.5,
    pids=256,
    log_limit_bytes=2**22,
)
MASKED = (
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
)
IMAGE = {"Env": ["PATH=/usr/bin", "LANG=C.UTF-8"], "Entrypoint": ["/usr/local/bin/agp-entry"]}


GRANTED = replace(
    SPEC,
    network="agp-net",
    dns=("192.0.2.53",),
    runtime="runsc",
    seccomp='{"defaultAction":"SCMP_ACT_ERRNO"}',
    mounts=(*SPEC.mounts, Mount("bind", "/srv/out", "/out", read_only=False)),
)


def made_as_asked(spec: ContainerSpec = SPEC) -> Json:
    """What inspect says of a container that is exactly what was asked for, in the words of a real engine."""
    config = copy.deepcopy(creation(spec))
    host = config.pop("HostConfig")
    config["Env"] = ["A=1", "PATH=/bin", "LANG=C.UTF-8"]
    config["Entrypoint"] = ["/usr/local/bin/agp-entry"]
    config["Labels"]["org.opencontainers.image.title"] = "from the image"
    host |= {
        "NetworkMode": spec.network or "default",
        "CapAdd": None,
        "Devices": [],
        "PortBindings": {},
        "OomScoreAdj": 0,
        "MaskedPaths": [*MASKED, "/proc/asound"],
        "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
    bind = {"Type": "bind", "Source": "/srv/slot", "Destination": "/playbook", "RW": False, "Propagation": "rprivate"}
    volume = {
        "Type": "volume",
        "Name": "inventory",
        "Source": "/var/lib/docker/volumes/inventory/_data",
        "Destination": "/inventory",
        "RW": False,
        "Propagation": "",
    }
    out = {"Type": "bind", "Source": "/srv/out", "Destination": "/out", "RW": True, "Propagation": "rprivate"}
    return {
        "Config": config,
        "HostConfig": host,
        "Mounts": [volume, bind, *([out] if spec is GRANTED else [])],
        "AppArmorProfile": "docker-default",
        "NetworkSettings": {"Networks": {spec.network: {"EndpointID": ""}} if spec.network else {}},
    }


class TestCreation:
    """The body of the request."""

    def test_asks_for_the_whole_lockdown(self) -> None:
        """What is not negotiable is in every body."""
        host = creation(SPEC)["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert (host["Privileged"], host["ReadonlyRootfs"], host["Init"], host["AutoRemove"]) == (
            False,
            True,
            True,
            False,
        )
        assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
        assert host["RestartPolicy"]["Name"] == "no"

    def test_translates_limits(self) -> None:
        """Memory holds swap in, processors become nanoprocessors, and core files are off."""
        host = creation(SPEC)["HostConfig"]
        assert (host["Memory"], host["MemorySwap"]) == (2**29, 2**29)
        assert (host["NanoCpus"], host["PidsLimit"], host["ShmSize"]) == (1_500_000_000, 256, 2**20)
        assert {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]} == {
            "nofile": (1024, 1024),
            "core": (0, 0),
            "fsize": (2**30, 2**30),
        }

    def test_stdin_closes_with_its_first_client(self) -> None:
        """So a prepared container ends when its agent dies."""
        body = creation(SPEC)
        assert all(body[key] is True for key in ("OpenStdin", "StdinOnce", "AttachStdin"))
        assert body["Tty"] is False

    def test_mounts_are_read_only_and_private(self) -> None:
        """Binds do not propagate, volumes are not filled from the image."""
        bind, volume = creation(SPEC)["HostConfig"]["Mounts"]
        assert bind == {
            "Type": "bind",
            "Source": "/srv/slot",
            "Target": "/playbook",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rprivate"},
        }
        assert (volume["ReadOnly"], volume["VolumeOptions"]) == (True, {"NoCopy": True})

    def test_a_mount_is_writable_only_where_that_was_asked_for(self) -> None:
        """One by one."""
        mounts = (Mount("bind", "/a", "/a"), Mount("bind", "/b", "/b", read_only=False))
        made = creation(replace(SPEC, mounts=mounts))["HostConfig"]["Mounts"]
        assert [mount["ReadOnly"] for mount in made] == [True, False]

    def test_a_network_runtime_and_profile_are_asked_for_only_where_given(self) -> None:
        """Else the engine's own defaults hold, and there is no network at all."""
        plain, granted = creation(SPEC), creation(GRANTED)
        assert not {"NetworkMode", "Runtime"} & set(plain["HostConfig"])
        host = granted["HostConfig"]
        assert granted["NetworkDisabled"] is False
        assert (host["NetworkMode"], host["Dns"], host["Runtime"]) == ("agp-net", ["192.0.2.53"], "runsc")
        assert host["SecurityOpt"] == ["no-new-privileges:true", 'seccomp={"defaultAction":"SCMP_ACT_ERRNO"}']

    @pytest.mark.parametrize("lack", list(Lack))
    def test_what_may_be_missing_is_not_asked_for(self, lack: Lack) -> None:
        """And nothing else is left out."""
        full, less = creation(SPEC)["HostConfig"], creation(SPEC, {lack})["HostConfig"]
        assert full.keys() - less.keys() == set(FIELDS_OF[lack])
        assert less.items() <= full.items()

    def test_memory_folders_belong_to_the_user(self) -> None:
        """Owner, mode and size are given, and exec only where it was asked for."""
        assert creation(SPEC)["HostConfig"]["Tmpfs"] == {
            "/tmp": "nosuid,nodev,noexec,size=67108864,uid=20007,gid=20007,mode=0700",
            "/work": "nosuid,nodev,exec,size=268435456,uid=20007,gid=20007,mode=0700",
        }

    def test_the_log_holds_at_least_its_limit(self) -> None:
        """Two files, because with one a rotation destroys nearly everything."""
        log = creation(SPEC)["HostConfig"]["LogConfig"]
        assert log["Type"] == "local"
        assert int(log["Config"]["max-size"]) >= SPEC.log_limit_bytes
        assert (log["Config"]["max-file"], log["Config"]["compress"]) == ("2", "false")

    def test_has_no_network_and_no_health_check(self) -> None:
        """Only its own loopback; nothing is run beside the playbook."""
        body = creation(SPEC)
        assert body["NetworkDisabled"] is True
        assert body["Healthcheck"] == {"Test": ["NONE"]}


def _host(**changes: Any) -> Callable[[Json], None]:
    return lambda made: made["HostConfig"].update(changes)


def _config(**changes: Any) -> Callable[[Json], None]:
    return lambda made: made["Config"].update(changes)


def _mount(**changes: Any) -> Callable[[Json], None]:
    return lambda made: made["Mounts"][1].update(changes)


def _anonymous_volume(made: Json) -> None:
    made["Mounts"].append(
        {"Type": "volume", "Name": "f00", "Source": "/x", "Destination": "/data", "RW": True, "Propagation": ""}
    )


WEAKER: dict[str, Callable[[Json], None]] = {
    "HostConfig.CapAdd": _host(CapAdd=["SYS_ADMIN"]),
    "HostConfig.CapDrop": _host(CapDrop=[]),
    "HostConfig.SecurityOpt": _host(SecurityOpt=["no-new-privileges:true", "seccomp=unconfined"]),
    "HostConfig.Privileged": _host(Privileged=True),
    "HostConfig.ReadonlyRootfs": _host(ReadonlyRootfs=False),
    "HostConfig.Memory": _host(Memory=0),
    "HostConfig.MemorySwap": _host(MemorySwap=-1),
    "HostConfig.NanoCpus": _host(NanoCpus=0),
    "HostConfig.PidsLimit": _host(PidsLimit=None),
    "HostConfig.Ulimits": _host(Ulimits=[]),
    "HostConfig.Tmpfs": _host(Tmpfs={"/tmp": "rw"}),
    "HostConfig.IpcMode": _host(IpcMode="shareable"),
    "HostConfig.PidMode": _host(PidMode="host"),
    "HostConfig.UTSMode": _host(UTSMode="host"),
    "HostConfig.UsernsMode": _host(UsernsMode="host"),
    "HostConfig.CgroupnsMode": _host(CgroupnsMode="host"),
    "HostConfig.NetworkMode": _host(NetworkMode="host"),
    "HostConfig.Init": _host(Init=None),
    "HostConfig.RestartPolicy": _host(RestartPolicy={"Name": "always", "MaximumRetryCount": 0}),
    "HostConfig.AutoRemove": _host(AutoRemove=True),
    "HostConfig.LogConfig": _host(LogConfig={"Type": "json-file", "Config": {}}),
    "HostConfig.Devices": _host(Devices=[{"PathOnHost": "/dev/sda"}]),
    "HostConfig.DeviceRequests": _host(DeviceRequests=[{"Count": -1}]),
    "HostConfig.PortBindings": _host(PortBindings={"80/tcp": [{"HostPort": "80"}]}),
    "HostConfig.PublishAllPorts": _host(PublishAllPorts=True),
    "HostConfig.Binds": _host(Binds=["/:/host"]),
    "HostConfig.GroupAdd": _host(GroupAdd=["docker"]),
    "HostConfig.OomKillDisable": _host(OomKillDisable=True),
    "HostConfig.OomScoreAdj": _host(OomScoreAdj=-1000),
    "HostConfig.Sysctls": _host(Sysctls={"kernel.msgmax": "1"}),
    "HostConfig.MaskedPaths": _host(MaskedPaths=[]),
    "HostConfig.ReadonlyPaths": _host(ReadonlyPaths=None),
    "Config.Image": _config(Image="sha256:other"),
    "Config.User": _config(User=""),
    "Config.StdinOnce": _config(StdinOnce=False),
    "Config.OpenStdin": _config(OpenStdin=False),
    "Config.NetworkDisabled": _config(NetworkDisabled=False),
    "Config.Env": _config(Env=["A=1", "PATH=/bin", "LANG=C.UTF-8", "TOKEN=secret"]),
    "Config.Entrypoint": _config(Entrypoint=["sh", "-c"]),
    "HostConfig.Annotations": _host(Annotations={"run.oci.keep_original_groups": "1"}),
    "Config.Labels": _config(Labels={}),
    "Config.Cmd": _config(Cmd=["sh"]),
    "Config.Healthcheck": _config(Healthcheck={"Test": ["CMD", "true"]}),
    "AppArmorProfile": lambda made: made.update(AppArmorProfile="unconfined"),
    "ProcessLabel": lambda made: made.update(ProcessLabel="system_u:system_r:spc_t:s0"),
    "NetworkSettings.Networks": lambda made: made.update(NetworkSettings={"Networks": {"b": {"EndpointID": "1"}}}),
}


OTHER_THAN_GRANTED: dict[str, Callable[[Json], None]] = {
    "HostConfig.Runtime": _host(Runtime="runc"),
    "HostConfig.SecurityOpt": _host(SecurityOpt=["no-new-privileges:true", "seccomp={}"]),
    "HostConfig.NetworkMode": _host(NetworkMode="bridge"),
    "HostConfig.Dns": _host(Dns=["192.0.2.1"]),
    "HostConfig.DnsSearch": _host(DnsSearch=["example.com"]),
    "Config.NetworkDisabled": _config(NetworkDisabled=True),
    "NetworkSettings.Networks": lambda made: made["NetworkSettings"]["Networks"].update(bridge={"EndpointID": ""}),
    "Mounts": lambda made: made["Mounts"][2].update(RW=False),
}


class TestDifferences:
    """What was made against what was asked for."""

    @pytest.mark.parametrize("profile", ["", None, "docker-default", "containers-default-0.57.4"])
    def test_the_engines_own_profile_is_no_difference(self, profile: str | None) -> None:
        """Nor one that is named only at the start, as Docker does, or none, where the host has no AppArmor."""
        made = made_as_asked() | {"AppArmorProfile": profile, "ProcessLabel": "system_u:system_r:container_t:s0:c1,c2"}
        assert differences(creation(SPEC), made, IMAGE) == ()

    def test_a_profile_that_nobody_asked_for_is_a_difference(self) -> None:
        """Somebody between agent and engine chose a weaker one."""
        made = made_as_asked() | {"AppArmorProfile": "lets-everything"}
        assert differences(creation(SPEC), made, IMAGE) == ("AppArmorProfile",)

    @pytest.mark.parametrize("path", MASKED)
    def test_each_mask_must_be_there(self, path: str) -> None:
        """One that is missing is enough."""
        made = made_as_asked()
        made["HostConfig"]["MaskedPaths"].remove(path)
        assert differences(creation(SPEC), made, IMAGE) == ("HostConfig.MaskedPaths",)

    def test_nothing_differs_in_what_was_made_as_asked(self) -> None:
        """The engine's many spellings of nothing, its merged environment and labels are no differences."""
        assert differences(creation(SPEC), made_as_asked(), IMAGE) == ()

    @pytest.mark.parametrize(
        ("made_by", "defaults", "wrong"),
        [
            ("runc", {"runc"}, False),
            ("kata", {"runc"}, True),
            (None, {"runc"}, True),
            ("oci", {"runc"}, True),
            ("oci", {"crun", "oci"}, False),
            ("x", set(), False),
        ],
    )
    def test_what_runs_it_is_the_engines_default(self, made_by: str | None, defaults: set[str], *, wrong: bool) -> None:
        """Where nobody asked for another, and the engine tells."""
        made = made_as_asked()
        made["HostConfig"]["Runtime"] = made_by
        assert differences(creation(SPEC), made, IMAGE, defaults) == (("HostConfig.Runtime",) if wrong else ())

    def test_nothing_differs_in_what_was_granted_and_made(self) -> None:
        """Network, resolver, runtime, profile and a writable mount."""
        assert differences(creation(GRANTED), made_as_asked(GRANTED), IMAGE) == ()

    @pytest.mark.parametrize("field", OTHER_THAN_GRANTED)
    def test_every_other_grant_is_named(self, field: str) -> None:
        """A container in another network, or with another profile, is none of ours."""
        made = made_as_asked(GRANTED)
        OTHER_THAN_GRANTED[field](made)
        assert differences(creation(GRANTED), made, IMAGE) == (field,)

    def test_a_missing_limit_is_no_difference_where_it_was_not_asked_for(self) -> None:
        """What the operator accepts to be missing."""
        made = made_as_asked()
        made["HostConfig"] |= {"MemorySwap": -1, "LogConfig": {"Type": "k8s-file", "Config": {}}}
        asked = creation(SPEC, {Lack.SWAP, Lack.LOG_DRIVER})
        assert differences(asked, made, IMAGE) == ()
        made["HostConfig"]["PidsLimit"] = 0
        assert differences(asked, made, IMAGE) == ("HostConfig.PidsLimit",)

    def test_an_image_may_be_told_by_its_name_where_its_id_was_asked_for(self) -> None:
        """As Podman does; then its id must stand beside it."""
        asked, made = creation(replace(SPEC, image="sha256:1")), made_as_asked()
        assert differences(asked, made, IMAGE) == ("Config.Image",)
        made["Image"] = "sha256:1"
        assert differences(asked, made, IMAGE) == ()

    @pytest.mark.parametrize("field", WEAKER)
    def test_every_weaker_field_is_named(self, field: str) -> None:
        """One changed field is one difference, called by its name in inspect."""
        made = made_as_asked()
        WEAKER[field](made)
        assert differences(creation(SPEC), made, IMAGE) == (field,)

    @pytest.mark.parametrize(
        "change",
        [_mount(RW=True), _mount(Propagation="rshared"), _mount(Source="/"), _anonymous_volume],
        ids=["writable", "shared", "another source", "one more"],
    )
    def test_mounts_are_exactly_those_asked_for(self, change: Callable[[Json], None]) -> None:
        """No mount more, none elsewhere, none writable, none that propagates."""
        made = made_as_asked()
        change(made)
        assert differences(creation(SPEC), made, IMAGE) == ("Mounts",)

    def test_all_differences_are_told_at_once(self) -> None:
        """So that an operator sees everything that an engine cannot do."""
        made = made_as_asked()
        made["HostConfig"] |= {"MemorySwap": 0, "PidsLimit": 0}
        assert differences(creation(SPEC), made, IMAGE) == ("HostConfig.MemorySwap", "HostConfig.PidsLimit")
