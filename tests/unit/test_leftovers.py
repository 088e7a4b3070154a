"""What commands that were killed have left behind."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from agp_agent import leftovers
from agp_agent.engine import ContainerSpec
from agp_agent.fencing import bridge_name
from agp_agent.state_dir import StateDir
from fakes.fake_engine import FakeEngine


def spec(name: str, labels: Mapping[str, str]) -> ContainerSpec:
    """A container with these labels."""
    return ContainerSpec(
        name=name,
        image="agp/x:1",
        command=("x",),
        uid=20000,
        labels=labels,
        env={},
        mounts=(),
        tmpfs={},
        memory_bytes=2**26,
        cpus=1,
        pids=64,
        log_limit_bytes=2**20,
    )


async def test_what_a_dead_owner_left_is_removed_and_what_lives_stays(tmp_path: Path) -> None:
    """Containers, volumes, the bridge and the folder; by the labels that stand in the folder alone."""
    engine = FakeEngine()
    engine.host.images["agp/x:1"] = "sha256:1"
    dead, alive = StateDir(tmp_path / "agp-run-dead", "run"), StateDir(tmp_path / "agp-check-alive", "check")
    for state in (dead, alive):
        labels = state.identity.labels
        await engine.create(spec(f"agp-{state.identity.instance}-1", labels))
        await engine.create_volume(f"agp-{state.identity.instance}-v", labels)
        await engine.ensure_bridge(bridge_name(labels), labels)
    dead.close()
    await leftovers.remove(engine, [tmp_path])
    assert (dead.path.exists(), alive.path.exists()) == (False, True)
    for state, number in ((dead, 0), (alive, 1)):
        assert len(await engine.owned(state.identity.labels)) == number
        assert len(await engine.owned_volumes(state.identity.labels)) == number
    alive.close()
    shutil.rmtree(alive.path)


@pytest.mark.parametrize("owner", ["web-1", "run"])
async def test_a_folder_that_is_no_command_s_is_left_alone(tmp_path: Path, owner: str) -> None:
    """A state directory of an agent that is called so, or a folder that has no owner yet."""
    folder = tmp_path / "agp-run-x"
    if owner == "run":
        folder.mkdir()
        (folder / "agent.lock").touch()
    else:
        StateDir(folder, owner).close()
    await leftovers.remove(FakeEngine(), [tmp_path])
    assert folder.exists()


async def test_while_the_engine_is_away_all_is_kept(tmp_path: Path) -> None:
    """The folder is the only trace of what stands there."""
    engine = FakeEngine()
    StateDir(tmp_path / "agp-run-dead", "run").close()
    engine.go_away()
    await leftovers.remove(engine, [tmp_path])
    assert (tmp_path / "agp-run-dead").exists()


@pytest.mark.parametrize("trap", ["a link", "others may write", "a file"])
async def test_what_others_may_have_put_there_is_not_even_opened(tmp_path: Path, trap: str) -> None:
    """In /tmp any user can make a folder of any name, or a link to one: nothing is made, changed or removed there."""
    victim, name = tmp_path / "victim", tmp_path / "place/agp-run-x"
    victim.mkdir(mode=0o700)
    name.parent.mkdir()
    if trap == "a link":
        name.symlink_to(victim)
    elif trap == "others may write":
        victim.rename(name)
        name.chmod(0o777)
        victim = name
    else:
        name.touch()
    (victim / "agent.lock").write_text('{"agent_id": "run", "instance": "0123456789ab"}')
    await leftovers.remove(FakeEngine(), [name.parent])
    assert [path.name for path in victim.iterdir()] == ["agent.lock"]
    assert name.exists()
