"""``agp-agent audit verify`` on trails as an agent left them, and as somebody else did."""

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from support.agent_process import COMMAND, AgentProcess
from support.cli import Cli
from support.dashboard_stub import DashboardStub
from support.waiting import eventually


@pytest.fixture
def state(dashboard: DashboardStub, tmp_path: Path) -> Path:
    """The state directory of an agent that ran a task, was killed, and ran again."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent:
        agent.accept_task("verified", "echo hi")
        dashboard.acknowledged("verified")
        agent.kill()
        with (agent.state / "audit.jsonl").open("ab") as trail:
            trail.write(b'{"time":"20')  # a crash in the middle of a line
        agent.start()
    return agent.state


def test_a_trail_is_whole_and_leads_through_every_head_that_the_dashboard_got(
    cli: Cli, state: Path, dashboard: DashboardStub
) -> None:
    """The line that a crash tore was cut off by the next agent, which said so."""
    head = dashboard.deliveries("verified")[0].headers["agp-audit-head"]
    ended = cli("audit", "verify", "--head", head, AGP_STATE_DIR=state)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("The trail is whole: seq 1 to ")
    assert "Torn last lines that were cut off and recorded: 1." in ended.stdout


def test_the_trail_of_a_task_has_everything_that_is_promised_of_it(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Who sent it with which token, what ran where and for how long, how it ended; never its content or a token."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent:
        agent.accept_task("told", "echo content-of-the-playbook; exit 3")
        dashboard.acknowledged("told")
        agent.wait_audited("task delivered", task_id="told")
    lines = {name: agent.audit(name, task_id="told")[0] for name in PROMISED if name != "image resolved"}
    lines["image resolved"] = agent.audit("image resolved")[0]
    missing = {name: set(fields) - set(lines[name]) for name, fields in PROMISED.items()}
    assert missing == {name: set() for name in PROMISED}
    ended = lines["task finished"]
    assert (ended["exit_code"], ended["outcome"], ended["reason"]) == (3, "failed", "exit_code")
    assert ended["output_bytes"] == len("content-of-the-playbook\n")
    assert 0 < ended["duration_s"] < 60
    assert "echo content" not in (agent.state / "audit.jsonl").read_text()


def test_the_trail_is_shown_and_followed(cli: Cli, dashboard: DashboardStub, tmp_path: Path) -> None:
    """The last events, a JSON object a line; what is added comes as it comes; no trail is a sentence."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent:
        agent.accept_task("shown", "true")
        dashboard.acknowledged("shown")
        agent.wait_audited("task delivered", task_id="shown")
        eventually(lambda: agent.audit("task delivered"), "on disk")
        shown = cli("audit", "tail", "-n", "2", AGP_STATE_DIR=agent.state).stdout.splitlines()
        assert [json.loads(line)["event"] for line in shown] == ["task finished", "task delivered"]
        following = subprocess.Popen(
            (COMMAND, "audit", "tail", "-f", "-n", "1"),
            env=agent.environment | {"AGP_STATE_DIR": str(agent.state)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert following.stdout is not None
        with following:
            events = (json.loads(line)["event"] for line in following.stdout)
            assert next(events) == "task delivered"
            agent.request("POST", "/pause")
            assert next(events) == "agent paused"
            following.terminate()
    missing = cli("audit", "tail", AGP_STATE_DIR=tmp_path / "none")
    assert (missing.returncode, "there is no audit trail" in missing.stderr) == (1, True)


PROMISED: Final = {
    "task accepted": [
        *("time", "seq", "task_id", "attempt", "playbook_name", "playbook_sha256", "runner", "peer"),
        "token_fingerprint",
    ],
    "task started": ["task_id", "attempt", "runner", "image", "image_digest", "container_id"],
    "task finished": [
        *("task_id", "attempt", "playbook_name", "playbook_sha256", "runner", "image_digest", "container_id"),
        *("exit_code", "outcome", "reason", "duration_s", "output_bytes"),
    ],
    "task delivered": ["task_id", "attempt", "deliveries"],
    "image resolved": ["image", "image_digest"],
}


def test_what_was_done_to_a_trail_is_told_to_people_and_programs(cli: Cli, state: Path) -> None:
    """Exit code 1, with file, line and number."""
    trail = state / "audit.jsonl"
    lines = trail.read_bytes().splitlines(keepends=True)
    trail.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    ended = cli("audit", "verify", "--state-dir", state)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[0] == "audit.jsonl, line 3 (seq 4): missing before it: seq 3"
    assert "The trail is NOT whole" in ended.stdout
    document = json.loads(cli("audit", "verify", "--state-dir", state, "--json").stdout)
    assert document["problems"] == [{"file": "audit.jsonl", "line": 3, "seq": 4, "what": "missing before it: seq 3"}]
    assert (document["whole"], document["last_seq"]) == (False, len(lines))


def test_a_head_that_is_none_and_a_trail_that_is_not_there_are_told(cli: Cli, tmp_path: Path) -> None:
    """Wrong usage is 2, no trail is 1."""
    ended = cli("audit", "verify", "--head", "17")
    assert (ended.returncode, "expected a head as in the header" in " ".join(ended.stderr.split())) == (2, True)
    ended = cli("audit", "verify", "--state-dir", tmp_path)
    assert (ended.returncode, f"there is no {tmp_path}/audit.jsonl" in ended.stdout) == (1, True)
    (tmp_path / "audit.jsonl").mkdir()
    ended = cli("audit", "verify", "--state-dir", tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        f"agp-agent: {tmp_path}/audit.jsonl: cannot be read: Is a directory.\n",
    )
