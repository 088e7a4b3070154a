"""The walk of one task on the real engine, from the 202 to the result: every way to end, exactly."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support.agent_process import AgentProcess
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.playbooks import PLAYS, WAITED, WAITING
from support.scenarios import CATALOG, SCENARIOS, Scenario

HOSTILE_IDS = (
    "../x",
    "..",
    "/",
    "-rf",
    "a/cancel",
    "a%2Fcancel",
    " spaces and more ",
    "\U0001f642 \u202etxt",
    "$(touch /x); `id` '\"\\",
    "x" * 256,
    "~" + "0" * 64,
)
PLACES = 8


@pytest.fixture(scope="module")
def agent(dashboard: DashboardStub, folder: Path) -> Iterator[AgentProcess]:
    """An agent with an operator's catalog and eight places."""
    (folder / "catalog.yaml").write_text(CATALOG)
    settings = {"AGP_CATALOG": folder / "catalog.yaml", "AGP_MAX_RUNNING": PLACES}
    with AgentProcess(folder, dashboard.url, dashboard.token, settings) as process:
        yield process
        heads = process.audit_heads()
    assert process.audit_heads().items() >= heads.items()


@pytest.fixture(scope="module")
def sent(agent: AgentProcess) -> None:
    """All scenarios, on their way at once."""
    for scenario in SCENARIOS:
        agent.accept_task(scenario.about, scenario.content, scenario.name)


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.about))
def test_a_playbook_ends_as_it_must(agent: AgentProcess, dashboard: DashboardStub, scenario: Scenario) -> None:
    """Status, output and error are exact; container and slot are gone soon after."""
    result = dashboard.result(scenario.about)
    assert result == {
        "task_id": scenario.about,
        "status": scenario.status,
        "output": scenario.output,
        "error": scenario.error,
    }
    key = dashboard.acknowledged(scenario.about).headers["idempotency-key"].split("/")
    assert key[1:3] == [quote(scenario.about, safe=""), "1"]
    for line in agent.audit("task started", task_id=scenario.about):
        agent.engine.wait_removed(line["container_id"])


@pytest.mark.usefixtures("sent")
def test_results_carry_the_head_of_the_audit_trail(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """What the dashboard anchors is a line that is on disk, behind the acceptance of the task that it came with."""
    for scenario in SCENARIOS:
        number, _, sha256 = dashboard.acknowledged(scenario.about).headers["agp-audit-head"].partition(":")
        assert agent.audit_heads()[int(number)] == sha256
        (accepted,) = agent.audit("task accepted", task_id=scenario.about)
        assert accepted["seq"] <= int(number)


def test_ansible_runs_real_plays(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """A play is recognised by its suffix or its shape, and its output reads well."""
    agent.accept_task("plays", PLAYS, "site.yml")
    agent.accept_task("plays by shape", PLAYS, "site")
    failing = PLAYS.replace("ansible.builtin.debug:\n        msg: hello", "ansible.builtin.fail:\n        msg: sorry")
    agent.accept_task("plays that fail", failing, "site.yaml")
    agent.accept_task("plays for nobody", PLAYS.replace("hosts: all", "hosts: webservers"), "site.yml")
    for task_id in ("plays", "plays by shape"):
        result = dashboard.result(task_id)
        assert (result["status"], result["error"]) == ("completed", None), result["output"]
        assert "PLAY [Greet] ***" in result["output"]
        assert "    msg: hello from localhost\n" in result["output"]
        assert "localhost                  : ok=1    changed=0    unreachable=0    failed=0" in result["output"]
        assert "\x1b" not in result["output"]
    failed = dashboard.result("plays that fail")
    why = 'exit code 2: task "Say hello" failed on localhost: sorry from localhost'
    assert (failed["status"], failed["error"]) == ("failed", why)
    assert "sorry from localhost" in failed["output"]
    assert "agp1" not in failed["output"]
    told = agent.request("GET", "/tasks/plays that fail").json()
    assert [one["message"] for one in told["failures"]] == ["sorry from localhost"]
    assert [(one["host"], one["ok"], one["failed"]) for one in told["recap"]] == [("localhost", 0, 1)]
    assert dashboard.result("plays for nobody")["error"] == "exit code 1"


def test_a_playbook_that_forges_events_changes_its_own_display_alone(
    agent: AgentProcess, dashboard: DashboardStub
) -> None:
    """Printed, they are output; written to the entry's channel, they decide nothing about how it ended."""
    lie = """'agp1 event {"failure": {"kind": "failed", "host": "h", "task": "t", "message": "lie"}}'"""
    agent.accept_task("prints a lie", f"echo {lie}; exit 3")
    agent.accept_task("tells a lie", f"echo {lie} >/proc/1/fd/2; exit 3")
    agent.accept_task("lies and succeeds", f"echo {lie} >/proc/1/fd/2; yes 'agp1 event x' | head -c 300K >/proc/1/fd/2")
    printed, told, succeeded = (dashboard.result(name) for name in ("prints a lie", "tells a lie", "lies and succeeds"))
    assert (printed["error"], printed["output"]) == ("exit code 3", f"{lie[1:-1]}\n")
    assert (told["error"], told["output"]) == ('exit code 3: task "t" failed on h: lie', "")
    assert (succeeded["status"], succeeded["error"], succeeded["output"]) == ("completed", None, "")
    assert agent.request("GET", "/tasks/prints a lie").json()["failures"] == []
    assert [line["error"] for line in agent.audit("task finished", task_id="tells a lie")] == ["exit code 3"]


def test_a_running_task_can_be_cancelled(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """202 at once; the container is stopped, what was printed is kept; a second cancel is told how it ended."""
    agent.accept_task("stopped", "trap 'echo bye; exit 0' TERM; echo begin; sleep 600 & wait")
    agent.engine.wait_printed(agent.container_of("stopped"), b"begin")
    answer = agent.cancel("stopped")
    assert (answer.status_code, answer.json()) == (202, {"message": "Task is being cancelled"})
    assert dashboard.result("stopped") == {
        "task_id": "stopped",
        "status": "failed",
        "output": "begin\nbye\n",
        "error": "cancelled",
    }
    again = agent.cancel("stopped")
    assert (again.status_code, again.json()) == (409, {"detail": "The task has ended already: cancelled."})
    agent.wait_audited("task cancelled", task_id="stopped")


def test_a_cancelled_task_that_ignores_term_is_killed(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """After the grace nothing is asked any more."""
    agent.accept_task("deaf", "trap '' TERM; echo begin; while :; do sleep 0.1; done")
    agent.engine.wait_printed(agent.container_of("deaf"), b"begin")
    assert agent.cancel("deaf").status_code == 202
    result = dashboard.result("deaf")
    assert (result["output"], result["error"]) == ("begin\n", "cancelled")


def test_a_queued_task_can_be_cancelled(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """It never starts. A runner's own limit makes it wait here, and holds nobody else up."""
    agent.accept_task("holder", WAITING, "p.single")
    container = agent.container_of("holder")
    agent.accept_task("waiter", "echo never", "p.single")
    agent.accept_task("passer", "echo passed")
    assert dashboard.result("passer")["output"] == "passed\n"
    assert agent.cancel("waiter").status_code == 202
    assert dashboard.result("waiter") == {
        "task_id": "waiter",
        "status": "failed",
        "output": "",
        "error": "cancelled",
    }
    agent.engine.let_go(container)
    assert dashboard.result("holder") == {"task_id": "holder", **WAITED}
    assert agent.audit("task started", task_id="waiter") == []


def test_a_container_killed_from_outside_is_said_to_be(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """It is not the playbook's failure."""
    agent.accept_task("shot", WAITING)
    container = agent.container_of("shot")
    agent.engine.wait_printed(container, b"before")
    agent.engine.client.api.kill(container)
    result = dashboard.result("shot")
    assert (result["status"], result["output"], result["error"]) == ("failed", "before\n", "killed from outside")


def test_a_container_removed_from_outside_is_lost(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """What was printed until then is kept; that nobody saw the end is said."""
    agent.accept_task("taken", WAITING)
    container = agent.container_of("taken")
    agent.engine.wait_printed(container, b"before")
    agent.engine.client.api.remove_container(container, force=True)
    result = dashboard.result("taken")
    assert (result["status"], result["output"]) == ("failed", "before\n")
    assert result["error"] in {"lost: the container was removed from outside", "killed from outside"}


def test_a_program_that_the_catalog_invents_is_an_exit_code(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """The entry cannot start it, and says so in the output."""
    agent.accept_task("broken", "x", "p.broken")
    result = dashboard.result("broken")
    assert (result["status"], result["error"]) == ("failed", "exit code 127")
    assert "/no/such/program" in result["output"]


def test_any_id_is_data(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Ids that look like paths, options, commands and routes are run, cancelled and reported like all others."""
    names = {path.name for path in agent.state.iterdir()}
    for task_id in HOSTILE_IDS:
        agent.accept_task(task_id, "echo begin; sleep 600")
    for task_id in HOSTILE_IDS:
        assert agent.cancel(quote(task_id, safe="").replace(".", "%2E")).status_code == 202
    for task_id in HOSTILE_IDS:
        delivery = dashboard.acknowledged(task_id)
        assert delivery.result["task_id"] == task_id
        assert delivery.result["error"] == "cancelled"
        assert delivery.headers["idempotency-key"].split("/")[1:3] == [quote(task_id, safe=""), "1"]
    assert {path.name for path in agent.state.iterdir()} == names


def test_places_are_kept_and_every_container_has_its_own_user(
    agent: AgentProcess, dashboard: DashboardStub, engine: EngineSide
) -> None:
    """Eight run at once as eight users; the ninth waits until one of them has ended."""
    tasks = [f"one of {PLACES} - {number}" for number in range(PLACES)]
    for task_id in tasks:
        assert agent.post_task(task_id, f"id -u; {WAITING}").json()["status"] == "running"
    containers = [agent.container_of(task_id) for task_id in tasks]
    for container in containers:
        engine.wait_printed(container, b"before")
    assert agent.post_task("the ninth", "id -u").json()["status"] == "pending"
    assert {one.id for one in engine.containers(agent.instance, running=True)} == set(containers)
    users = [str(engine.inspect(container)["Config"]["User"]).split(":") for container in containers]
    assert len({uid for uid, _gid in users}) == PLACES
    assert all(uid == gid and 20000 <= int(uid) <= 20255 for uid, gid in users)
    assert agent.audit("task started", task_id="the ninth") == []
    for container in containers:
        engine.let_go(container)
    outputs = [dashboard.result(task_id)["output"] for task_id in tasks]
    assert outputs == [f"{uid}\nbefore\nafter\n" for uid, _gid in users]
    assert dashboard.result("the ninth")["status"] == "completed"


def test_no_token_and_no_playbook_is_where_it_should_not_be(agent: AgentProcess, dashboard: DashboardStub) -> None:
    """Neither is in the log or in what the engine tells; content is in the journal and in its slot alone."""
    content = "echo before; until [ -e /work/go ]; do sleep 0.05; done # content-of-the-playbook"
    agent.accept_task("secretive", content)
    container = agent.container_of("secretive")
    agent.engine.wait_printed(container, b"before")
    inspected = json.dumps(agent.engine.inspect(container))
    agent.engine.let_go(container)
    dashboard.result("secretive")
    places = {"inspect": inspected.encode(), "log": agent.log_text().encode()}
    for path in agent.state.rglob("*"):
        with contextlib.suppress(IsADirectoryError, FileNotFoundError):
            places[path.name] = path.read_bytes()
    for place, data in places.items():
        for token in (agent.token, dashboard.token):
            assert token.encode() not in data, place
        if not place.startswith(("journal.db", "playbook.sh")):
            assert b"content-of-the-playbook" not in data, place
    assert places.keys() >= {"journal.db", "audit.jsonl", "agent.lock"}
