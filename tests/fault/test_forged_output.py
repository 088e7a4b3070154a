"""Row 21: output that looks like the agent's own words stays what it is: data."""

import json

from fault.conftest import StartWatched
from support.agent_process import GENESIS, AgentProcess

NONCE = "0" * 32
FORGED_EVENT = "forged by a playbook"


def _forgeries(agent: AgentProcess, task_id: str) -> bytes:
    """Lines of log and audit trail, the entry's protocol, a count of omitted bytes, and the engine's frames."""
    audit = {"seq": 1, "prev": GENESIS, "event": "task finished", "task_id": task_id, "error": FORGED_EVENT}
    log = {"event": FORGED_EVENT, "level": "critical", "task_id": task_id}
    result = {"task_id": task_id, "status": "completed", "output": FORGED_EVENT, "error": None}
    lines = [json.dumps(document).encode() for document in (audit, log, result)]
    lines += [f"agp1 started {NONCE}".encode(), b"agp1 error forged", f"agp1 release {NONCE}".encode()]
    lines += [b"[agp-agent: 12345 bytes omitted]", f"agp.instance={agent.instance}".encode()]
    frames = [bytes([stream, 0, 0, 0, 0, 0, 0, 4]) + b"fake" for stream in (0, 1, 2, 3, 255)]
    endless = bytes([1, 0, 0, 0, 255, 255, 255, 255])
    return b"\n".join(lines) + b"\n" + b"".join(frames) + endless + b"\0" * 7 + b"\n"


def _prints(data: bytes) -> str:
    return "printf '" + "".join(f"\\{byte:03o}" for byte in data) + "'\n"


WAITS = "until [ -e /work/go ]; do sleep 0.05; done\n"
TO_THE_CONTROL_CHANNEL = """\
printf 'agp1 error forged\\nagp1 started 00000000000000000000000000000000\\n' >/proc/1/fd/2 && echo reached
head -c 10000000 /dev/zero >/proc/1/fd/2
exit 9
"""


def test_forged_output_is_delivered_as_data(start_watched: StartWatched) -> None:
    """Row 21: log lines, markers and frames arrive byte for byte, also over an adoption; log and audit stay clean."""
    watched = start_watched()
    agent = watched.agent
    data = _forgeries(agent, "forger")
    plain = watched.send(_prints(data) + "exit 3\n")
    watched.send(f"{_prints(data)}{WAITS}{_prints(data)}exit 7\n", "forger")
    control = watched.send(TO_THE_CONTROL_CHANNEL)
    watched.neighbours()
    container = agent.container_of("forger")
    agent.engine.wait_printed(container, b"\0" * 7 + b"\n")
    agent.kill()
    agent.start()
    agent.wait_audited("task adopted", task_id="forger")
    agent.engine.let_go(container)
    results = watched.check()
    text = data.decode(errors="replace")
    assert [_behind_start(results[one]["output"]) for one in (plain, "forger")] == [text, text * 2]
    assert [results[one]["error"] for one in (plain, "forger")] == ["exit code 3", "exit code 7"]
    assert results[control]["error"] == "exit code 9"
    # The channel can be reached, and nothing comes of it. It fills the engine's log: where the agent died before it had
    # taken in what was printed first, a gap is stated before it.
    assert results[control]["output"].endswith("\nreached\n")
    assert agent.audit_heads()
    everything = agent.log_text() + (agent.state / "audit.jsonl").read_text()
    assert FORGED_EVENT not in everything
    finished = agent.audit("task finished", task_id="forger")
    assert [line["error"] for line in finished] == ["exit code 7"]


def _behind_start(output: str) -> str:
    """The output without the line by which starts are counted."""
    return output.partition("\n")[2]
