"""Verifying a trail: each way to tamper with one is really tried, and what is told of it."""

import asyncio
import hashlib
import json
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from agp_agent.audit import FILES_KEPT, Audit, AuditEvent, AuditHead
from agp_agent.audit_files import full_files
from agp_agent.audit_verification import PROBLEMS_KEPT, Problem, Report, parse_head, verify

LINES: Final = 18


async def write(path: Path, number: int = LINES, *, file_max_bytes: int = 750) -> None:
    """Record so many events, each on disk before the next."""
    audit = Audit(path, file_max_bytes=file_max_bytes)
    for count in range(number):
        audit.record(AuditEvent.TASK_ACCEPTED, task_id=f"task {count}")
        await audit.flush()
    await audit.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A trail of three full files and a current one with some lines."""
    trail = tmp_path / "audit.jsonl"
    asyncio.run(write(trail))
    assert [len(file.read_bytes().splitlines()) for file in files(trail)] == [5, 5, 5, 3]
    return trail


def files(path: Path) -> list[Path]:
    """All files of the trail in their order."""
    return [*full_files(path), path]


def lines(file: Path) -> list[bytes]:
    """The lines of a file, with their ends."""
    return file.read_bytes().splitlines(keepends=True)


def put(file: Path, new: list[bytes]) -> None:
    """Let a file have these lines."""
    file.write_bytes(b"".join(new))


def rechained(new: list[bytes], before: str) -> list[bytes]:
    """What somebody who knows the format would write: every line vouches for the one before it."""
    found = []
    for line in new:
        document = json.loads(line) | {"prev": before}
        text = json.dumps(document, separators=(",", ":")).encode()
        before = hashlib.sha256(text).hexdigest()
        found.append(text + b"\n")
    return found


def whats(report: Report) -> list[str]:
    """All problems as people read them."""
    assert report.problems_total == len(report.problems)
    return [str(problem) for problem in report.problems]


def not_following(where: str, file: str, line: int, seq: int) -> str:
    """The sentence for a line that does not vouch for the one before it."""
    before = f"({file}, line {line}, seq {seq})"
    return f"{where}: it does not follow the line before it {before}: one of the two was changed or replaced"


# --- whole trails ------------------------------------------------------------------------------------------------


def test_a_trail_over_several_files_is_whole(path: Path) -> None:
    """From its first line to its head."""
    report = verify(path)
    last = path.read_bytes().splitlines()[-1]
    assert (report.is_whole, report.first_seq, report.repairs) == (True, 1, 0)
    assert report.head == AuditHead(LINES, hashlib.sha256(last).hexdigest())
    assert report.files == [file.name for file in files(path)]
    assert report.text() == f"The trail is whole: seq 1 to 18 in 4 files. Head: {report.head}"


def test_every_head_that_a_trail_ever_had_is_found_in_it(path: Path) -> None:
    """Also one of an earlier file; no head at all vouches for nothing."""
    everything = [line for file in files(path) for line in lines(file)]
    for seq, line in enumerate(everything, 1):
        assert verify(path, AuditHead(seq, hashlib.sha256(line[:-1]).hexdigest())).is_whole
    assert verify(path, AuditHead()).is_whole


async def test_a_recorded_repair_of_a_torn_last_line_is_accepted(path: Path) -> None:
    """The agent cut it off and said so: the trail is whole, and the report tells of it."""
    with path.open("ab") as file:
        file.write(b'{"time":"20')
    assert whats(verify(path)) == ["audit.jsonl, line 4 (seq 19): the line is torn: its 11 bytes have no end"]
    await write(path, 1)
    report = verify(path)
    assert (report.is_whole, report.repairs, report.head.seq) == (True, 1, LINES + 2)
    assert "Torn last lines that were cut off and recorded: 1." in report.text()


DAMAGED: Final = "the line is damaged: it is no event of an audit trail"


async def test_a_trail_whose_oldest_files_were_rotated_away_is_whole(tmp_path: Path) -> None:
    """After every drop: the newest of them vouches for the beginning. A known head of before can vouch for nothing."""
    path = tmp_path / "audit.jsonl"
    firsts = set()
    for _ in range(3 * FILES_KEPT):
        await write(path, 1, file_max_bytes=1)
        report = verify(path)
        assert whats(report) == []
        firsts.add(report.first_seq)
    assert len(firsts) > FILES_KEPT
    report = verify(path)
    last, name = report.head.seq, report.files[-1]
    (what,) = whats(verify(path, AuditHead(5, "0" * 64)))
    assert what.startswith(f"{name}, line ")
    assert what.endswith(f"(seq {last}): the known head 5 is older than the oldest line that is kept: give a newer one")


def unvouched(file: Path, seq: int) -> str:
    """The sentence for a beginning that is missing."""
    return (
        f"{file.name}, line 1 (seq {seq}): the beginning is missing (seq 1 to {seq - 1}), and nothing vouches for it: "
        "it was deleted, or dropped by an agent before 0.2.0, which did not record that"
    )


async def test_a_beginning_that_somebody_deleted_is_missing(path: Path) -> None:
    """One file or several, also where the known head is met; and by lines at the beginning of the first."""
    head = verify(path).head
    one, two, three, _ = files(path)
    one.unlink()
    assert whats(verify(path)) == whats(verify(path, head)) == [unvouched(two, 6)]
    two.unlink()
    assert whats(verify(path, head)) == [unvouched(three, 11)]
    put(three, lines(three)[2:])
    assert whats(verify(path, head)) == [unvouched(three, 13)]


async def test_the_drop_of_one_file_does_not_vouch_for_that_of_another(tmp_path: Path) -> None:
    """The agent dropped some itself; then somebody deleted one more, or wrote the first line that is kept anew."""
    path = tmp_path / "audit.jsonl"
    await write(path, 2 * FILES_KEPT, file_max_bytes=1)
    assert verify(path).is_whole
    one, two = files(path)[:2]
    kept = one.read_bytes()
    one.unlink()
    assert whats(verify(path)) == [unvouched(two, json.loads(lines(two)[0])["seq"])]
    one.write_bytes(kept)
    assert verify(path).is_whole
    put(one, rechained(lines(one), "f" * 64))
    assert unvouched(one, json.loads(kept.splitlines()[0])["seq"]) in whats(verify(path))


@pytest.mark.parametrize("deleted", [1, 3])
async def test_the_agent_s_own_drops_do_not_hide_what_somebody_deleted(tmp_path: Path, deleted: int) -> None:
    """The oldest files, after it dropped some itself: told until the event that tells it goes itself."""
    path = tmp_path / "audit.jsonl"
    await write(path, 2 * FILES_KEPT, file_max_bytes=1)
    assert verify(path).is_whole
    oldest = files(path)[:deleted]
    first, last = json.loads(lines(oldest[0])[0])["seq"], json.loads(lines(oldest[-1])[-1])["seq"]
    for file in oldest:
        file.unlink()
    assert not verify(path).is_whole
    await write(path, deleted + 3, file_max_bytes=1)
    (what,) = whats(verify(path))
    gap = f"seq {first}" if first == last else f"seq {first} to {last}"
    assert what.endswith(f"missing when the agent dropped a file: {gap}, deleted by somebody else")


async def test_nobody_is_accused_of_what_an_agent_before_0_2_0_may_have_dropped(tmp_path: Path) -> None:
    """Where the first drop that is recorded is not of the trail's beginning, both may be, and both are told."""
    path = tmp_path / "audit.jsonl"
    await write(path, FILES_KEPT, file_max_bytes=1)
    gone = files(path)[:3]
    for file in gone:  # as it did: without a word
        file.unlink()
    first = json.loads(lines(files(path)[0])[0])["seq"]
    await write(path, len(gone) + 1, file_max_bytes=1)
    (what,) = whats(verify(path))
    assert what.endswith(unvouched(path, first).partition(": ")[2])


async def test_lines_that_somebody_deleted_in_a_file_are_told_after_its_drop(tmp_path: Path) -> None:
    """Those at the beginning of the oldest one, which no line before it betrays."""
    path = tmp_path / "audit.jsonl"
    await write(path, 3, file_max_bytes=2**20)
    await write(path, FILES_KEPT - 1, file_max_bytes=1)
    oldest = files(path)[0]
    assert len(lines(oldest)) > 2
    put(oldest, lines(oldest)[2:])
    await write(path, 2, file_max_bytes=1)
    (what,) = whats(verify(path))
    assert what.endswith(unvouched(path, 3).partition(": ")[2])


async def test_a_file_that_is_dropped_twice_is_no_gap(path: Path) -> None:
    """The agent died between the event and the removal; the next one drops the file again."""
    one = files(path)[0]
    head, beginning = f"5:{hashlib.sha256(lines(one)[-1][:-1]).hexdigest()}", json.loads(lines(one)[0])["seq"]
    one.unlink()
    audit = Audit(path)
    for after in (None, head):
        audit.record(AuditEvent.AUDIT_FILE_DROPPED, file=one.name, first_seq=beginning, head=head, after=after)
    await audit.aclose()
    assert verify(path).is_whole


@pytest.mark.parametrize("head", ["", "5", "5:" + "0" * 64])
async def test_a_drop_that_names_another_head_vouches_for_nothing(path: Path, head: str) -> None:
    """Or none at all."""
    one, two = files(path)[:2]
    one.unlink()
    audit = Audit(path)
    audit.record(AuditEvent.AUDIT_FILE_DROPPED, file=one.name, head=head)
    await audit.aclose()
    assert whats(verify(path)) == [unvouched(two, 6)]


async def test_a_trail_that_is_being_written_and_rotated_meanwhile_is_whole(tmp_path: Path) -> None:
    """Nothing that happens in between looks like tampering."""
    path, done = tmp_path / "audit.jsonl", threading.Event()

    def look() -> list[Report]:
        reports = []
        while not done.is_set():
            reports.append(verify(path))
        return reports

    await write(path, 1, file_max_bytes=1)
    looking = asyncio.create_task(asyncio.to_thread(look))
    await write(path, 150, file_max_bytes=500)
    done.set()
    reports = await looking
    assert len({report.head.seq for report in reports}) > 3
    assert [whats(report) for report in reports if not report.is_whole] == []


# --- tampering ---------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found(path: Path) -> None:
    """Wherever it is in the first file or the last; in the very last line by the known head alone."""
    head = verify(path).head
    for file in files(path)[::3]:
        good = file.read_bytes()
        vouched_for_by_a_line = len(good) - (len(lines(file)[-1]) if file == path else 0)
        for place in range(len(good) - 1 if file == path else len(good)):  # the last end is the next test's
            bad = bytearray(good)
            bad[place] ^= 1 << place % 7
            file.write_bytes(bad)
            known = None if place < vouched_for_by_a_line else head
            assert not verify(path, known).is_whole, (file.name, place)
        file.write_bytes(good)
    assert verify(path, head).is_whole


def test_the_end_of_the_last_line_is_looked_at_too(path: Path) -> None:
    """Flipped, the line is torn."""
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    report = verify(path)
    assert [problem.seq for problem in report.problems] == [LINES]
    assert "the line is torn" in report.problems[0].what


def test_a_changed_line_is_named_by_the_next(path: Path) -> None:
    """With its file, its line and its number."""
    first, second, *rest = lines(path)
    put(path, [first.replace(b"task 15", b"task 99"), second, *rest])
    assert whats(verify(path)) == [not_following("audit.jsonl, line 2 (seq 17)", "audit.jsonl", 1, 16)]


def test_a_deleted_line_is_missing(path: Path) -> None:
    """One or several; by their numbers."""
    kept = lines(files(path)[1])
    put(files(path)[1], [kept[0], *kept[2:]])
    name = files(path)[1].name
    assert whats(verify(path)) == [f"{name}, line 2 (seq 8): missing before it: seq 7"]
    put(files(path)[1], [kept[0], *kept[4:]])
    assert whats(verify(path)) == [f"{name}, line 2 (seq 10): missing before it: seq 7 to 9"]


def test_swapped_lines_are_out_of_order(path: Path) -> None:
    """Each of them is told."""
    first, second, third = lines(path)
    put(path, [first, third, second])
    assert whats(verify(path)) == [
        "audit.jsonl, line 2 (seq 18): missing before it: seq 17",
        "audit.jsonl, line 3 (seq 17): the line was inserted, repeated or moved: seq 18 stands before it",
    ]


def test_an_inserted_line_is_told_from_the_others(path: Path) -> None:
    """A repeated one, a made-up one that vouches for what is before it, and one that is nothing at all."""
    first, second, third = lines(path)
    put(path, [first, first, second, third])
    assert whats(verify(path)) == [
        "audit.jsonl, line 2 (seq 16): the line was inserted, repeated or moved: seq 16 stands before it"
    ]
    (made_up,) = rechained([second.replace(b"task 16", b"task 77")], hashlib.sha256(first[:-1]).hexdigest())
    put(path, [first, made_up, second, third])
    assert whats(verify(path)) == [
        "audit.jsonl, line 3 (seq 17): the line was inserted, repeated or moved: seq 17 stands before it"
    ]
    put(path, [first, b"\n", second, third])
    report = verify(path)
    assert (report.problems[0].line, report.problems[0].what) == (2, DAMAGED)


def test_a_rewritten_line_is_found_although_it_vouches_for_the_one_before(path: Path) -> None:
    """The line behind it does not vouch for it."""
    first, second, third = lines(path)
    (written,) = rechained([second.replace(b"task 16", b"task 77")], hashlib.sha256(first[:-1]).hexdigest())
    put(path, [first, written, third])
    assert whats(verify(path)) == [not_following("audit.jsonl, line 3 (seq 18)", "audit.jsonl", 2, 17)]


def test_a_trail_that_was_written_anew_from_some_line_on_is_found_by_the_known_head(path: Path) -> None:
    """Without one it looks whole: that is what heads at the dashboard are for."""
    head = verify(path).head
    first, second, third = lines(path)
    before = hashlib.sha256(first[:-1]).hexdigest()
    put(path, [first, *rechained([second.replace(b"task 16", b"task 77"), third], before)])
    assert verify(path).is_whole
    (what,) = whats(verify(path, head))
    assert what.startswith("audit.jsonl, line 3 (seq 18): the line is not the one that the known head vouches for")


@pytest.mark.parametrize("cut", [1, 2])
def test_a_truncated_tail_is_found_by_the_known_head(path: Path, cut: int) -> None:
    """Without one a shorter trail looks whole."""
    head = verify(path).head
    put(path, lines(path)[:-cut])
    assert verify(path).is_whole
    assert whats(verify(path, head)) == [
        f"audit.jsonl, line {3 - cut} (seq {LINES - cut}): the trail was cut off: it ends before the known head 18"
    ]


def test_a_tail_that_was_cut_in_the_middle_of_a_line_is_torn(path: Path) -> None:
    """Also without a known head."""
    path.write_bytes(path.read_bytes()[:-20])
    assert "the line is torn" in verify(path).problems[0].what


def test_a_missing_middle_file_is_found(path: Path) -> None:
    """By the numbers that it held."""
    gone, after = files(path)[1:3]
    gone.unlink()
    assert whats(verify(path)) == [f"{after.name}, line 1 (seq 11): missing before it: seq 6 to 10"]


def test_a_missing_current_file_is_found(path: Path) -> None:
    """A trail always has one."""
    path.unlink()
    assert whats(verify(path)) == [f"audit.jsonl, line 0 (seq 15): there is no {path}"]
    assert not verify(path.with_name("other.jsonl")).is_whole


@pytest.mark.parametrize(
    ("tamper", "seqs"),
    [
        (lambda before, after: (before[:-1], after), [6]),
        (lambda before, after: (before, after[1:]), [7]),
        (lambda before, after: ([*before, after[0]], after[1:]), []),
        (lambda before, after: (before, [before[-1], *after]), [5]),
        (lambda before, after: ([*before[:-1], after[0]], [before[-1], *after[1:]]), [6, 5, 7]),
        (lambda before, after: ([*before[:-1], before[-1].replace(b"task 4", b"task x")], after), [6]),
        (lambda before, after: (before, [after[0].replace(b"task 5", b"task x"), *after[1:]]), [7]),
    ],
    ids=["last deleted", "first deleted", "moved over", "repeated", "swapped", "last changed", "first changed"],
)
def test_damage_at_the_border_of_two_files_is_found(
    path: Path,
    tamper: Callable[[list[bytes], list[bytes]], tuple[list[bytes], list[bytes]]],
    seqs: list[int],
) -> None:
    """The chain runs through; only where the border lies it does not tell."""
    one, two = files(path)[:2]
    for file, new in zip((one, two), tamper(lines(one), lines(two)), strict=True):
        put(file, new)
    assert [problem.seq for problem in verify(path).problems] == seqs


def test_files_whose_contents_were_exchanged_are_found(path: Path) -> None:
    """Their names do not vouch for them."""
    one, two = files(path)[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert not verify(path).is_whole


def test_a_first_line_that_does_not_begin_a_trail_is_found(path: Path) -> None:
    """Somebody put the beginning of another trail there."""
    one = files(path)[0]
    put(one, rechained(lines(one), "f" * 64))
    assert "does not begin a trail" in verify(path).problems[0].what


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1]",
        b'{"seq":true,"prev":"x","event":"y"}',
        b'{"seq":1}',
        b'{"seq":0,"prev":"x","event":"y"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_lines_that_are_no_events_are_damaged(path: Path, line: bytes) -> None:
    """Whatever they are, nothing is raised, and the lines behind them are still looked at."""
    kept = lines(path)
    put(path, [kept[0], line + b"\n", kept[2]])
    problems = verify(path).problems
    assert (problems[0].line, problems[0].seq, problems[0].what) == (2, 17, DAMAGED)
    assert problems[1].seq == LINES


def test_of_very_many_problems_the_first_are_told_and_all_are_counted(path: Path) -> None:
    """A report stays one that somebody reads."""
    path.write_bytes(b"x\n" * 1000)
    report = verify(path)
    assert (len(report.problems), report.problems_total) == (PROBLEMS_KEPT, 1000)
    assert f"… and {1000 - PROBLEMS_KEPT} problems more." in report.text()
    assert report.document()["problems_total"] == 1000


def test_a_long_trail_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """It is read line by line; a line without end is read in pieces of a bounded size."""
    path = tmp_path / "audit.jsonl"
    line = b'{"seq":1,"prev":"' + b"0" * 64 + b'","event":"x","text":"' + b"x" * 10_000 + b'"}\n'
    path.write_bytes(line * 2_000)
    tracemalloc.start()
    verify(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 1_000_000


def test_a_problem_is_one_sentence() -> None:
    """File, line, number, and what is wrong."""
    assert str(Problem("audit.jsonl", 3, 17, "it is so")) == "audit.jsonl, line 3 (seq 17): it is so"


@pytest.mark.parametrize("text", ["", "17", "17:", ":" + "a" * 64, "17:" + "g" * 64, "-1:" + "a" * 64, "1:" + "a" * 63])
def test_a_head_that_is_none_is_an_error(text: str) -> None:
    """With the form that was expected."""
    with pytest.raises(ValueError, match=r"^expected a head as in the header AGP-Audit-Head: 17:<64 hex"):
        parse_head(text)


def test_a_head_is_read_as_it_is_written() -> None:
    """As the header carries it."""
    head = AuditHead(17, "ab" * 32)
    assert parse_head(f" {head}\n") == head
