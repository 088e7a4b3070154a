"""Bytes on their way: a playbook into its container, and what it prints back out."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub

OUTPUT_LIMIT_BYTES = 64 * 1024
SEQUENCE = 4_000_000
"""``seq`` prints 30.9 MB up to here."""

_HASH_OF_ITSELF = "import hashlib; print(hashlib.sha256(open(__file__, 'rb').read()).hexdigest())"
CONTENTS = {
    "CRLF": ("p.py", f"{_HASH_OF_ITSELF}\r\n# end\r\n"),
    "byte order mark": ("p.py", f"\ufeff{_HASH_OF_ITSELF}\n"),
    "NUL": ("p.sh", 'sha256sum <"$0" | cut -d " " -f 1\nexit\n\0\0\n'),
    "no newline": ("p.py", _HASH_OF_ITSELF),
    "blank lines and tabs": ("p.py", f"\n\n\t\n{_HASH_OF_ITSELF}\n\n\n"),
    "all of Unicode": ("p.py", f"{_HASH_OF_ITSELF}\n# é \U0001f642 \u202e \u2028 \x01 \x1b[31m \ufffd \uffff\n"),
    "as large as may be": ("p.py", f"{_HASH_OF_ITSELF}\n#".ljust(2**20, "x")),
    "the protocol's own line": ("p.sh", f'sha256sum <"$0" | cut -d " " -f 1\n# agp1 release {"0" * 32}\n'),
}

OUTPUTS = {
    "bytes that are no text": (r"printf '\xff\xfe\x00\x01\x80\n'", b"\xff\xfe\x00\x01\x80\n"),
    "control characters": (r"printf '\x1b[2J\r\b\x07\n'", b"\x1b[2J\r\b\x07\n"),
    "a character in two pieces": (r"printf '\xc3'; sleep 0.3; printf '\xa9\n'", "é\n".encode()),
    "half a character at the end": (r"printf 'x\xf0\x9f\x99'", b"x\xf0\x9f\x99"),
    "headers of the engine's own framing": (
        r"printf '\x01\x00\x00\x00\x00\x00\x00\x05hello\n'",
        b"\1\0\0\0\0\0\0\5hello\n",
    ),
    "one line of 40,000 bytes": ("head -c 40000 /dev/zero | tr '\\0' x", b"x" * 40000),
    "exactly the limit": (f"head -c {OUTPUT_LIMIT_BYTES} /dev/zero | tr '\\0' x", b"x" * OUTPUT_LIMIT_BYTES),
    "many small writes in true order": (
        "for i in $(seq 2000); do echo o$i; echo e$i >&2; done",
        b"".join(b"o%d\ne%d\n" % (number, number) for number in range(1, 2001)),
    ),
}


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent that keeps 64 KiB of a task's output."""
    settings = {"AGP_OUTPUT_LIMIT_BYTES": OUTPUT_LIMIT_BYTES, "AGP_MAX_RUNNING": 4}
    with AgentProcess(folder, dashboard.url, dashboard.token, settings) as process:
        yield process


@pytest.fixture(scope="module")
def sequence() -> bytes:
    """What ``seq`` prints."""
    return b"".join(b"%d\n" % number for number in range(1, SEQUENCE + 1))


@pytest.mark.parametrize("about", CONTENTS)
def test_a_playbook_arrives_byte_for_byte(agent: AgentProcess, dashboard: DashboardStub, about: str) -> None:
    """It prints the hash of the file that it is."""
    name, content = CONTENTS[about]
    agent.accept_task(about, content, name)
    result = dashboard.result(about)
    assert (result["output"], result["error"]) == (hashlib.sha256(content.encode()).hexdigest() + "\n", None)


@pytest.mark.parametrize("about", OUTPUTS)
def test_output_arrives_byte_for_byte(agent: AgentProcess, dashboard: DashboardStub, about: str) -> None:
    """Decoded as UTF-8, with a replacement for what is none."""
    script, printed = OUTPUTS[about]
    agent.accept_task(about, script)
    assert dashboard.result(about) == {
        "task_id": about,
        "status": "completed",
        "output": printed.decode(errors="replace"),
        "error": None,
    }


def _cut(data: bytes, limit: int) -> str:
    head, tail = data[: limit // 2].decode(), data[-(limit - limit // 2) :].decode()
    line_end = "" if head.endswith("\n") else "\n"
    return f"{head}{line_end}[agp-agent: {len(data) - limit} bytes omitted]\n{tail}"


@pytest.mark.parametrize("extra", [1, 1000, OUTPUT_LIMIT_BYTES, 10 * OUTPUT_LIMIT_BYTES])
def test_what_is_above_the_limit_is_counted(agent: AgentProcess, dashboard: DashboardStub, extra: int) -> None:
    """Head and tail are kept, and a line between them says how many bytes are not."""
    size = OUTPUT_LIMIT_BYTES + extra
    agent.accept_task(f"extra {extra}", f"yes 1234567 | head -c {size}")
    printed = (b"1234567\n" * (size // 8 + 1))[:size]
    assert dashboard.result(f"extra {extra}")["output"] == _cut(printed, OUTPUT_LIMIT_BYTES)


def test_characters_at_the_cut_stay_whole(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """The gap is widened to whole characters, and so is its count."""
    agent.accept_task("whole", f"yes 'é€\U0001f642' | tr -d '\\n' | head -c {9 * 20_000}")
    output = dashboard.result("whole")["output"]
    head, _, rest = output.partition("\n[agp-agent: ")
    count, _, tail = rest.partition(" bytes omitted]\n")
    assert set(head + tail) == {"é", "€", "\U0001f642"}
    assert len((head + tail).encode()) + int(count) == 9 * 20_000
    assert OUTPUT_LIMIT_BYTES - 6 <= len((head + tail).encode()) <= OUTPUT_LIMIT_BYTES


def test_30_mb_are_counted_to_the_byte(agent: AgentProcess, dashboard: DashboardStub, sequence: bytes) -> None:
    """A container that prints as fast as it can is never lost sight of."""
    agent.accept_task("30 MB", f"seq {SEQUENCE}; exit 3")
    result = dashboard.result("30 MB")
    assert result["output"] == _cut(sequence, OUTPUT_LIMIT_BYTES)
    assert result["error"] == "exit code 3"


def test_many_megabytes_can_be_kept_whole(dashboard: DashboardStub, tmp_path: Path, sequence: bytes) -> None:
    """With a limit above it every byte is delivered: 9 MB here."""
    settings = {"AGP_OUTPUT_LIMIT_BYTES": 64 * 2**20}
    part = sequence[: sequence.index(b"\n1300001\n") + 1]
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
        agent.accept_task("all of 9 MB", "seq 1300000")
        output = dashboard.result("all of 9 MB")["output"]
        assert hashlib.sha256(output.encode()).digest() == hashlib.sha256(part).digest()
