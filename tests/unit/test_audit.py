"""The audit trail: its chain, its flushes, and what a broken disk does to it."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agp_agent import audit_files
from agp_agent.audit import FILES_KEPT, GENESIS, Audit, AuditEvent, AuditHead, OpenTasks, read_events
from agp_agent.audit_files import full_files
from agp_agent.redaction import Masker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the trail is."""
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the trail after having checked its chain from the first line to the last."""
    before, found = GENESIS, []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        entry = json.loads(line)
        assert (entry["seq"], entry["prev"]) == (number, before)
        before = hashlib.sha256(line).hexdigest()
        found.append(entry)
    return found


async def write(path: Path, *events: AuditEvent, **fields: object) -> AuditHead:
    """Record these in one go and close the trail."""
    audit = Audit(path)
    for event in events:
        audit.record(event, **fields)
    await audit.aclose()
    return audit.head


async def test_every_line_carries_the_hash_of_the_one_before_it(path: Path) -> None:
    """From the beginning, which carries zeros; the head is number and hash of the last line."""
    head = await write(path, AuditEvent.AGENT_STARTED, AuditEvent.TASK_ACCEPTED, AuditEvent.AGENT_STOPPED)
    assert [line["event"] for line in lines(path)] == ["agent started", "task accepted", "agent stopped"]
    last = path.read_bytes().splitlines()[-1]
    assert head == AuditHead(3, hashlib.sha256(last).hexdigest())
    assert str(head) == f"3:{head.sha256}"


async def test_a_line_has_time_number_event_and_the_fields_that_are_known(path: Path) -> None:
    """What is None is left out."""
    await write(path, AuditEvent.TASK_ACCEPTED, task_id="ü\n", runner=None, exit_code=0)
    (line,) = lines(path)
    assert list(line) == ["time", "seq", "event", "task_id", "exit_code", "prev"]
    assert line["task_id"] == "ü\n"
    assert line["time"].endswith("Z")
    assert "ü" in path.read_text()


async def test_a_new_agent_continues_the_chain(path: Path) -> None:
    """Numbers and hashes go on over restarts."""
    first = await write(path, AuditEvent.AGENT_STARTED)
    second = Audit(path)
    assert second.head == second.head_on_disk == first
    second.record(AuditEvent.AGENT_STARTED)
    await second.aclose()
    assert [line["seq"] for line in lines(path)] == [1, 2]


@pytest.mark.parametrize("torn", [b"{", b'{"time":"2026', b"\x00" * 512, b"x" * 200_000])
async def test_a_torn_last_line_is_cut_off_and_that_is_recorded(path: Path, torn: bytes) -> None:
    """The crash of an earlier agent may leave half a line; how long it was and its hash are kept."""
    await write(path, AuditEvent.AGENT_STARTED, AuditEvent.TASK_ACCEPTED)
    with path.open("ab") as file:
        file.write(torn)
    await write(path)
    *_, repaired = lines(path)
    assert repaired["event"] == "audit repaired"
    assert repaired["seq"] == 3
    assert (repaired["bytes_cut"], repaired["sha256_cut"]) == (len(torn), hashlib.sha256(torn).hexdigest())


async def test_a_trail_of_one_torn_line_begins_anew(path: Path) -> None:
    """With the record of the repair."""
    path.write_bytes(b'{"time":')
    await write(path)
    (line,) = lines(path)
    assert (line["seq"], line["event"], line["prev"]) == (1, "audit repaired", GENESIS)


async def test_a_very_long_last_line_is_continued_too(path: Path) -> None:
    """Its hash is of all of it, however long an engine's message was."""
    await write(path, AuditEvent.AGENT_STARTED)
    await write(path, AuditEvent.CONTAINER_REFUSED, why="x" * 300_000)
    await write(path, AuditEvent.AGENT_STOPPED)
    assert len(lines(path)) == 3


async def test_a_line_that_somebody_damaged_is_chained_to_as_it_stands(path: Path) -> None:
    """Verification names the damage; the agent does not refuse to run, and does not hide it."""
    await write(path, AuditEvent.AGENT_STARTED)
    path.write_bytes(b"not json\n")
    await write(path, AuditEvent.AGENT_STOPPED)
    damaged, after = path.read_bytes().splitlines()
    assert json.loads(after)["prev"] == hashlib.sha256(damaged).hexdigest()


async def test_secrets_are_masked_in_every_field(path: Path) -> None:
    """In nested ones and in what is printed as text, too."""
    audit = Audit(path, Masker(lambda: [b"correct-horse-battery"]).tree)
    secret = "correct-horse-battery"
    audit.record(AuditEvent.AUTH_FAILED, peer=secret, nested={"a": [secret]}, error=ValueError(secret))
    await audit.aclose()
    assert secret not in path.read_text()
    assert path.read_text().count("[redacted]") == 3


async def test_recording_never_fails(path: Path) -> None:
    """Lone surrogates, bytes and objects are written as well as they can be, as valid JSON."""
    await write(path, AuditEvent.AUTH_FAILED, route="a\udcff", raw=b"\xff", thing=object(), where=Path("/x"))
    (line,) = lines(path)
    assert line["route"] == "a\udcff"
    assert line["where"] == "/x"


async def test_the_trail_is_private(path: Path) -> None:
    """Nobody else reads it."""
    await write(path)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_nothing_is_told_of_what_is_not_on_disk(path: Path) -> None:
    """The head on disk follows the flush; the head itself runs ahead."""
    audit = Audit(path)
    audit.record(AuditEvent.AGENT_STARTED)
    assert (audit.head.seq, audit.head_on_disk.seq, path.read_bytes()) == (1, 0, b"")
    await audit.flush()
    assert audit.head_on_disk == audit.head
    assert len(lines(path)) == 1
    await audit.aclose()


async def test_many_waiters_share_few_syncs_and_each_finds_its_line_on_disk(path: Path) -> None:
    """A flush returns only when what its caller recorded is there."""
    audit = Audit(path)
    batches: list[int] = []

    async def one(number: int) -> None:
        audit.record(AuditEvent.TASK_ACCEPTED, task_id=str(number))
        await audit.flush()
        text = path.read_text()
        batches.append(text.count("\n"))
        assert f'"task_id":"{number}"' in text

    await asyncio.gather(*(one(number) for number in range(200)))
    assert len(lines(path)) == 200
    assert len(set(batches)) <= 10
    await audit.aclose()


async def test_waves_of_waiters_all_find_their_lines(path: Path) -> None:
    """Those who come while a sync is under way get the next one."""
    audit = Audit(path)

    async def one(number: int) -> None:
        for _ in range(number % 7):
            await asyncio.sleep(0)
        for turn in range(5):
            audit.record(AuditEvent.TASK_ACCEPTED, task_id=f"{number}/{turn}")
            seq = audit.head.seq
            await audit.flush()
            assert audit.head_on_disk.seq >= seq

    await asyncio.gather(*(one(number) for number in range(20)))
    assert len(lines(path)) == 100
    await audit.aclose()


async def test_who_gives_up_waiting_does_not_make_a_sync_look_done(tmp_path: Path) -> None:
    """The disk is a pipe that nobody reads: the sync stays under way, and so does the other's flush."""
    fifo = tmp_path / "audit.jsonl"
    audit = Audit(fifo)
    reader, writer = os.pipe()
    filled = fill(writer)
    os.dup2(writer, audit._fd)  # from here on the disk is as slow as the reader
    audit.record(AuditEvent.TASK_ACCEPTED)
    impatient = asyncio.create_task(audit.flush())
    patient = asyncio.create_task(audit.flush())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    late = asyncio.create_task(audit.flush())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not patient.done()
    assert not late.done()
    os.read(reader, filled)  # the disk goes on; a pipe cannot be synced, which is an error of the disk like another
    results = await asyncio.gather(patient, late, return_exceptions=True)
    assert all(isinstance(result, OSError) for result in results)
    os.close(reader)
    os.close(writer)
    await audit.aclose()


def fill(pipe: int) -> int:
    """Fill a pipe to the brim and return how many bytes that took."""
    os.set_blocking(pipe, False)
    filled = 0
    try:
        while True:
            filled += os.write(pipe, b"x" * 1024)
    except BlockingIOError:
        os.set_blocking(pipe, True)
        return filled


FULL_DISK = """
    import asyncio, pathlib, resource, sys
    from agp_agent.audit import Audit, AuditEvent

    async def main():
        path = pathlib.Path(sys.argv[1])
        audit = Audit(path)
        audit.record(AuditEvent.AGENT_STARTED)
        await audit.flush()
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
        for number in range(3):
            audit.record(AuditEvent.TASK_ACCEPTED, task_id=str(number))
        for _ in range(2):
            try:
                await audit.flush()
            except OSError as error:
                print(error.errno)
            assert path.stat().st_size == size, "a part of the batch stayed"
        print(audit.head.seq, audit.head_on_disk.seq)
        if sys.argv[2] == "heals":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            audit.record(AuditEvent.AGENT_STOPPED)
            await audit.flush()
            print(audit.head.seq, audit.head_on_disk.seq)
        await audit.aclose()

    asyncio.run(main())
"""


def on_a_full_disk(path: Path, then: str) -> list[str]:
    """Run the script above in a process whose files may not grow, and return what it printed."""
    script = [sys.executable, "-W", "error", "-c", textwrap.dedent(FULL_DISK), str(path), then]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return [line for line in ran.stdout.splitlines() if "audit_seq" not in line]


def test_a_full_disk_keeps_the_lines_in_memory_until_it_has_room(path: Path) -> None:
    """What it took of a batch is cut off again, the head on disk stays, and in the end the chain is whole."""
    assert on_a_full_disk(path, "heals")[:4] == ["27", "27", "4 1", "5 5"]
    assert [line["event"] for line in lines(path)] == ["agent started", *["task accepted"] * 3, "agent stopped"]


def test_an_agent_that_ends_on_a_full_disk_says_how_much_is_missing(path: Path) -> None:
    """And leaves a whole chain behind."""
    said = on_a_full_disk(path, "stays full")
    assert len(lines(path)) == 1
    assert any("audit trail incomplete on disk" in line and "lines=3" in line for line in said)


async def test_what_a_failing_disk_would_not_let_go_is_cut_off_before_the_next_try(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the batch, could not sync it, and could not cut it off either: each line stands there once in the end."""
    audit = Audit(path)
    audit.record(AuditEvent.AGENT_STARTED)
    await audit.flush()

    def fails(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    audit.record(AuditEvent.TASK_ACCEPTED)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", fails)
        failing.setattr(os, "ftruncate", fails)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                await audit.flush()
    audit.record(AuditEvent.AGENT_STOPPED)
    await audit.aclose()
    assert [line["event"] for line in lines(path)] == ["agent started", "task accepted", "agent stopped"]


# --- files that are full -----------------------------------------------------------------------------------------


def all_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole trail over all its files, after having checked its chain."""
    whole = path.with_name("whole")
    whole.write_bytes(b"".join(file.read_bytes() for file in (*full_files(path), path)))
    return lines(whole)


async def test_a_full_file_is_put_aside_and_the_chain_runs_through(path: Path) -> None:
    """Under the number of its last line; a restart in between changes nothing."""
    for _ in range(3):
        audit = Audit(path, file_max_bytes=600)
        for _ in range(6):
            audit.record(AuditEvent.TASK_ACCEPTED)
            await audit.flush()
        await audit.aclose()
    assert len(full_files(path)) >= 3
    assert len(all_lines(path)) == 18
    assert [event["seq"] for event in read_events(path)] == list(range(1, 19))
    (first, *_) = full_files(path)
    assert first.name == f"audit-{len(first.read_bytes().splitlines()):015d}.jsonl"


async def test_a_restart_just_after_a_new_file_was_begun_continues_the_chain(path: Path) -> None:
    """The current file is empty; the head is in the one before it."""
    audit = Audit(path, file_max_bytes=1)
    audit.record(AuditEvent.AGENT_STARTED)
    await audit.aclose()
    assert path.read_bytes() == b""
    again = Audit(path)
    assert again.head == again.head_on_disk == audit.head
    again.record(AuditEvent.AGENT_STARTED)
    await again.aclose()
    assert len(all_lines(path)) == 2


async def test_only_so_many_full_files_are_kept(path: Path) -> None:
    """The oldest goes first; numbers and hashes go on."""
    audit = Audit(path, file_max_bytes=1)
    for _ in range(3 * FILES_KEPT):
        audit.record(AuditEvent.TASK_ACCEPTED)
        await audit.flush()
    await audit.aclose()
    seqs = [event["seq"] for event in read_events(path)]
    assert len(full_files(path)) == FILES_KEPT
    assert seqs == list(range(seqs[0], audit.head.seq + 1))


NO_ROOM_FOR_THE_DROP = """
    import asyncio, pathlib, resource, sys
    from agp_agent.audit import FILES_KEPT, Audit, AuditEvent
    from agp_agent.audit_files import full_files

    async def main():
        path = pathlib.Path(sys.argv[1])
        audit = Audit(path, file_max_bytes=1)
        for _ in range(FILES_KEPT):
            audit.record(AuditEvent.TASK_ACCEPTED)
            await audit.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))  # for an acceptance, not for a drop
        audit.record(AuditEvent.TASK_ACCEPTED)
        await audit.flush()
        print(len(full_files(path)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        audit.record(AuditEvent.TASK_ACCEPTED)
        await audit.aclose()
        print(len(full_files(path)))

    asyncio.run(main())
"""


def test_a_file_goes_only_once_the_disk_holds_that_it_does(path: Path) -> None:
    """With its name, and the number and hash of its last line; where that cannot be written, it stays."""
    script = [sys.executable, "-W", "error", "-c", textwrap.dedent(NO_ROOM_FOR_THE_DROP), str(path)]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.isdecimal()] == [str(FILES_KEPT + 1), str(FILES_KEPT)]
    dropped = [event for event in read_events(path) if event["event"] == "audit file dropped"]
    first = next(read_events(path))
    tried_twice = [f"audit-{seq:015d}.jsonl" for seq in (1, 1, 2)]
    assert [event["file"] for event in dropped] == tried_twice
    assert dropped[-1]["head"] == f"{first['seq'] - 1}:{first['prev']}"


# --- what is open is carried forward ---------------------------------------------------------------------------------

FILE_BYTES = 4000


def accept(audit: Audit, task_id: str, run_id: str = "") -> None:
    """Record what the intake records."""
    facts = {"attempt": 1, "playbook_name": "a.sh", "playbook_sha256": "0" * 64, "runner": "shell"}
    audit.record(AuditEvent.TASK_ACCEPTED, task_id=task_id, run_id=run_id or f"run {task_id}", **facts)


def deliver(audit: Audit, task_id: str) -> None:
    """Record what the outbox records."""
    audit.record(AuditEvent.TASK_DELIVERED, task_id=task_id, run_id=f"run {task_id}", attempt=1)


async def fill_files(audit: Audit, number: int) -> None:
    """Record so much that so many files are full."""
    for _ in range(number):
        for _ in range(10):
            audit.record(AuditEvent.CONTAINER_REFUSED, why="x" * (FILE_BYTES // 10))
        await audit.flush()


def open_in(path: Path) -> dict[str, str | None]:
    """What an agent that starts now finds open in the trail, with its last step."""
    return {task.run_id: task.last_step for task in Audit(path).open_tasks()}


async def test_an_open_task_outlives_the_file_with_its_acceptance(path: Path) -> None:
    """With all that a lost journal is rebuilt from, and its last step; a delivered one goes, and the chain holds."""
    audit = Audit(path, file_max_bytes=FILE_BYTES)
    for task_id in ("open", "started", "delivered"):
        accept(audit, task_id)
    audit.record(AuditEvent.TASK_STARTED, task_id="started", run_id="run started", attempt=1)
    deliver(audit, "delivered")
    (before, _) = audit.open_tasks()
    await fill_files(audit, 3 * FILES_KEPT)
    await audit.aclose()
    assert len(full_files(path)) == FILES_KEPT
    assert "task accepted" not in {event["event"] for event in read_events(path)}
    assert open_in(path) == {"run open": None, "run started": "task started"}
    assert next(task.facts for task in Audit(path).open_tasks()) == before.facts
    seqs = [event["seq"] for event in read_events(path)]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_no_file_goes_before_what_is_open_in_it_is_on_disk_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that dies in between forgets nothing: at the moment before each removal a trail read anew has it."""
    audit = Audit(path, file_max_bytes=FILE_BYTES)
    accept(audit, "t")
    await audit.flush()
    seen, unlink = [], Path.unlink

    def look_and_unlink(file: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002  as pathlib has it
        seen.append([event["event"] for event in audit_files.events_of(path)])
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", look_and_unlink)
    while "task accepted" in {event["event"] for event in read_events(path)}:
        await fill_files(audit, 1)
    await audit.aclose()
    assert seen[0] == ["task carried forward", "audit file dropped"]


async def test_a_carried_task_that_is_delivered_is_carried_no_more(path: Path) -> None:
    """Also by an agent that was started since."""
    audit = Audit(path, file_max_bytes=FILE_BYTES)
    accept(audit, "t")
    await fill_files(audit, 2 * FILES_KEPT)
    await audit.aclose()
    again = Audit(path, file_max_bytes=FILE_BYTES)
    deliver(again, "t")
    await again.flush()
    assert open_in(path) == {}
    await fill_files(again, 2 * FILES_KEPT)
    await again.aclose()
    assert open_in(path) == {}


async def test_a_file_that_is_mostly_open_is_kept(path: Path) -> None:
    """To write all of it again would make the trail no smaller."""
    audit = Audit(path, file_max_bytes=FILE_BYTES)
    for number in range(10):
        accept(audit, f"t{number}")
    await fill_files(audit, 2 * FILES_KEPT)
    assert len(full_files(path)) > FILES_KEPT
    for number in range(10):
        deliver(audit, f"t{number}")
    await fill_files(audit, 1)
    await audit.aclose()
    assert len(full_files(path)) == FILES_KEPT


async def test_an_old_file_goes_before_there_are_too_many(path: Path) -> None:
    """By the time at which it was written last; what is open in it is carried forward, too."""
    audit = Audit(path, file_max_bytes=FILE_BYTES, max_age_s=1000)
    accept(audit, "t")
    await fill_files(audit, 1)
    (old,) = full_files(path)
    os.utime(old, (1, 1))
    await fill_files(audit, 1)
    await audit.aclose()
    assert old not in full_files(path)
    assert open_in(path) == {"run t": None}


async def test_a_file_that_grows_slowly_is_put_aside_by_its_age(path: Path) -> None:
    """Or a quiet agent would keep its first events for ever."""
    path.write_text('{"time":"2020-01-01T00:00:00.000Z","seq":1,"event":"agent started","prev":"x"}\n')
    for _ in range(2):
        audit = Audit(path, max_age_s=1000)
        audit.record(AuditEvent.AGENT_STARTED)
        await audit.aclose()
    assert [file.name for file in full_files(path)] == [f"audit-{2:015d}.jsonl"]
    assert len(path.read_bytes().splitlines()) == 1


def test_deliveries_without_an_acceptance_are_nothing() -> None:
    """The beginning of the trail may have gone long ago; what makes no sense is passed over."""
    tasks = OpenTasks()
    for event in (
        {"event": "task delivered", "run_id": "r0"},
        {"event": "task accepted"},
        {"event": ["task accepted"], "run_id": "r3"},
        {"event": "task accepted", "task_id": "t1", "run_id": "r1", "seq": "one"},
        {"event": "task accepted", "task_id": "t2", "run_id": "r2"},
        {"event": "task finished", "task_id": "t2", "run_id": "an older run"},
        {"event": "task delivered", "task_id": "t1", "run_id": "r1"},
    ):
        tasks.hear(event)
    assert [(task.run_id, task.last_step) for task in tasks] == [("r2", None)]


async def test_a_full_file_that_cannot_be_put_aside_goes_on(path: Path) -> None:
    """Nothing is lost, and the chain holds."""
    audit = Audit(path, file_max_bytes=1)
    path.with_name(f"audit-{1:015d}.jsonl").mkdir()
    audit.record(AuditEvent.AGENT_STARTED)
    await audit.flush()
    assert len(lines(path)) == 1
    audit.record(AuditEvent.AGENT_STOPPED)
    await audit.aclose()
    assert len(lines(path.with_name(f"audit-{2:015d}.jsonl"))) == 2


async def test_a_new_file_that_cannot_be_opened_once_is_begun_the_next_time(path: Path) -> None:
    """There are no file descriptors for a moment, for real: the trail goes on where it is, and is put aside later."""
    audit = Audit(path, file_max_bytes=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken = list[int]()
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        audit.record(AuditEvent.AGENT_STARTED)
        await audit.flush()
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (len(lines(path)), full_files(path)) == (1, [])
    audit.record(AuditEvent.AGENT_STOPPED)
    await audit.aclose()
    assert [file.name for file in full_files(path)] == [f"audit-{2:015d}.jsonl"]
    assert len(all_lines(path)) == 2
    assert sorted(file.name for file in path.parent.glob("audit*")) == [f"audit-{2:015d}.jsonl", path.name]


async def test_what_is_open_in_a_file_with_too_small_a_number_is_carried_forward(path: Path) -> None:
    """The last line tells what is in it, not the name."""
    audit = Audit(path, file_max_bytes=FILE_BYTES)
    audit.record(AuditEvent.AGENT_STARTED)
    accept(audit, "t")
    await fill_files(audit, 1)
    full_files(path)[0].rename(path.with_name(f"audit-{1:015d}.jsonl"))
    while "task accepted" in {event["event"] for event in read_events(path)}:
        await fill_files(audit, 1)
    await audit.aclose()
    assert open_in(path) == {"run t": None}


async def test_reading_passes_over_what_is_no_event(path: Path) -> None:
    """Verification names it."""
    await write(path, AuditEvent.AGENT_STARTED)
    with path.open("ab") as file:
        file.write(b"garbage\n[1]\n\xff\n")
    assert [event["event"] for event in read_events(path)] == ["agent started"]
    assert list(read_events(path.with_name("missing"))) == []


async def test_closing_twice_is_as_closing_once(path: Path) -> None:
    """Idempotent."""
    audit = Audit(path)
    await audit.aclose()
    await audit.aclose()


@pytest.mark.parametrize("place", [lambda folder: folder, lambda folder: folder / "missing/audit.jsonl"])
def test_a_trail_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """Not only at the first event."""
    with pytest.raises(OSError, match=r"directory"):
        Audit(place(tmp_path))
