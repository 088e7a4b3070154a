"""Row 5: the output of an adopted task is joined byte for byte, or says how much of it is missing.

A playbook prints a stream of which every byte is known, in pieces of mixed sizes and in lines of up to 40,000 bytes, of
which the engine's log makes several records. The agent dies in its middle, and the next one puts together what was
spooled and what the engine's log has.
"""

import re
from pathlib import Path
from typing import Any, Final

import pytest

from fault.conftest import StartWatched
from support.agent_process import AgentProcess
from support.deaths import Death, Gates, Syscall
from support.doomed import die_at_start
from support.http_gate import Moment
from support.ledger import Ledger
from support.own_engine import PYTHON_IMAGE, OwnEngine
from support.waiting import eventually

pytest_plugins = ("fault.gated",)


@pytest.fixture(autouse=True)
def _python(own_engine: OwnEngine) -> None:
    """The stream is printed by a program."""
    own_engine.load_runner_images(PYTHON_IMAGE)


MIB: Final = 2**20
LINES: Final = (1, 700, 80, 16_383, 16_384, 16_385, 120, 40_000, 5, 32_768)
"""Bytes of one line after the other, with its end; again and again."""
CHUNKS: Final = (3, 70_000, 1, 9_000, 16_384, 500)
"""Bytes of one write after the other; again and again."""
_STREAM: Final = """
import itertools, os, sys, time
LINES, CHUNKS, BYTES, PAUSES = {lines}, {chunks}, {size}, {pauses}
def lines():
    for number, length in enumerate(itertools.cycle(LINES)):
        text = ("%d:" % number) * (length // 2 + 1)
        yield (text[: length - 1] + "\\n").encode()
def stream():
    whole, made = [], 0
    for line in lines():
        whole.append(line)
        made += len(line)
        if made >= BYTES:
            return b"".join(whole)[:BYTES]
def chunks(data):
    position = 0
    for length in itertools.cycle(CHUNKS):
        if position >= len(data):
            return
        yield data[position : position + length]
        position += length
"""
_PRINT: Final = """
data, written = stream(), 0
pauses = iter([*PAUSES, None])
pause = next(pauses)
for chunk in chunks(data):
    if pause is not None and written >= pause:
        open("/tmp/at-%d" % pause, "w").close()
        while not os.path.exists("/tmp/from-%d" % pause):
            time.sleep(0.01)
        pause = next(pauses)
    while chunk:
        done = os.write(1, chunk)
        chunk, written = chunk[done:], written + done
sys.exit(5)
"""


def _playbook(size: int, *pauses: int) -> str:
    """Prints so many bytes; stops behind each of these numbers of them until ``_go_on`` lets it go on."""
    return _STREAM.format(lines=LINES, chunks=CHUNKS, size=size, pauses=pauses) + _PRINT


def _expected(size: int) -> str:
    """What it prints."""
    names: dict[str, Any] = {}
    exec(_STREAM.format(lines=LINES, chunks=CHUNKS, size=size, pauses=()), names)  # noqa: S102  our own text
    data: bytes = names["stream"]()
    return data.decode()


def _send(watched: Ledger, task_id: str, size: int, *pauses: int) -> str:
    """Send it, and return its container as soon as there is one."""
    watched.agent.accept_task(task_id, _playbook(size, *pauses), "stream.py")
    watched.note(task_id)
    return watched.agent.container_of(task_id)


def _wait_at(agent: AgentProcess, container: str, pause: int) -> None:
    """Return once it has printed so much."""

    def look() -> bool:
        created = agent.engine.client.api.exec_create(container, ["test", "-e", f"/tmp/at-{pause}"])
        agent.engine.client.api.exec_start(created["Id"])
        return bool(agent.engine.client.api.exec_inspect(created["Id"])["ExitCode"] == 0)

    eventually(look, f"{pause} bytes printed")


def _go_on(agent: AgentProcess, container: str, pause: int) -> None:
    agent.engine.let_go(container, f"/tmp/from-{pause}")


def _ended_well(result: dict[str, Any]) -> str:
    assert result["error"] == "exit code 5"
    output: str = result["output"]
    return output


def _first_difference(output: str, expected: str) -> int | None:
    """Where the two differ; None where they are the same."""
    if output == expected:
        return None
    pairs = zip(output, expected, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(output), len(expected)))


@pytest.mark.parametrize("restarts", [1, pytest.param(3, marks=pytest.mark.campaign)])
def test_a_stream_of_20_mb_is_joined_byte_for_byte(start_watched: StartWatched, restarts: int) -> None:
    """Row 5: what was spooled and what the engine logged while no agent was there is the whole stream of 20 MB."""
    size = 20_000_000
    pauses = [size * (number + 1) // (restarts + 2) for number in range(restarts)]
    beyond = size * (restarts + 1) // (restarts + 2)
    watched = start_watched({"AGP_OUTPUT_LIMIT_BYTES": 32 * MIB})
    agent = watched.agent
    container = _send(watched, "stream", size, *pauses, beyond)
    watched.neighbours()
    for pause, following in zip(pauses, [*pauses[1:], beyond], strict=True):
        _wait_at(agent, container, pause)
        _go_on(agent, container, pause)
        agent.kill()  # it prints at this moment
        _wait_at(agent, container, following)  # and on, while nobody listens
        agent.start()
        agent.wait_log("task adopted", task_id="stream")
    _go_on(agent, container, beyond)
    output = _ended_well(watched.check()["stream"])
    assert _first_difference(output, _expected(size)) is None


def test_death_in_the_middle_of_the_stream(start_watched: StartWatched, gates: Gates) -> None:
    """Row 5: the agent is killed between two pieces of the stream that it takes in, early and late; no joint shows."""
    size = 32 * sum(LINES)
    watched = start_watched(gates.settings | {"AGP_OUTPUT_LIMIT_BYTES": 32 * MIB})
    agent = watched.agent
    tasks = {f"stream {piece}": piece for piece in (2, 20, 60)}
    for task_id, piece in tasks.items():
        strike = Death(agent, task_id)
        gates.engine.at(Moment.DOWN_PASSED, "^POST .*/attach", strike.kill, number=piece, containing=b":")
        agent.accept_task(task_id, _playbook(size), "stream.py")
        watched.note(task_id)
        strike.wait()
        (spool,) = (agent.state / "spool").iterdir()
        assert _total(spool) < size
        agent.start()
        watched.dashboard.acknowledged(task_id)
        eventually(lambda: agent.left_of_tasks() == [], "container removed")
    results = watched.check()
    expected = _expected(size)
    differing = {task_id: _first_difference(_ended_well(results[task_id]), expected) for task_id in tasks}
    assert differing == dict.fromkeys(tasks)


def _before_the_finish(strike: Death, gates: Gates) -> None:
    finish = Syscall("pwrite64", 1, "journal.db-wal")
    gates.engine.at(Moment.ANSWER, "^GET /containers/.*/logs", lambda: strike.kill_at(finish))


def _total(spool: Path) -> int:
    """How many bytes were taken in, by the spool's header."""
    return int.from_bytes(spool.read_bytes()[24:32], "little")


@pytest.mark.parametrize("dies_again", [False, True])
def test_what_the_engines_log_lost_is_stated(start_watched: StartWatched, gates: Gates, *, dies_again: bool) -> None:
    """Row 5: more was printed without an agent than the log holds: head and tail are right, and a number is stated.

    It is said to be the least, and it is no more than what is missing. So it is where the agent that found out dies
    before it could write that down.
    """
    limit, size, seen = MIB, 100 * sum(LINES), 100_000
    watched = start_watched(gates.settings | {"AGP_OUTPUT_LIMIT_BYTES": limit})
    agent = watched.agent
    container = _send(watched, "rotated", size, seen)
    _wait_at(agent, container, seen)
    agent.kill()
    _go_on(agent, container, seen)
    agent.engine.wait_ended(container)
    if dies_again:
        die_at_start(agent, gates, "joined, not finished", _before_the_finish)
    agent.start()
    output, expected = _ended_well(watched.check()["rotated"]), _expected(size)
    stated = re.search(r"\n?\[agp-agent: at least (\d+) bytes omitted\]\n", output)
    assert stated is not None
    head, tail = output[: stated.start()], output[stated.end() :]
    assert len(head) >= seen
    assert expected.startswith(head)
    assert expected.endswith(tail)
    assert 0 < int(stated[1]) <= size - len(head) - len(tail)


def test_a_stream_that_is_cut_alone_loses_nothing(start_watched: StartWatched, gates: Gates) -> None:
    """Row 5: only the connection to the container breaks, just before its end: the rest is taken from the log."""
    watched = start_watched(gates.settings)
    gates.engine.at(Moment.DOWN_PASSED, "^POST .*/attach", lambda: False, containing=b"one")
    task_id = watched.send("echo one\nsleep 0.2\necho two\n", ends_well=True)
    watched.neighbours()
    assert watched.check()[task_id]["output"].endswith("one\ntwo\n")
