"""From a runner to the plan of its container."""

from pathlib import Path

from agp_agent import catalog, seccomp
from agp_agent.catalog import Match, Runner
from agp_agent.destinations import parse
from agp_agent.engine import ContainerSpec, Mount, PullPolicy, Tmpfs
from agp_agent.planner import Limits, plan
from agp_agent.secret_files import Secret

LIMITS = Limits(task_timeout_s=3600, stop_grace_s=10, output_limit_bytes=4 * 2**20)
LABELS = {"agp.agent_id": "a", "agp.instance": "i"}


def runner(**fields: object) -> Runner:
    """Return a runner that says only what it must."""
    return Runner.model_validate({"name": "shell", "image": "agp/x", "command": ["sh", "{playbook}"]} | fields)


def test_a_runner_that_says_nothing_gets_the_hardened_defaults() -> None:
    """Everything isolation asks for, before the first slot."""
    spec = plan(runner(), LIMITS, LABELS)
    assert spec.container == ContainerSpec(
        name="",
        image="agp/x",
        command=("sh", "/playbook/playbook"),
        uid=0,
        labels={"agp.agent_id": "a", "agp.instance": "i", "agp.runner": "shell"},
        env={},
        mounts=(),
        tmpfs={"/tmp": Tmpfs(64 * 2**20), "/work": Tmpfs(256 * 2**20)},
        memory_bytes=512 * 2**20,
        cpus=1.0,
        pids=256,
        log_limit_bytes=8 * 2**20,
        hostname="runner",
        working_dir="/work",
        nofile=1024,
        file_size_bytes=2**30,
        shm_bytes=2**20,
        stop_timeout_s=10,
        network=None,
        dns=(),
        runtime=None,
        seccomp=seccomp.profile(),
    )
    assert (spec.runner, spec.pull, spec.playbook_file) == ("shell", PullPolicy.NEVER, "playbook")
    assert (spec.timeout_s, spec.stop_grace_s, spec.output_limit_bytes) == (3600, 10, 4 * 2**20)


def test_what_the_runner_says_goes_before_the_settings() -> None:
    """Only the operator's catalog can do that."""
    spec = plan(
        runner(timeout_s=5, memory="1GiB", cpus=2, pids=64, env={"A": "b"}, tmpfs={"/work": "1MiB"}, pull="never"),
        LIMITS,
        LABELS,
    )
    container = spec.container
    assert (spec.timeout_s, spec.pull) == (5, PullPolicy.NEVER)
    assert (container.memory_bytes, container.cpus, container.pids) == (2**30, 2.0, 64)
    assert container.env == {"A": "b"}
    assert container.tmpfs == {"/work": Tmpfs(2**20)}


def test_the_playbook_has_one_name_with_the_runners_first_suffix() -> None:
    """Nothing of the task's name reaches the container."""
    spec = plan(runner(match=Match(suffixes=(".yml", ".yaml")).model_dump()), LIMITS, LABELS)
    assert spec.playbook_file == "playbook.yml"
    assert spec.container.command == ("sh", "/playbook/playbook.yml")


def test_only_the_whole_word_stands_for_the_playbook() -> None:
    """A word that merely contains the placeholder is passed on as it is."""
    spec = plan(runner(command=["sh", "--x={playbook}", "{playbook}"]), LIMITS, LABELS)
    assert spec.container.command == ("sh", "--x={playbook}", "/playbook/playbook")


def test_a_slot_gives_name_user_mount_and_labels() -> None:
    """The plan itself stays as it was: it serves many slots."""
    spec = plan(runner(), LIMITS, LABELS)
    mount = Mount("bind", "/host/slot", "/playbook")
    container = spec.in_slot("agp-1", 20007, mount)
    assert (container.name, container.uid, container.mounts) == ("agp-1", 20007, (mount,))
    assert container.labels == {**spec.container.labels, "agp.slot": "agp-1", "agp.uid": "20007"}
    assert spec.container.name == ""
    assert "agp.slot" not in spec.container.labels


def test_the_engines_log_holds_more_than_the_output_kept() -> None:
    """It is what an output is completed from; small limits still get a megabyte."""
    small = Limits(task_timeout_s=1, stop_grace_s=0.2, output_limit_bytes=1024)
    assert plan(runner(), small, LABELS).container.log_limit_bytes == 2**20
    assert plan(runner(), LIMITS, LABELS).container.log_limit_bytes >= LIMITS.output_limit_bytes


def test_the_engines_own_stop_timeout_is_at_least_a_second() -> None:
    """It knows whole seconds only."""
    assert plan(runner(), Limits(1, 0, 1024), LABELS).container.stop_timeout_s == 1


def test_every_built_in_runner_has_a_plan() -> None:
    """And each of their commands holds the playbook's path."""
    for built_in in catalog.load().runners.values():
        spec = plan(built_in, LIMITS, LABELS)
        assert f"/playbook/{spec.playbook_file}" in spec.container.command


def test_what_the_catalog_grants_is_in_the_plan() -> None:
    """Mounts follow the playbook's own; secrets get a folder in memory; an inventory is mounted and named."""
    spec = plan(
        runner(
            mounts=[{"source": "/srv/a", "target": "/a"}, {"source": "/srv/b", "target": "/b", "rw": True}],
            inventory="/srv/hosts",
            env={"A": "b"},
            secrets=[{"source": "/secrets/key", "name": "key"}],
            network="outbound",
            allow=["10.20.0.0/16:22"],
            runtime="runsc",
            user=4242,
        ),
        LIMITS,
        LABELS,
    )
    container = spec.in_slot("agp-1", 4242, Mount("bind", "/slot", "/playbook"))
    assert container.mounts == (
        Mount("bind", "/slot", "/playbook"),
        Mount("bind", "/srv/a", "/a"),
        Mount("bind", "/srv/b", "/b", read_only=False),
        Mount("bind", "/srv/hosts", "/inventory"),
    )
    assert container.env == {"ANSIBLE_INVENTORY": "/inventory", "A": "b"}
    assert container.tmpfs["/run/secrets"].size_bytes >= 16 * 64 * 1024
    assert not container.tmpfs["/run/secrets"].executable
    assert container.runtime == "runsc"
    assert spec.secrets == (Secret("key", Path("/secrets/key")),)
    assert (spec.outbound, spec.allow, spec.uid) == (True, (parse("10.20.0.0/16:22"),), 4242)


def test_a_runner_without_secrets_has_no_place_for_them() -> None:
    """Nothing that could take one."""
    assert "/run/secrets" not in plan(runner(), LIMITS, LABELS).container.tmpfs


def test_a_seccomp_profile_is_passed_on_as_it_was_read(tmp_path: Path) -> None:
    """As text: the engine does not see the agent's files."""
    profile = tmp_path / "profile.json"
    profile.write_text('{ "defaultAction": "SCMP_ACT_ERRNO" }')
    assert plan(runner(seccomp=str(profile)), LIMITS, LABELS).container.seccomp == '{"defaultAction":"SCMP_ACT_ERRNO"}'
