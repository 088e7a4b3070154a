"""Slots: the three ways a playbook gets into a container, and the probe that chooses one."""

import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agp_agent.engine import ContainerSpec, Mount
from agp_agent.errors import EngineError, EngineUnavailable
from agp_agent.slots import PROBE_PREFIX, BindSlots, Slots, VolumeSlots, choose_slots
from fakes.fake_engine import FakeEngine
from fakes.fake_host import FakeHost
from support.agent_parts import IMAGE, LABELS, machine

NOTE = {"task_id": "t", "attempt": 1}


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """An engine that shares this machine's files."""
    async with machine() as host:
        opened = FakeEngine(host)
        await opened.open()
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of slots as the agent sees it."""
    path = tmp_path / "state" / "slots"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def _umask_077() -> Iterator[None]:
    """The strictest umask that people use."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(params=["bind", "volume"])
def slots(request: pytest.FixtureRequest, folder: Path, engine: FakeEngine) -> Slots:
    """Each way in turn."""
    if request.param == "bind":
        return BindSlots(folder, folder, "same path")
    return VolumeSlots(folder, engine, LABELS)


async def seen(engine: FakeEngine, mount: Mount, file: str) -> bytes:
    """Return a file as a container sees it."""
    return await engine.get_file(mount, IMAGE, file, LABELS)


async def test_a_filled_slot_holds_the_playbook_byte_for_byte(slots: Slots, engine: FakeEngine, folder: Path) -> None:
    """Where the container sees it; the note stays with the agent."""
    playbook = bytes(range(256)) * 10
    mount = await slots.open("agp-1")
    assert mount.target == "/playbook"
    await slots.fill("agp-1", IMAGE, "playbook.yml", playbook, NOTE)
    assert await seen(engine, mount, "playbook.yml") == playbook
    assert json.loads((folder / "agp-1" / "note.json").read_text()) == NOTE
    with pytest.raises(EngineError):
        await seen(engine, mount, "note.json")


async def test_an_open_slot_is_empty(slots: Slots, engine: FakeEngine) -> None:
    """The playbook comes with the release and not before."""
    mount = await slots.open("agp-1")
    with pytest.raises(EngineError):
        await seen(engine, mount, "playbook.yml")


async def test_a_dropped_slot_is_gone_with_all_that_was_in_it(slots: Slots, engine: FakeEngine, folder: Path) -> None:
    """A missing one is success."""
    await slots.open("agp-1")
    await slots.fill("agp-1", IMAGE, "playbook.sh", b"x", NOTE)
    await slots.open("agp-2")
    assert sorted(await slots.names()) == ["agp-1", "agp-2"]
    await slots.drop("agp-1")
    await slots.drop("agp-1")
    assert await slots.names() == ["agp-2"]
    assert [path.name for path in folder.iterdir()] == ["agp-2"]
    assert "agp-1" not in engine.host.volumes


async def test_a_slot_is_never_used_twice(slots: Slots) -> None:
    """Neither opened nor filled."""
    await slots.open("agp-1")
    with pytest.raises(FileExistsError):
        await slots.open("agp-1")
    await slots.fill("agp-1", IMAGE, "playbook.sh", b"x", NOTE)
    with pytest.raises(FileExistsError):
        await slots.fill("agp-1", IMAGE, "playbook.sh", b"y", NOTE)


@pytest.mark.usefixtures("_umask_077")
async def test_the_container_can_read_the_playbook_and_nobody_else_the_note(folder: Path) -> None:
    """Whatever the umask: the container's user is another one."""
    slots = BindSlots(folder, folder, "same path")
    mount = await slots.open("agp-1")
    await slots.fill("agp-1", IMAGE, "playbook.sh", b"x", NOTE)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(Path(mount.source)) == 0o755
    assert mode(Path(mount.source) / "playbook.sh") == 0o444
    assert mode(folder / "agp-1") == 0o700
    assert mode(folder / "agp-1" / "note.json") == 0o600


async def test_a_translated_slot_is_mounted_by_the_engines_path(folder: Path) -> None:
    """And filled by the agent's."""
    slots = BindSlots(folder, Path("/host/state/slots"), "translated path")
    assert (await slots.open("agp-1")).source == "/host/state/slots/agp-1/playbook"
    await slots.fill("agp-1", IMAGE, "playbook.sh", b"x", NOTE)
    assert (folder / "agp-1" / "playbook" / "playbook.sh").read_bytes() == b"x"


async def test_volumes_of_others_are_not_listed(folder: Path, engine: FakeEngine) -> None:
    """Those of this agent are, also without a folder: an earlier agent may have had another."""
    await engine.create_volume("agp-mine", LABELS)
    await engine.create_volume("agp-theirs", {**LABELS, "agp.instance": "another"})
    assert await VolumeSlots(folder, engine, LABELS).names() == ["agp-mine"]


async def test_a_volume_in_use_keeps_its_folder(folder: Path, engine: FakeEngine) -> None:
    """The folder's name is how a left-over volume is found."""
    slots = VolumeSlots(folder, engine, LABELS)
    mount = await slots.open("agp-1")
    engine.host.plant("user", {}, (mount,))
    with pytest.raises(EngineError, match="in use"):
        await slots.drop("agp-1")
    assert "agp-1" in await slots.names()


# --- choosing ----------------------------------------------------------------------------------------------------


def nothing_left(engine: FakeEngine, folder: Path) -> bool:
    """Whether the probes are gone."""
    return not list(folder.iterdir()) and not engine.host.volumes and not engine.host.containers


async def test_an_engine_on_the_same_files_gets_the_same_path(engine: FakeEngine, folder: Path) -> None:
    """The simplest way that works."""
    slots = await choose_slots(engine, folder, IMAGE, LABELS, None)
    assert slots.kind == "same path"
    assert nothing_left(engine, folder)


class Elsewhere(FakeEngine):
    """An engine whose host has the agent's files under another path, or not at all."""

    def __init__(self, host: FakeHost, here: Path, there: Path | None) -> None:
        """``here`` is the agent's path and ``there`` the host's."""
        super().__init__(host)
        self._here, self._there = here, there

    def _resolve(self, mount: Mount) -> Mount:
        """Find the files of a bind mount as the engine's host would: here they are, if anywhere."""
        source = Path(mount.source)
        if mount.kind == "volume":
            return mount
        if self._there is None or not source.is_relative_to(self._there):
            raise EngineError(f"the engine refused (400): bind source path does not exist: {source}")
        return Mount("bind", str(self._here / source.relative_to(self._there)), mount.target)

    async def get_file(self, mount: Mount, image: str, path: str, labels: object) -> bytes:
        """Read as a container of that host would."""
        return await super().get_file(self._resolve(mount), image, path, labels)  # type: ignore[arg-type]


async def agents_container(engine: FakeEngine, here: Path, there: Path) -> None:
    """Let the agent itself be a container of this engine, which is called like this machine."""
    name = os.uname().nodename
    spec = ContainerSpec(
        name=name,
        image=IMAGE,
        command=("agp-agent",),
        uid=1,
        labels={},
        env={},
        mounts=(),
        tmpfs={},
        memory_bytes=1,
        cpus=1,
        pids=1,
        log_limit_bytes=1,
    )
    container = engine.host.plant(spec.name, {})
    container.mounts = (
        Mount("bind", "/somewhere", "/"),
        Mount("bind", str(there), str(here)),
        Mount("bind", "/srv/other", f"{here}-other"),
    )


async def test_an_agent_in_a_container_translates_its_path(folder: Path, engine: FakeEngine) -> None:
    """By its own mounts, of which the nearest counts."""
    there = Path("/srv/agent-state")
    elsewhere = Elsewhere(engine.host, folder.parent, there)
    await elsewhere.open()
    await agents_container(elsewhere, folder.parent, there)
    slots = await choose_slots(elsewhere, folder, IMAGE, LABELS, None)
    assert slots.kind == "translated path"
    assert (await slots.open("agp-1")).source == "/srv/agent-state/slots/agp-1/playbook"


async def test_an_engine_that_shares_no_files_gets_volumes(folder: Path, engine: FakeEngine) -> None:
    """A remote one; the failed probes leave nothing behind."""
    remote = Elsewhere(engine.host, folder.parent, None)
    await remote.open()
    slots = await choose_slots(remote, folder, IMAGE, LABELS, None)
    assert slots.kind == "volume"
    assert nothing_left(remote, folder)


async def test_the_operators_path_is_the_only_one_that_is_tried(folder: Path, engine: FakeEngine) -> None:
    """Right, it is used; wrong, that is said, and no other way is taken in silence."""
    there = Path("/srv/agent-state")
    elsewhere = Elsewhere(engine.host, folder.parent, there)
    await elsewhere.open()
    assert (await choose_slots(elsewhere, folder, IMAGE, LABELS, there)).kind == "translated path"
    with pytest.raises(EngineError, match=r"^AGP_ENGINE_STATE_DIR: containers do not see .* under /wrong;"):
        await choose_slots(elsewhere, folder, IMAGE, LABELS, Path("/wrong"))
    assert nothing_left(elsewhere, folder)


async def test_where_no_way_works_that_is_said(folder: Path, engine: FakeEngine) -> None:
    """Without the image not even a volume can be filled."""
    engine.host.images.clear()
    with pytest.raises(EngineError, match="neither a bind mount nor a named volume works"):
        await choose_slots(engine, folder, IMAGE, LABELS, None)
    assert nothing_left(engine, folder)


async def test_an_engine_that_goes_away_is_no_answer(folder: Path, engine: FakeEngine) -> None:
    """It is asked again later; nothing is concluded from it."""
    engine.go_away()
    with pytest.raises(EngineUnavailable):
        await choose_slots(engine, folder, IMAGE, LABELS, None)


async def test_a_wrong_file_under_the_right_name_is_found_out(folder: Path, engine: FakeEngine) -> None:
    """The probe compares bytes: a folder of the same path on another machine does not pass."""

    class Stale(FakeEngine):
        async def get_file(self, mount: Mount, image: str, path: str, labels: object) -> bytes:
            data = await super().get_file(mount, image, path, labels)  # type: ignore[arg-type]
            return data if mount.kind == "volume" else b"something else"

    stale = Stale(engine.host)
    await stale.open()
    assert (await choose_slots(stale, folder, IMAGE, LABELS, None)).kind == "volume"


async def test_probes_of_an_agent_that_was_killed_are_removed(folder: Path, engine: FakeEngine) -> None:
    """Other slots stay."""
    for name in (f"{PROBE_PREFIX}1/playbook", "agp-1/playbook"):
        (folder / name).mkdir(parents=True)
    await choose_slots(engine, folder, IMAGE, LABELS, None)
    assert [path.name for path in folder.iterdir()] == ["agp-1"]
