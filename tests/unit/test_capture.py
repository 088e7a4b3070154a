"""The spool, held against a model that keeps everything."""

import asyncio
import itertools
import os
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agp_agent.capture import Gap, Spool, complete_from_log
from agp_agent.engine import ContainerLog
from agp_agent.output import Output

LIMIT = 1024
PATIENCE_S = 10.0

LIMITS = st.integers(1024, 1200)
CHUNK_SIZES = st.lists(st.one_of(st.integers(0, 40), st.integers(400, 1300), st.integers(0, 4000)), max_size=12)


def printed(length: int, start: int = 0) -> bytes:
    """Return the bytes a playbook prints at these positions: every one of them can be told from its neighbours."""
    return b"".join(position.to_bytes(3, "big") for position in range(start // 3, (start + length) // 3 + 1))[
        start % 3 : start % 3 + length
    ]


def kept(data: bytes, limit: int) -> Output:
    """Return what is to be kept of ``data``: the model."""
    if len(data) <= limit:
        return Output(data, b"", len(data))
    head_bytes = limit // 2
    return Output.cut(data[:head_bytes], data[len(data) - (limit - head_bytes) :], len(data))


@contextmanager
def spooled(limit: int = LIMIT) -> Iterator[tuple[Spool, Path]]:
    """Make a spool in a folder of its own: hypothesis runs a test many times in one ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool.create(Path(folder, "spool"), limit)
        try:
            yield spool, Path(folder, "spool")
        finally:
            spool.discard()


def reopened(path: Path, limit: int = LIMIT) -> Output:
    """Return what the next agent finds."""
    spool = Spool.reopen(path, limit)
    try:
        return spool.output()
    finally:
        spool.discard()


@given(LIMITS, CHUNK_SIZES)
@example(1024, [1025])
@example(1024, [512, 513])
@example(1025, [1, 1025])
@example(1024, [5000, 1])
@example(1024, [511, 1, 5000])
def test_any_chunking_keeps_what_the_model_keeps(limit: int, sizes: list[int]) -> None:
    """Head and tail within the limit, the middle counted; after each append, and as a new agent finds it."""
    with spooled(limit) as (spool, path):
        data = b""
        for size in sizes:
            data += printed(size, len(data))
            spool.append(data[len(data) - size :])
            assert spool.total_bytes == len(data)
            assert spool.output() == kept(data, limit)
            assert reopened(path) == kept(data, limit)
            for length in (0, 1, 100, limit - limit // 2):
                newest = spool.newest(length)
                assert data.endswith(newest)
                assert len(newest) == min(length, len(data))


@given(LIMITS, CHUNK_SIZES)
def test_the_file_never_grows_beyond_the_limit(limit: int, sizes: list[int]) -> None:
    """But for a small header."""
    with spooled(limit) as (spool, path):
        for size in sizes:
            spool.append(b"x" * size)
        assert path.stat().st_size <= limit + 64


class Dying(Spool):
    """A spool whose process is killed in the middle of one of its writes."""

    writes_left = 10**6

    def _pwrite(self, data: memoryview, offset: int) -> None:
        self.writes_left -= 1
        if self.writes_left == 0:
            os.pwrite(self._fd, data[: len(data) // 2], offset) if len(data) > 32 else None  # a header is not torn
            raise KeyboardInterrupt
        super()._pwrite(data, offset)


def check_true(output: Output, data: bytes) -> None:
    """Check that every byte of ``output`` was printed at its place."""
    assert output.total_bytes <= len(data)
    assert output.head == data[: len(output.head)]
    assert output.tail == data[output.total_bytes - len(output.tail) : output.total_bytes]
    assert len(output.head) + output.omitted_bytes + len(output.tail) == output.total_bytes


@settings(max_examples=200)
@given(st.lists(st.integers(1, 1500), max_size=6), st.integers(1, 1500), st.integers(1, 5))
@example([1000], 500, 2)
@example([1000], 500, 3)
@example([100], 5000, 2)
def test_after_a_death_in_the_middle_of_a_write_nothing_false_is_reported(
    sizes: list[int], last: int, dies_at: int
) -> None:
    """What a new agent finds was printed there, and so it is after what it adds from the engine's log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "spool")
        spool = Dying.create(path, LIMIT)
        data = b""
        for size in sizes:
            data += printed(size, len(data))
            spool.append(data[len(data) - size :])
        data += printed(last, len(data))
        spool.writes_left = dies_at
        with suppress(KeyboardInterrupt):
            spool.append(data[len(data) - last :])
        spool.discard()
        data += printed(700, len(data))  # what the container prints while no agent is there

        check_true(reopened(path), data)
        next_spool = Spool.reopen(path, LIMIT)
        check_true(next_spool.output(), data)
        next_spool.append(data[next_spool.total_bytes :][:10])
        check_true(next_spool.output(), data)
        check_true(reopened(path), data)
        complete_from_log(next_spool, ContainerLog(output=data), interrupted=True)
        check_true(next_spool.output(), data)
        assert next_spool.total_bytes == len(data)
        next_spool.discard()


@pytest.mark.parametrize("junk", [b"", b"agp", b"x" * 100])
def test_a_file_that_is_no_spool_begins_empty(tmp_path: Path, junk: bytes) -> None:
    """Whatever a crash or somebody else left there."""
    path = tmp_path / "spool"
    path.write_bytes(junk)
    assert reopened(path) == Output()


def test_a_missing_file_begins_empty(tmp_path: Path) -> None:
    """It is made."""
    assert reopened(tmp_path / "spool") == Output()
    assert (tmp_path / "spool").exists()


def test_creating_empties_an_old_file(tmp_path: Path) -> None:
    """A slot's name is never used twice, but if it were, nothing old would show."""
    first = Spool.create(tmp_path / "spool", LIMIT)
    first.append(b"old")
    first.discard()
    Spool.create(tmp_path / "spool", LIMIT).discard()
    assert reopened(tmp_path / "spool") == Output()


def test_the_limit_of_the_first_agent_holds(tmp_path: Path) -> None:
    """Changed settings do not tear the file."""
    spool = Spool.create(tmp_path / "spool", LIMIT)
    data = printed(5000)
    spool.append(data)
    spool.discard()
    assert reopened(tmp_path / "spool", 4096) == kept(data, LIMIT)


def test_a_gap_that_nobody_counted_is_stated() -> None:
    """The output says ``at least``."""
    with spooled() as (spool, _):
        spool.append(b"a\n")
        spool.note_gap()
        assert spool.output() == Output(b"a\n", b"", 2, 0, at_least=True)
        spool.append(printed(5000))
        assert spool.output().at_least


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_a_gap_outlives_the_agent_and_stands_at_its_place(before: int, after: int) -> None:
    """The line that states it stands between what was printed before and after, as long as there is room for both."""
    data = printed(before + after)
    with spooled() as (spool, path):
        spool.append(data[:before])
        spool.note_gap()
        spool.append(data[before:])
        output = reopened(path, LIMIT)
        assert output == spool.output()
        assert output.at_least
        check_true(output, data)
        if before <= LIMIT // 2 or before + after <= LIMIT:
            assert before - 4 < len(output.head) <= before  # but for the beginning of a character at its end


def test_a_spool_of_an_agent_before_gaps_were_written_down_is_taken_up(tmp_path: Path) -> None:
    """An upgrade meets spools whose limit had eight bytes."""
    (tmp_path / "spool").write_bytes(struct.pack("<8sQQQ", b"agpspool", LIMIT, 3, 3) + b"one")
    assert reopened(tmp_path / "spool", LIMIT) == Output(b"one", b"", 3)


# --- a disk that takes no more -----------------------------------------------------------------------------------


def test_a_full_disk_costs_bytes_and_never_the_run() -> None:
    """Every write fails; the bytes are counted and the output says that some are missing."""
    spool = Spool(os.open("/dev/full", os.O_RDWR), LIMIT, 0, 0)
    spool.append(b"x" * 100)
    spool.append(b"x" * 5000)
    output = spool.output()
    assert (output.total_bytes, output.at_least) == (5100, True)
    assert "[agp-agent: at least" in output.text()
    spool.discard()


def test_a_disk_that_takes_half_of_a_write_is_noticed(tmp_path: Path) -> None:
    """Such a write is no error of the system, but short."""
    script = """
        import os, resource, sys
        from agp_agent.capture import Spool
        spool = Spool(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 4096, 0, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        spool.append(b"x" * 300)
        print(spool.output().at_least, spool.output().total_bytes)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "spool")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("True 300\n", "")


# --- followers ---------------------------------------------------------------------------------------------------


def put_together(pieces: list[bytes | Gap], data: bytes) -> int:
    """Check that each piece was printed where it stands, and return the position after the last."""
    position = 0
    for piece in pieces:
        if isinstance(piece, Gap):
            assert piece.omitted_bytes > 0
            position += piece.omitted_bytes
        else:
            assert piece
            assert piece == data[position : position + len(piece)]
            position += len(piece)
    return position


async def collect(following: AsyncIterator[bytes | Gap]) -> list[bytes | Gap]:
    """Follow to the end."""
    return [piece async for piece in following]


async def test_a_follower_that_keeps_up_sees_every_byte() -> None:
    """Though only a part of them is kept, and from the first byte on wherever it began."""
    with spooled() as (spool, _):
        spool.append(printed(100))
        follower = asyncio.create_task(collect(spool.follow()))
        data = printed(100)
        for size in itertools.chain([1, 500, 512], [300] * 20):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            data += printed(size, len(data))
            spool.append(data[len(data) - size :])
        await asyncio.sleep(0)
        spool.close()
        pieces = await asyncio.wait_for(follower, PATIENCE_S)
        assert not [piece for piece in pieces if isinstance(piece, Gap)]
        assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == data


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 3)), max_size=15), LIMITS)
def test_a_slow_follower_meets_gaps_that_are_counted(steps: list[tuple[int, int]], limit: int) -> None:
    """Between appends it takes only so many pieces; in the end pieces and gaps make up everything printed."""

    async def scenario() -> None:
        data, pieces = b"", list[bytes | Gap]()
        async with aclosing(spool.follow()) as following:
            for size, takes in steps:
                data += printed(size, len(data))
                spool.append(data[len(data) - size :])
                while takes and put_together(pieces, data) < len(data):
                    pieces.append(await anext(following))
                    takes -= 1  # noqa: PLW2901  counted down
            spool.close()
            pieces += [piece async for piece in following]
        assert put_together(pieces, data) == len(data)

    with spooled(limit) as (spool, _):
        asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


async def test_several_followers_are_all_woken() -> None:
    """Each has its own place."""
    with spooled() as (spool, _):
        followers = [asyncio.create_task(collect(spool.follow())) for _ in range(5)]
        await asyncio.sleep(0)
        spool.append(b"hello")
        spool.close()
        assert await asyncio.wait_for(asyncio.gather(*followers), PATIENCE_S) == [[b"hello"]] * 5


async def test_a_follower_may_outlive_the_spools_file() -> None:
    """The result is delivered and the spool removed while somebody still reads."""
    with spooled() as (spool, path):
        spool.append(printed(900))
        async with aclosing(spool.follow()) as following:
            first = await anext(following)
            path.unlink()
            spool.discard()
            pieces = [first] + [piece async for piece in following]
        assert put_together(pieces, printed(900)) == 900


async def test_after_a_death_a_follower_is_told_what_is_missing() -> None:
    """A spool that was reopened in the middle of an overwrite has a gap there."""
    with tempfile.TemporaryDirectory() as folder:
        dying = Dying.create(Path(folder, "spool"), LIMIT)
        data = printed(1500)
        dying.append(data[:1000])
        dying.writes_left = 3
        with pytest.raises(KeyboardInterrupt):
            dying.append(data[1000:])
        dying.discard()
        spool = Spool.reopen(Path(folder, "spool"), LIMIT)
        follower = asyncio.create_task(collect(spool.follow()))
        await asyncio.sleep(0)
        spool.append(data[1000:])
        spool.close()
        pieces = await asyncio.wait_for(follower, PATIENCE_S)
        assert any(isinstance(piece, Gap) for piece in pieces)
        assert put_together(pieces, data) == 1500
        spool.discard()


# --- completion from the engine's log ----------------------------------------------------------------------------


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_a_log_with_its_beginning_completes_the_spool(seen: int, more: int) -> None:
    """By counting: what the spool has is not added again."""
    data = printed(seen + more)
    with spooled() as (spool, _):
        spool.append(data[:seen])
        complete_from_log(spool, ContainerLog(output=data), interrupted=True)
        assert spool.output() == kept(data, LIMIT)


@given(st.integers(0, 900), st.integers(1, 900), st.integers(1, 900))
@example(LIMIT // 2, LIMIT // 2 + 1, 1)  # they part in the one byte that is not kept
def test_where_stream_and_log_part_there_is_a_gap(common: int, streamed: int, logged: int) -> None:
    """An engine that was killed had streamed more than it had logged; its successor logs on from there."""
    with spooled() as (spool, _):
        spool.append(b"c" * common + b"s" * streamed)
        complete_from_log(spool, ContainerLog(output=b"c" * common + b"l" * logged), interrupted=True)
        output = spool.output()
        assert output.at_least
        if common + streamed <= LIMIT:
            assert output.tail.endswith(b"l" * min(logged, 50))


def test_a_log_that_is_shorter_than_the_spool_adds_nothing() -> None:
    """The stream saw more than the engine kept."""
    with spooled() as (spool, _):
        spool.append(b"abcdef")
        complete_from_log(spool, ContainerLog(output=b"abc"), interrupted=True)
        assert spool.output() == Output(b"abcdef", b"", 6)


@given(st.integers(16, 3000), st.integers(0, 3000), st.integers(0, 400))
def test_a_rotated_log_is_joined_where_it_overlaps(seen: int, more: int, overlap: int) -> None:
    """Where the log still holds the newest bytes of the spool, nothing is lost and nothing comes twice."""
    data = printed(seen + more)
    start = max(0, seen - LIMIT - overlap)
    with spooled() as (spool, _):
        spool.append(data[:seen])
        complete_from_log(spool, ContainerLog(output=data[start:], rotated=True), interrupted=True)
        assert spool.output() == kept(data, LIMIT)


def test_a_rotated_log_without_overlap_states_a_gap() -> None:
    """Nobody knows how much lies between."""
    with spooled() as (spool, _):
        spool.append(b"one\n")
        complete_from_log(spool, ContainerLog(output=b"nine\n", rotated=True), interrupted=True)
        assert spool.output() == Output(b"one\n", b"nine\n", 9, 0, at_least=True)


def test_a_rotated_log_and_nothing_in_the_spool_states_a_gap() -> None:
    """The beginning is missing for sure."""
    with spooled() as (spool, _):
        complete_from_log(spool, ContainerLog(output=b"end\n", rotated=True), interrupted=True)
        assert spool.output() == Output(b"", b"end\n", 4, 0, at_least=True)


@given(st.integers(1, 4000), st.integers(1, 3000))
def test_a_rotated_log_that_begins_among_the_newest_bytes_is_joined(overlap: int, more: int) -> None:
    """However little of the spool it repeats, nothing comes twice; where that may be chance, a gap is stated."""
    data = b"".join(b"%07d\n" % number for number in range(1000))[: 4096 + more]
    with spooled(16384) as (spool, _):
        spool.append(data[:4096])
        complete_from_log(spool, ContainerLog(output=data[4096 - overlap :], rotated=True), interrupted=True)
        output = spool.output()
        assert output.head + output.tail == data
        assert output.at_least == (overlap < 64)


def test_output_that_repeats_itself_is_joined_with_a_warning() -> None:
    """Where exactly it goes on cannot be told, so ``at least`` is said, and no byte is invented."""
    with spooled() as (spool, _):
        spool.append(b"x" * 100)
        complete_from_log(spool, ContainerLog(output=b"x" * 150, rotated=True), interrupted=True)
        output = spool.output()
        assert set(output.head) == {ord("x")}
        assert output.total_bytes <= 150


def test_a_stream_that_ended_early_and_missed_nothing_needs_nothing() -> None:
    """The playbook closed its stdout: the log ends as the spool does, however often that text came before."""
    with spooled() as (spool, _):
        spool.append(b"same\nsame\n")
        log = ContainerLog(output=b"same\nsame\n", rotated=True)
        complete_from_log(spool, log, interrupted=False)
        assert spool.output() == Output(b"same\nsame\n", b"", 10)


@pytest.mark.parametrize("came", [b"", b"one\n", b"one\ntwo\none", b"one\ntwo\none\n"])
def test_a_stream_that_was_cut_alone_is_completed(came: bytes) -> None:
    """The log goes on where the spool ends; that it ends alike proves nothing, nor that nothing came at all."""
    whole = b"one\ntwo\none\nthree\ntwo\none\n"
    with spooled() as (spool, _):
        spool.append(came)
        complete_from_log(spool, ContainerLog(output=whole), interrupted=False)
        assert spool.output() == Output(whole, b"", len(whole))


@pytest.mark.parametrize("log", [b"", b"one", b"one\ntwo", b"one\ntwo\n"])
def test_a_stream_that_had_all_is_left_as_it_is(log: bytes) -> None:
    """Also where the log lags behind, or an old engine ended a long line in it."""
    with spooled() as (spool, _):
        spool.append(b"one\ntwo")
        complete_from_log(spool, ContainerLog(output=log), interrupted=False)
        assert spool.output() == Output(b"one\ntwo", b"", 7)


def test_a_disk_without_room_for_a_whole_spool_is_told_at_once(tmp_path: Path) -> None:
    """Not in the middle of a run; no half-made file is left."""
    script = """
        import pathlib, resource, sys
        from agp_agent.capture import Spool
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        try:
            Spool.create(pathlib.Path(sys.argv[1]), 4096)
        except OSError as error:
            print(error.strerror, pathlib.Path(sys.argv[1]).exists())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "spool")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("File too large False\n", "")


async def test_an_empty_append_is_harmless() -> None:
    """Engines may send empty frames."""
    with spooled() as (spool, _):
        spool.append(b"")
        assert spool.output() == Output()
