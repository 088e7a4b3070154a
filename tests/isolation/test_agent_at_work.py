"""The attempts that need an agent at work, or a neighbour: two arms each, judged by what became of agent and host."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from agp_agent.catalog import Runner
from agp_agent.doctor.boxes import Boxes
from agp_agent.doctor.escape import Attempt, Verdict, baits, outcome
from agp_agent.doctor.escape.programs import network, playbook, processes
from agp_agent.lifecycle import Reason
from isolation.arms import ATTEMPTS
from isolation.control import ROOT, Hole, bind, control
from isolation.host import processes_of
from isolation.table import Row, Table
from support.agent_process import AgentProcess
from support.async_waiting import until
from support.dashboard_stub import DashboardStub

FINISHED = b'"finished"'
WAITS = "import os, time\nwhile not os.path.exists('/work/go'):\n    time.sleep(0.02)\n"
AGENTS_API = Attempt(
    17,
    "the agent's API and the dashboard, without a token or with a guessed one",
    network.use_the_agents_api,
    "no network; 401 for every wrong token",
    baits.nothing,
    safe=False,
)
FORGERIES = Attempt(
    18,
    "forged log lines, escapes, frames and start markers",
    network.forge,
    "output is data; the entry's marker is first, and has a nonce",
    baits.nothing,
    safe=False,
)
GUESSES = ["", "x", "token", "A" * 43, "Bearer", "../../etc/agp-agent/token"]


@pytest.fixture
def dashboard() -> Iterator[DashboardStub]:
    """A dashboard on loopback."""
    with DashboardStub() as stub:
        yield stub


@pytest.fixture
def agent(tmp_path: Path, dashboard: DashboardStub) -> Iterator[AgentProcess]:
    """An agent as it comes, at work."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as process:
        yield process


def row(attempt: Attempt, hole: str, harm: str, tries: int = 0) -> Row:
    """The row of an attempt that was held."""
    return Row(attempt.number, attempt.title, attempt.held_by, tries, Verdict.HELD, hole, harm)


async def test_a_task_finds_nothing_of_another_task_or_of_the_agent(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient, tmp_path: Path, table: Table
) -> None:
    """8: a second task searches for the playbook and output of the first, and for both tokens."""
    attempt, mark, said = ATTEMPTS[8], secrets.token_hex(16), secrets.token_hex(16)
    agent.accept_task("secretive", f"# {mark}\nprint({said!r}, flush=True)\n{WAITS}", "first.py")
    container = agent.container_of("secretive")
    agent.engine.wait_printed(container, said.encode())
    marks = [mark, said, agent.token, agent.dashboard_token]
    folders = [str(agent.state), f"/proc/1/root{agent.state}", f"/host{agent.state}", "/var/lib/docker"]
    facts = {"reversed_marks": [one[::-1] for one in marks], "roots": ["/", *folders[:3]], "forbidden": folders}
    agent.accept_task("curious", attempt.playbook(facts), "second.py")
    result = dashboard.result("curious")
    assert result["error"] is None
    seen = outcome(result["output"].encode(), None)
    assert seen.verdict is Verdict.HELD, seen.why
    assert not any(one in result["output"] for one in marks)

    hole = Hole("root, the state directory mounted", ROOT, mounts=[bind(agent.state, f"/host{agent.state}")])
    async with control(client, tmp_path, attempt.playbook({**facts, "hold_s": 60}), hole) as box:
        await box.printed(FINISHED)
        assert mark.encode() in box.output
        assert said.encode() in box.output
        assert outcome(box.output, None).verdict is Verdict.ESCAPED
    agent.engine.let_go(container)
    assert dashboard.result("secretive")["error"] is None
    table.add(row(attempt, hole.name, "another task's playbook and output were read", seen.tried))


async def test_a_neighbour_does_not_notice_a_greedy_task(
    boxes: Boxes, runner: Runner, client: docker.DockerClient, tmp_path: Path, table: Table
) -> None:
    """14: beside a task that takes all it can another one runs as ever; not so where both are one user."""
    attempt = ATTEMPTS[14]
    greedy = attempt.playbook({"hold_s": 120})
    modest = playbook(processes.neighbour, {"rounds": 5})
    async with boxes.running(runner, greedy, 120) as first:
        await until(lambda: FINISHED in first.output, "everything is taken")
        async with boxes.running(runner, modest, 60) as second:
            ended = await second.ended()
            assert (ended.exit_code, second.output.count(b'"well"')) == (0, 5)
        locked = outcome(first.output, None)
    assert locked.verdict is Verdict.HELD, locked.why

    hole = Hole("one user for both, no limits", host={"PidsLimit": 0, "Memory": 2**31, "MemorySwap": 2**31})
    async with control(client, tmp_path, greedy, hole) as first_open:
        await first_open.printed(FINISHED)
        number = len(client.containers.get(first_open.container_id).top()["Processes"])
        async with control(client, tmp_path, modest, Hole("the same user")) as second_open:
            with pytest.raises(AssertionError, match=r"Too many open files|EMFILE"):
                await second_open.printed(b'"well"')
    assert number > 256
    assert outcome(first_open.output, None).verdict is Verdict.ESCAPED
    table.add(row(attempt, hole.name, "over 256 processes, and no inotify instance for the neighbour", 3))


async def test_no_task_reaches_the_agents_api_or_the_dashboard(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient, tmp_path: Path, table: Table
) -> None:
    """17: neither hears of a task; from the host's network both do, and answer 401 to every guess."""
    name = baits.new_name()
    ports = (agent.port, int(dashboard.url.rpartition(":")[2]))
    addresses = [(address, port) for address in baits.own_addresses() for port in ports]
    facts = {"name": name, "addresses": addresses, "guesses": GUESSES, "path": "/execute_task"}
    agent.accept_task("caller", AGENTS_API.playbook(facts), "caller.py")
    result = dashboard.result("caller")
    seen = outcome(result["output"].encode(), None)
    assert (seen.verdict, result["error"]) == (Verdict.HELD, None), seen.why
    assert agent.audit("auth failed") == []
    assert not any(name in str(delivery) for delivery in dashboard.deliveries())

    hole = Hole("the host's network", host={"NetworkMode": "host"}, config={"NetworkDisabled": False})
    async with control(client, tmp_path, AGENTS_API.playbook({**facts, "hold_s": 60}), hole) as box:
        await box.printed(FINISHED)
        assert b"HTTP/1.1 401" in box.output
    assert agent.wait_audited("auth failed", path="/execute_task")
    assert agent.audit("task accepted", task_id=name) == []
    table.add(row(AGENTS_API, hole.name, "both were reached; every guess was answered 401 and audited", seen.tried))


async def test_forgeries_stay_what_they_are(
    agent: AgentProcess,
    dashboard: DashboardStub,
    boxes: Boxes,
    runner: Runner,
    client: docker.DockerClient,
    tmp_path: Path,
    table: Table,
) -> None:
    """18: forged lines are delivered as output; the log is JSON, the chain of the trail holds, the marker is ours."""
    name = baits.new_name()
    agent.accept_task("forger", FORGERIES.playbook({"name": name}), "forger.py")
    result = dashboard.result("forger")
    assert (result["status"], result["error"]) == ("completed", None)
    for forged in (f'"task_id": "{name}"', "agp1 started 0000", "\x1b]52;c;", "[agp-agent: 1000000000 bytes omitted]"):
        assert forged in result["output"]
    assert agent.audit_heads()
    assert name not in agent.log_text()
    assert "\x1b" not in agent.log_text()
    assert all("level" in line for line in agent.log_lines())
    async with boxes.running(runner, FORGERIES.playbook({"name": name}), 60) as box:
        await box.ended()
        assert box.live.control.startswith(box.live.marker)

    hole = Hole(
        "no entry: the program is the first process",
        config={"Entrypoint": ["python3"], "Cmd": ["/playbook/playbook.py"]},
    )
    async with control(client, tmp_path, FORGERIES.playbook({"name": name, "hold_s": 60}), hole) as open_box:
        await open_box.printed(FINISHED)
        stream = client.api.logs(open_box.container_id, stdout=False, stderr=True)
        assert bytes(stream).startswith(b"agp1 started 0000")
    table.add(row(FORGERIES, "no entry", "its forged marker stood first on the control channel"))


async def test_a_task_that_stops_itself_is_ended(
    boxes: Boxes, runner: Runner, client: docker.DockerClient, tmp_path: Path, table: Table
) -> None:
    """23: at its deadline it is gone from the host; a container that nobody ends is still there."""
    attempt, name = ATTEMPTS[23], baits.new_name()
    child = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {name!r}])\n"
    )
    text = child + attempt.playbook({"name": name})
    async with boxes.running(runner, text, 1) as box:
        ended = await box.ended()
        assert ended.asked is Reason.DEADLINE
        container = box.container_id
    assert not [one for one in client.containers.list(all=True) if one.id == container]
    assert not list(processes_of(name))

    async with control(client, tmp_path, text, Hole("no deadline")) as open_box:
        await open_box.printed(FINISHED)
        await until(lambda: _stopped(client, open_box.container_id), "it stops itself")
        await asyncio.sleep(4)  # longer than the deadline and the grace of the other one
        assert _stopped(client, open_box.container_id)
        assert list(processes_of(name))
    table.add(row(attempt, "no deadline", "it stays for ever, stopped"))


def _stopped(client: docker.DockerClient, container_id: str) -> bool:
    """Whether a process of the container is stopped, as the host's kernel has it."""
    rows = client.containers.get(container_id).top(ps_args="-eo pid,stat")["Processes"]
    return any(stat.startswith("T") for _, stat in rows)


async def test_the_agent_reads_nothing_that_a_task_can_write(
    agent: AgentProcess, dashboard: DashboardStub, client: docker.DockerClient, tmp_path: Path, table: Table
) -> None:
    """24: links to a file of the host and fifos are planted; the result comes, and tells nothing of it."""
    attempt, mark = ATTEMPTS[24], secrets.token_hex(16)
    token, shared = tmp_path / "token", tmp_path / "shared"
    token.write_text(mark)
    shared.mkdir()
    facts = {"target": str(token), "place": "/playbook"}
    agent.accept_task("planter", attempt.playbook(facts), "planter.py")
    result = dashboard.result("planter")
    seen = outcome(result["output"].encode(), None)
    assert (seen.verdict, result["error"]) == (Verdict.HELD, None), seen.why
    assert mark not in json.dumps(result)
    assert not [path for path in agent.state.rglob("*") if path.is_symlink() or path.is_fifo()]

    hole = Hole("root, a writable folder of the host", ROOT, mounts=[bind(shared, "/bait")])
    async with control(client, tmp_path, attempt.playbook({**facts, "place": "/bait", "hold_s": 60}), hole) as box:
        await box.printed(FINISHED)
    assert (shared / "output").read_text() == mark
    assert (shared / "spool").is_fifo()
    table.add(row(attempt, hole.name, "who reads that folder reads another file of the host", seen.tried))
