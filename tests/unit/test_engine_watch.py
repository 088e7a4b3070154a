"""The watch over the engine: contact, loss, and how many tasks run at once."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agp_agent.engine import EngineInfo
from agp_agent.engine_watch import EngineWatch, decide_max_running, describe_lacks
from agp_agent.errors import AgentError, EngineError
from agp_agent.lacks import Lack
from fakes.fake_host import FakeHost
from support.agent_parts import IMAGE, LABELS, Parts, agent, catalog_of, machine
from support.async_waiting import until

MIB = 2**20
GIB = 2**30


# --- how many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "largest_bytes", "wanted", "max_uids", "number", "why"),
    [
        (2, 64 * GIB, 512 * MIB, None, 256, 8, "4 x 2 cores"),
        (16, 8 * GIB, 512 * MIB, None, 256, 12, "512 MiB each in 80 % of the host's memory"),
        (2, 64 * GIB, 512 * MIB, None, 3, 3, "AGP_UID_RANGE holds no more users"),
        (2, 256 * MIB, 512 * MIB, None, 256, 1, "512 MiB each in 80 % of the host's memory"),
        (2, GIB, 512 * MIB, 50, 256, 50, "AGP_MAX_RUNNING"),
        (2, GIB, 512 * MIB, 256, 256, 256, "AGP_MAX_RUNNING"),
        (2, GIB, 512 * MIB, 300, 256, 256, "AGP_UID_RANGE holds no more users"),
        (0, 1024 * GIB, 16 * MIB, None, 10**6, 4 * (os.cpu_count() or 1), f"4 x {os.cpu_count()} cores"),
    ],
)
def test_how_many_run_at_once_follows_from_the_machine_unless_the_operator_says(
    cores: int, memory_bytes: int, largest_bytes: int, wanted: int | None, max_uids: int, number: int, why: str
) -> None:
    """The least of what cores, memory and users allow; the log says which."""
    info = EngineInfo("fake", "1", cores, memory_bytes)
    assert decide_max_running(info, largest_bytes, wanted, max_uids) == (number, why)


@pytest.mark.parametrize(("wanted", "number"), [(None, 2), (50, 2), (1, 1)])
def test_no_more_run_than_there_are_file_descriptors_for(wanted: int | None, number: int) -> None:
    """Whatever the operator wants: a task without its stream would be of no use."""
    info = EngineInfo("fake", "1", 2, 64 * GIB)
    assert decide_max_running(info, 512 * MIB, wanted, 256, max_by_files=2)[0] == number


def test_what_waits_warm_has_its_share_of_the_memory() -> None:
    """A container that a task has claimed is replaced while that task runs: both count."""
    info = EngineInfo("fake", "1", 16, 8 * GIB)
    why = "512 MiB each in 80 % of the host's memory beside 1536 MiB of warm containers"
    assert decide_max_running(info, 512 * MIB, None, 256, warm_bytes=3 * 512 * MIB) == (9, why)
    assert decide_max_running(info, 512 * MIB, None, 256, warm_bytes=8 * GIB)[0] == 1


# --- the loop ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    """The machine."""
    async with machine() as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path, host: FakeHost) -> AsyncIterator[Parts]:
    """An agent's parts that have not reached the engine yet."""
    async with agent(tmp_path, host, catalog=catalog_of(python={"image": "agp/other", "pull": "never"})) as made:
        made.readiness.max_running = 0
        made.readiness.problems["engine"] = "not reached yet"
        yield made


class Contacts:
    """What is to be done at each contact."""

    def __init__(self, parts: Parts) -> None:
        """Nobody has contacted anything yet."""
        self.number = 0
        self.errors: list[AgentError] = []
        self._parts = parts
        self.ready_at_contact = False

    async def __call__(self) -> None:
        """Count, and fail where the test says so."""
        self.number += 1
        self.ready_at_contact |= self._parts.readiness.ready
        if self.errors:
            raise self.errors.pop(0)


def watch(parts: Parts, contacts: Contacts, *, max_running: int | None = 3) -> asyncio.Task[None]:
    """Run the loop."""
    made = EngineWatch(
        parts.engine,
        parts.executor,
        parts.pool,
        parts.catalogs,
        parts.readiness,
        contacts,
        slots=parts.folder / "slots",
        engine_state_dir=None,
        labels=LABELS,
        max_running=max_running,
        max_uids=256,
    )
    return parts.go(made.run())


async def ready(parts: Parts) -> None:
    """Wait until tasks could start."""
    await until(lambda: parts.readiness.ready, "ready")


async def problem(parts: Parts, part: str, text: str) -> None:
    """Wait until a part is reported with this."""
    await until(lambda: text in parts.readiness.problems.get(part, ""), f"{part}: {text}")


async def test_at_the_first_contact_everything_is_found_out_before_the_agent_is_ready(parts: Parts) -> None:
    """How playbooks are handed over, how many run, and what an earlier agent left."""
    contacts = Contacts(parts)
    watch(parts, contacts)
    await ready(parts)
    assert parts.readiness.slots == 3
    assert parts.executor.slots.kind == "same path"
    assert (contacts.number, contacts.ready_at_contact) == (1, False)


async def test_without_a_setting_the_engines_machine_decides(parts: Parts) -> None:
    """Its cores and its memory, not the agent's."""
    watch(parts, Contacts(parts), max_running=None)
    await ready(parts)
    assert parts.readiness.slots == 8


async def test_an_absent_engine_is_waited_for(parts: Parts) -> None:
    """The agent is not ready and says why; it becomes ready by itself."""
    parts.engine.go_away()
    contacts = Contacts(parts)
    watch(parts, contacts)
    await problem(parts, "engine", "does not answer")
    assert not parts.readiness.ready
    assert contacts.number == 0
    await parts.engine.come_back(restarted=True)
    await ready(parts)
    assert contacts.number == 1


async def test_a_doubt_makes_it_look_again_soon(parts: Parts) -> None:
    """Not only at the next turn; and what was only a doubt is over after the look."""
    watch(parts, Contacts(parts))
    await ready(parts)
    parts.readiness.doubt("engine", "somebody met an error")
    assert not parts.readiness.ready
    await ready(parts)
    assert not parts.readiness.doubted.is_set()


async def test_a_new_contact_is_treated_as_the_first(parts: Parts) -> None:
    """The engine may be another one now."""
    contacts = Contacts(parts)
    watch(parts, contacts)
    await ready(parts)
    parts.engine.go_away()
    parts.readiness.doubt("engine", "gone")
    await problem(parts, "engine", "does not answer")
    await parts.engine.come_back(restarted=True)
    await ready(parts)
    assert contacts.number == 2


async def test_broken_contact_is_looked_into_at_once(parts: Parts) -> None:
    """Nobody need doubt the engine first."""
    watch(parts, Contacts(parts))
    await ready(parts)
    parts.engine.go_away()
    await problem(parts, "engine", "does not answer")


async def test_an_engine_that_hangs_is_a_problem_and_is_not_asked_again_meanwhile(parts: Parts) -> None:
    """Its answer is still waited for: when it comes, all is well again."""
    watch(parts, Contacts(parts))
    await ready(parts)
    parts.engine.freeze()
    asked = parts.engine.calls
    parts.readiness.doubt("engine", "somebody waits")
    await problem(parts, "engine", "does not answer within")
    assert parts.engine.calls == asked + 1
    parts.engine.thaw()
    await ready(parts)


async def test_while_nothing_changes_nothing_is_done_again(parts: Parts) -> None:
    """A look at a well engine is a look."""
    contacts = Contacts(parts)
    watch(parts, contacts)
    await ready(parts)
    parts.readiness.doubt("engine", "a doubt")
    await ready(parts)
    assert contacts.number == 1


async def test_without_any_runner_image_the_agent_is_not_ready(parts: Parts, host: FakeHost) -> None:
    """All that are missing are named, with what to do about each; one is enough to begin."""
    host.images.clear()
    watch(parts, Contacts(parts))
    await problem(parts, "runner images", "no runner's image is available")
    said = parts.readiness.problems["runner images"]
    assert IMAGE in said
    assert "agp/other" in said
    assert "engine" not in parts.readiness.problems
    host.images["agp/other"] = "sha256:2"
    await ready(parts)


async def test_an_image_of_the_registry_is_fetched_at_the_first_contact(parts: Parts, host: FakeHost) -> None:
    """As the runner's pull policy allows."""
    host.images.clear()
    host.registry[IMAGE] = "sha256:3"
    watch(parts, Contacts(parts))
    await ready(parts)
    assert host.pulls == [IMAGE]


@pytest.mark.parametrize("error", [EngineError("refused"), AgentError("the journal cannot be read: disk I/O error")])
async def test_a_contact_that_fails_is_tried_again(parts: Parts, error: AgentError) -> None:
    """Also where it is the journal that fails: the loop never ends, and nothing starts before it went well."""
    contacts = Contacts(parts)
    contacts.errors = [error]
    loop = watch(parts, contacts)
    await problem(parts, "engine", str(error))
    await ready(parts)
    assert contacts.number == 2
    assert not loop.done()


# --- what the engine lacks, and another catalog ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacking", "accepted", "told"),
    [
        ((), (), None),
        ((), (Lack.SWAP,), None),
        ((Lack.SWAP,), (Lack.SWAP,), "missing, as AGP_ACCEPT_DEGRADED accepts: swap"),
        (
            (Lack.SWAP, Lack.PIDS),
            (Lack.SWAP,),
            "the engine cannot do: pids; containers are refused unless AGP_ACCEPT_DEGRADED accepts that",
        ),
    ],
)
def test_what_an_engine_lacks_is_told(lacking: tuple[Lack, ...], accepted: tuple[Lack, ...], told: str | None) -> None:
    """And whether anything runs all the same."""
    assert describe_lacks(frozenset(lacking), frozenset(accepted)) == told


async def test_another_catalog_is_a_reason_to_look_again(parts: Parts) -> None:
    """It may have larger runners, and other images."""
    contacts = Contacts(parts)
    watch(parts, contacts, max_running=None)
    await ready(parts)
    before = parts.readiness.max_running
    parts.catalogs.replace(catalog_of(large={"memory": "4GiB"}))
    await until(lambda: contacts.number > 1, "a second contact")
    await until(lambda: parts.readiness.max_running < before, "fewer places")
