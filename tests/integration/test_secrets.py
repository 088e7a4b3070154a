"""Secrets of runners, on the real engine: where they are, where they never are, and what is left of them in output."""

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.agent_process import COMMAND, AgentProcess
from support.catalogs import python_runner, shell_runner, write_catalog, write_secret
from support.dashboard_stub import DashboardStub
from support.waiting import eventually

PASSWORD = b"hunter2/+ is#the pass&word"
KEY = (
    b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + b"\n".join(base64.b64encode(bytes(range(48 * n, 48 * n + 48))) for n in range(5))
    + b"\n-----END OPENSSH PRIVATE KEY-----\n"
)
SPELLED = {
    "plain": PASSWORD,
    "base64": base64.b64encode(PASSWORD),
    "base64 inside": base64.b64encode(b"user:" + PASSWORD)[8:-4],
    "url": quote(PASSWORD, safe="").encode(),
    "key line": KEY.splitlines()[2],
}
ENCLOSED = base64.b64encode(b"user:" + PASSWORD).decode()
USES_IT = """\
set -eu
stat -c '%a %u %n' /run/secrets/*
[ "$(id -u)" = "$(stat -c %u /run/secrets/password)" ] && echo mine
awk '$5 == "/run/secrets" { print $9 }' /proc/self/mountinfo
sha256sum < /run/secrets/password
! (echo x > /run/secrets/password) 2>/dev/null && echo read-only
env | grep -c hunter2 || true
"""
BYTE_BY_BYTE = """\
import base64, os, time, urllib.parse
value = open("/run/secrets/password", "rb").read()
key = open("/run/secrets/key", "rb").read()
texts = [
    b"plain: " + value,
    b"base64: " + base64.b64encode(value),
    b"inside: " + base64.b64encode(b"user:" + value),
    b"url: " + urllib.parse.quote(value, safe="").encode(),
    key,
    b"the end",
]
for byte in b"\\n".join(texts):
    os.write(1, bytes([byte]))
"""
SLOWLY = BYTE_BY_BYTE.replace("bytes([byte]))", "bytes([byte])); time.sleep(0.0005)")


@pytest.fixture
def start(dashboard: DashboardStub, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Start the agent with secrets for two of its runners; afterwards nothing of it may be left."""
    agents: list[AgentProcess] = []
    granted = [
        {"name": "password", "source": str(write_secret(tmp_path / "secrets" / "password", PASSWORD))},
        {"name": "key", "source": str(write_secret(tmp_path / "secrets" / "key", KEY))},
    ]
    runners = {
        "trusted": shell_runner(".trusted", secrets=granted),
        "python-trusted": python_runner(".pytrusted", secrets=granted),
    }
    catalog = write_catalog(tmp_path / "catalog.yaml", runners)

    def start(**settings: object) -> AgentProcess:
        settings = {"AGP_CATALOG": catalog, "AGP_LOG_LEVEL": "debug"} | settings
        agents.append(AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token, settings))
        return agents[-1].start()

    yield start
    ends = [agent.close() for agent in agents]
    assert ends == [(0, [])] * len(ends)


Start = Callable[..., AgentProcess]


def leaks(agent: AgentProcess, *more: bytes) -> list[str]:
    """Every place in which a spelling of a secret stands: the agent's files and log, and what is given."""
    texts = {}
    for path in agent.folder.rglob("*"):
        with contextlib.suppress(OSError):  # a folder, or removed meanwhile
            texts[str(path.relative_to(agent.folder))] = path.read_bytes()
    texts |= {f"given {number}": text for number, text in enumerate(more)}
    return [
        f"{spelled} in {name}" for name, text in texts.items() for spelled, value in SPELLED.items() if value in text
    ]


def test_a_shell_playbook_uses_a_secret(start: Start, dashboard: DashboardStub) -> None:
    """It is a file of its own user's alone, in memory, that only its runner has; no variable holds it."""
    agent = start()
    agent.accept_task("uses it", USES_IT, "a.trusted")
    lines = dashboard.result("uses it")["output"].splitlines()
    uid = lines[0].split()[1]
    digest = subprocess.run(["sha256sum"], input=PASSWORD, capture_output=True, check=True).stdout.split()[0].decode()
    assert lines == [
        f"400 {uid} /run/secrets/key",
        f"400 {uid} /run/secrets/password",
        "mine",
        "tmpfs",
        f"{digest}  -",
        "read-only",
        "0",
    ]
    agent.accept_task("has none", "ls /run/secrets 2>&1; echo $?", "a.sh")
    assert dashboard.result("has none")["output"].splitlines()[-1] == "2"


@pytest.mark.parametrize("content", [BYTE_BY_BYTE, SLOWLY], ids=["at once", "slowly"])
def test_a_secret_printed_byte_by_byte_is_nowhere(start: Start, dashboard: DashboardStub, content: str) -> None:
    """Not in result, journal, spool, audit, log and inspect, however it is spelled; the rest of the output is whole."""
    agent = start()
    agent.accept_task("prints it", content, "a.pytrusted")
    container = agent.container_of("prints it")
    inspected = json.dumps(agent.engine.inspect(container)).encode()
    spools = [path.read_bytes() for path in (agent.state / "spool").glob("*")]
    result = dashboard.result("prints it")
    assert result["output"] == (
        "plain: [redacted]\n"
        "base64: [redacted]\n"
        f"inside: {ENCLOSED[:7]}[redacted]{ENCLOSED[(5 + len(PASSWORD)) * 8 // 6 :]}\n"
        "url: [redacted]\n"
        "[redacted]\n\n"
        "the end"
    )
    assert leaks(agent, json.dumps(result).encode(), inspected, *spools) == []


def test_what_a_playbook_prints_is_seen_at_once(start: Start, dashboard: DashboardStub) -> None:
    """Nothing but the beginning of a secret is held back: what comes before it is in the spool while it waits."""
    agent = start()
    agent.accept_task(
        "waits",
        "echo before; head -c 12 /run/secrets/password; until [ -e /work/go ]; do sleep 0.05; done",
        "a.trusted",
    )
    container = agent.container_of("waits")
    spools = agent.state / "spool"
    eventually(lambda: any(b"before\n" in path.read_bytes() for path in spools.iterdir()), "the line in the spool")
    (spool,) = spools.iterdir()
    time.sleep(0.5)  # what is printed next is there by now, and must not be seen
    assert PASSWORD[:6] not in spool.read_bytes()
    agent.engine.let_go(container)
    assert dashboard.result("waits")["output"] == f"before\n{PASSWORD[:12].decode()}"


SPLIT_BY_DEATH = """\
echo before; cat /run/secrets/password; echo; head -c 9 /run/secrets/password
until [ -e /work/go ]; do sleep 0.05; done
tail -c +10 /run/secrets/password; echo; cat /run/secrets/key; echo the end
"""
ROTATES_THE_LOG = """\
p=$(cat /run/secrets/password); echo before
until [ -e /work/go ]; do sleep 0.05; done
for n in $(seq 60000); do echo "$n $p"; done; echo the end
"""


def die_while_it_waits(agent: AgentProcess, task_id: str, content: str) -> None:
    """Kill the agent while the playbook waits, let it end, and start the next agent."""
    agent.accept_task(task_id, content, "a.trusted")
    container = agent.container_of(task_id)
    agent.engine.wait_printed(container, b"before")
    agent.kill()
    agent.engine.let_go(container)
    agent.engine.wait_ended(container)
    assert PASSWORD in agent.engine.printed(container)
    agent.start()


def test_secrets_stay_secret_over_the_death_of_the_agent(start: Start, dashboard: DashboardStub) -> None:
    """The next agent completes the output from the engine's log, which holds them, and masks it as the first would."""
    agent = start()
    die_while_it_waits(agent, "split by death", SPLIT_BY_DEATH)
    result = dashboard.result("split by death")
    assert result["output"] == "before\n[redacted]\n[redacted]\n[redacted]\nthe end\n"
    assert leaks(agent, json.dumps(result).encode()) == []


def test_secrets_stay_secret_where_the_log_was_rotated(start: Start, dashboard: DashboardStub) -> None:
    """The engine threw the beginning of its log away: what is left of it is masked, and the gap is stated."""
    agent = start(AGP_OUTPUT_LIMIT_BYTES=4096)
    die_while_it_waits(agent, "rotated", ROTATES_THE_LOG)
    output = dashboard.result("rotated")["output"]
    assert output.startswith("before\n")
    assert output.endswith("60000 [redacted]\nthe end\n")
    assert "bytes omitted]" in output
    assert leaks(agent, output.encode()) == []
    assert not any(PASSWORD[start : start + 6].decode() in output for start in range(len(PASSWORD) - 5))


def test_a_log_that_nobody_can_mask_any_more_is_not_used(
    start: Start, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """The secret was changed while no agent was there: the output says that something is missing."""
    agent = start()
    agent.accept_task(
        "changed", "echo before; until [ -e /work/go ]; do sleep 0.05; done; cat /run/secrets/password", "a.trusted"
    )
    container = agent.container_of("changed")
    eventually(lambda: any(b"before" in path.read_bytes() for path in (agent.state / "spool").iterdir()), "spooled")
    agent.kill()
    agent.engine.let_go(container)
    agent.engine.wait_ended(container)
    write_secret(tmp_path / "secrets" / "password", b"the password of today")
    agent.start()
    result = dashboard.result("changed")
    assert (result["status"], result["error"]) == ("completed", None)
    assert result["output"] == "before\n[agp-agent: an unknown number of bytes omitted]\n"
    assert leaks(agent) == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda path: path.chmod(0o644),
            (
                "has mode 0644, so everybody on this machine can read it; expected 0600 or 0400, or 0640 or 0440 where "
                "a group of its own reads it (for a Secret of Kubernetes: defaultMode 0440 and fsGroup)"
            ),
        ),
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: write_secret(path, b"x" * 65537), "is larger than 65536 bytes"),
        (lambda path: write_secret(path, b"12345\n"), "is shorter than 6 bytes, and could not be masked in the output"),
    ],
    ids=["open to others", "missing", "large", "short"],
)
def test_a_secret_that_cannot_be_used_is_the_tasks_error(
    start: Start, dashboard: DashboardStub, tmp_path: Path, spoil: Callable[[Path], Any], sentence: str
) -> None:
    """One sentence, in the result and by `config check`; other runners work, and when it is well again so does this."""
    agent = start()
    path = tmp_path / "secrets" / "password"
    task = f"spoilt {sentence[:12]}"
    spoil(path)
    agent.accept_task(task, "echo ran", "a.trusted")
    error = f"secret password is not available: {path} {sentence}"
    assert dashboard.result(task) == {"task_id": task, "status": "failed", "output": "", "error": error}
    assert not agent.audit("task started", task_id=task)
    agent.accept_task(f"{task} beside", "echo ran", "a.sh")
    assert dashboard.result(f"{task} beside")["output"] == "ran\n"
    checked = subprocess.run(
        [COMMAND, "config", "check"], env=agent.environment, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 78
    assert f"runner trusted: {error}." in checked.stderr
    write_secret(path, PASSWORD)
    agent.accept_task(f"{task} no more", "echo ran", "a.trusted")
    assert dashboard.result(f"{task} no more")["output"] == "ran\n"


def test_a_local_run_masks_too(tmp_path: Path, environment: dict[str, str]) -> None:
    """What goes to the terminal as it comes holds no secret either."""
    granted = [{"name": "password", "source": str(write_secret(tmp_path / "password", PASSWORD))}]
    catalog = write_catalog(tmp_path / "catalog.yaml", {"trusted": shell_runner(".trusted", secrets=granted)})
    playbook = tmp_path / "a.trusted"
    playbook.write_text("echo before; cat /run/secrets/password; echo; echo after\n")
    ran = subprocess.run(
        [COMMAND, "run", "--verbose", str(playbook)],
        env=environment | {"AGP_CATALOG": str(catalog)},
        capture_output=True,
        check=True,
    )
    assert ran.stdout == b"before\n[redacted]\nafter\n"
    assert PASSWORD not in ran.stderr
