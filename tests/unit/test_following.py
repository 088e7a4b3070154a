"""Following outputs from the journal: every position that was given out is one to go on from."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agp_agent.capture import Spool
from agp_agent.following import Following, Missing, Piece, Position
from agp_agent.journal import Kept
from agp_agent.lifecycle import State
from agp_agent.output import Output
from agp_agent.watch import LiveRun


@dataclass
class Views:
    """What the journal says of one task."""

    kept_now: Kept

    async def kept(self, _task_id: str, _attempt: int | None = None) -> Kept:
        """Always the same."""
        return self.kept_now


@dataclass
class OneTask:
    """A journal with that task."""

    output: Output
    views: Views = field(init=False)

    def __post_init__(self) -> None:
        self.views = Views(Kept("run", 1, State.FINISHED, self.output))


async def read(output: Output, start: int = 0) -> list[Piece | Missing]:
    """All that comes from a position on."""
    following = Following(OneTask(output))  # type: ignore[arg-type]
    return [piece async for piece in following.pieces("t", Position(start, 1))]


COUNTED = Output(b"head", b"the tail", 100, 88)
UNCOUNTED = Output(b"head", b"the tail", 100, 88, at_least=True)
NOWHERE = Output(b"head", b"the tail", 12, 0, at_least=True)


@pytest.mark.parametrize(
    ("output", "omitted", "behind"),
    [(COUNTED, 88, 92), (UNCOUNTED, None, 92), (NOWHERE, None, 4)],
    ids=["counted", "at least", "unknown"],
)
async def test_a_gap_ends_where_the_tail_begins(output: Output, omitted: int | None, behind: int) -> None:
    """However well it was counted; the last position is all that was printed."""
    assert await read(output) == [Piece("head", 4), Missing(omitted, behind), Piece("the tail", output.total_bytes)]


@pytest.mark.parametrize("output", [COUNTED, UNCOUNTED, NOWHERE], ids=["counted", "at least", "unknown"])
async def test_going_on_from_any_position_repeats_no_text(output: Output) -> None:
    """From each one that was given out, the rest is what had not come."""
    whole = await read(output)
    for number, piece in enumerate(whole, 1):
        rest = [one.text for one in await read(output, piece.end) if isinstance(one, Piece)]
        assert rest == [one.text for one in whole[number:] if isinstance(one, Piece)]


async def test_an_agent_that_stops_sends_no_more() -> None:
    """Nothing follows, and it is told apart from an output that was at its end."""
    following = Following(OneTask(COUNTED))  # type: ignore[arg-type]
    before = following.closed
    following.close()
    assert (before, following.closed) == (False, True)
    assert [piece async for piece in following.pieces("t", Position())] == []


def open_files() -> int:
    """How many file descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_who_leaves_a_silent_task_leaves_nothing(tmp_path: Path) -> None:
    """No file descriptor and no task of the event loop, however many come and go while nothing is printed."""
    spool = Spool.create(tmp_path / "spool", 1000)
    spool.append(b"before")
    silent = OneTask(COUNTED)
    silent.views = Views(Kept("run", 1, State.RUNNING, Output()))
    following = Following(silent)  # type: ignore[arg-type]
    following.observe("run", LiveRun("container", "slot", b"", spool, None))

    async def look_on() -> None:
        async for _ in following.pieces("t", Position()):
            pass

    before = (open_files(), len(asyncio.all_tasks()))
    followers = [asyncio.create_task(look_on()) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert open_files() == before[0] + 20, "control: each reads for itself"
    for one in followers:
        one.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    assert (open_files(), len(asyncio.all_tasks())) == before
    spool.discard()


@pytest.mark.parametrize(
    ("text", "position"),
    [("0", Position()), ("35", Position(35, 1)), ("35@2", Position(35, 2)), ("0@2", Position(0, 2))],
)
def test_a_position_is_what_is_written(text: str, position: Position) -> None:
    """Of the first attempt the bytes alone; none at all is the beginning of the latest."""
    assert (Position.parse(text), str(position)) == (position, text)
