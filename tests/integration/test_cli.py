"""The commands as people type them: what they print, and what they tell the shell."""

import contextlib
import json
import platform
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agp_agent import __version__
from agp_agent.stages import Stage
from support.agent_process import COMMAND, AgentProcess
from support.cli import Cli, command_line, written
from support.dashboard_stub import DashboardStub
from support.engine_side import EngineSide
from support.playbooks import PLAYS
from support.waiting import PATIENCE_S, eventually

COMMANDS = {
    (): (
        "serve",
        "run",
        "dashboard",
        "healthcheck",
        "doctor",
        "version",
        "token",
        "config",
        "audit",
        "agp-agent run FILE",
        "69 container engine",
    ),
    ("serve",): ("AGP_TOKEN", "AGP_DASHBOARD_URL", "SIGTERM drains", "--state-dir"),
    ("run",): ("Ansible YAML", "- is stdin", "124 timed out, 130 by Ctrl-C", "--timeout-s", "--timings", "--verbose"),
    ("dashboard",): ("development dashboard", "AGP_DASHBOARD_TOKEN", "--port"),
    ("healthcheck",): ("HEALTHCHECK", "Exit code 0 or 1", "--ready"),
    ("doctor",): ("--json", "--escape", "how to mend it", "0 (warnings included) or 1"),
    ("version",): ("Print the version",),
    ("token",): ("new",),
    ("token", "new"): ("256 bits", "agp-agent token new > /etc/agp-agent/token"),
    ("runners",): ("list", "check", "schema"),
    ("runners", "list"): ("what each takes", "--json"),
    ("runners", "check"): ("what a playbook sees", "--json", "Exit code 1"),
    ("tasks",): ("list", "show"),
    ("tasks", "list"): ("--state", "--outcome", "--delivery", "--limit", "--json"),
    ("tasks", "show"): ("latest attempt", "--json"),
    ("logs",): ("--follow", "nothing comes twice"),
    ("cancel",): ("Stop a task",),
    ("outbox",): ("list", "retry", "drop"),
    ("outbox", "list"): ("dead letters", "--delivery"),
    ("outbox", "retry"): ("--all",),
    ("outbox", "drop"): ("--yes", "audit trail"),
    ("status",): ("what is not well", "--json"),
    ("pause",): ("for maintenance",),
    ("resume",): ("Start tasks again",),
    ("audit",): ("verify", "tail"),
    ("audit", "tail"): ("--lines", "--follow", "a JSON object a line"),
    ("config", "schema"): ("JSON Schema",),
    ("audit", "verify"): ("--head", "--json", "--state-dir", "Exit code 0 or 1", "AGP-Audit-Head"),
    ("config",): ("show", "check", "schema"),
    ("config", "show"): ("--json", "masked"),
    ("config", "check"): ("all problems at once", "0 or 78"),
}


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """What a script starts in the background ignores Ctrl-C, and so would all that this suite starts then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def nothing_left(tmp_path: Path, engine: EngineSide) -> Iterator[None]:
    """No container of ``agp-agent run`` and no temporary folder is there afterwards."""
    yield
    eventually(lambda: engine.containers("run", label="agp.agent_id") == [], "containers removed")
    assert list((tmp_path / "tmp").iterdir()) == []


# --- run ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("name", "content", "code", "output", "error"),
    [
        ("p.sh", "echo out; echo err >&2", 0, "out\nerr\n", ""),
        ("p.sh", "echo out; exit 3", 3, "out\n", ""),
        ("p.sh", "kill -9 $$", 137, "", ""),
        ("p.py", "print(6 * 7)", 0, "42\n", ""),
        ("notes.txt", "hello", 1, "", "agp-agent: no runner for 'notes.txt'; known runners: shell, python, ansible\n"),
    ],
    ids=["success", "exit code", "signal", "python", "no runner"],
)
def test_run_prints_the_output_and_gives_the_exit_code(
    cli: Cli, tmp_path: Path, name: str, content: str, code: int, output: str, error: str
) -> None:
    """Nothing but the playbook's own output stands on stdout."""
    ended = cli("run", written(tmp_path, name, content))
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, output, error)


@pytest.mark.usefixtures("nothing_left")
def test_run_runs_plays(cli: Cli, tmp_path: Path) -> None:
    """An Ansible playbook of a file, and one of stdin that is recognised by its shape."""
    of_file, of_stdin = cli("run", written(tmp_path, "site.yml", PLAYS)), cli("run", "-", stdin=PLAYS)
    assert (of_file.returncode, of_stdin.returncode) == (0, 0)
    assert "msg: hello from localhost" in of_file.stdout
    assert of_file.stdout == of_stdin.stdout


@pytest.mark.usefixtures("nothing_left")
def test_run_stops_a_playbook_that_takes_too_long(cli: Cli, tmp_path: Path) -> None:
    """Exit code 124, as timeout(1) has it, and the reason on stderr."""
    path = written(tmp_path, "p.sh", "echo begin; sleep 600")
    ended = cli("run", path, "--timeout-s", "0.5")
    assert (ended.returncode, ended.stdout, ended.stderr) == (124, "begin\n", "agp-agent: timed out after 0.5 s\n")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_playbook(
    environment: dict[str, str], tmp_path: Path, engine: EngineSide, number: signal.Signals
) -> None:
    """Its output comes live; the container gets TERM, exit code 130, and nothing is left."""
    path = written(tmp_path, "p.sh", "trap 'echo bye; exit 0' TERM; echo begin; sleep 600 & wait")
    with subprocess.Popen([COMMAND, "run", str(path)], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        assert len(engine.containers("run", label="agp.agent_id", running=True)) == 1
        process.send_signal(number)
        rest = process.stdout.read()
    assert (process.returncode, rest) == (130, "bye\n")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("after_starts_with", ["agp-run-", "agp-run-*/journal.db", "agp-run-*/slots/agp-*"])
def test_ctrl_c_before_the_playbook_runs_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, after_starts_with: str
) -> None:
    """However early the signal comes."""
    path = written(tmp_path, "p.sh", "sleep 600")
    process = subprocess.Popen([COMMAND, "run", str(path)], env=environment, stderr=subprocess.DEVNULL)
    pattern = after_starts_with if "*" in after_starts_with else f"{after_starts_with}*"
    eventually(lambda: [*(tmp_path / "tmp").glob(pattern)], pattern)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130


@pytest.mark.usefixtures("nothing_left")
def test_run_tells_its_timings(cli: Cli, tmp_path: Path) -> None:
    """Every stage of the run, in the order of the cold path, counted from its order on."""
    ended = cli("run", written(tmp_path, "p.sh", "echo ok"), "--timings", tmp_path / "timings.json")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ok\n", "")
    timings = json.loads((tmp_path / "timings.json").read_text())
    stages = timings["stages_ms"]
    assert (timings["start"], list(stages), stages["received"]) == ("cold", [stage.value for stage in Stage], 0)
    until_finished = [at for name, at in stages.items() if name not in {"removed", "acknowledged", "marker"}]
    assert until_finished == sorted(until_finished)
    # The engine reads stdout and stderr each by itself: output may come a moment before the marker.
    assert stages["released"] <= stages["marker"] <= stages["exited"]


def test_timings_that_cannot_be_written_are_told_before_the_run(cli: Cli, tmp_path: Path) -> None:
    """Nothing was run in vain."""
    ended = cli("run", written(tmp_path, "p.sh", "echo ok"), "--timings", tmp_path / "none" / "timings.json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "'--timings'" in ended.stderr


@pytest.mark.usefixtures("nothing_left")
def test_what_a_killed_run_left_is_removed_by_the_next(
    environment: dict[str, str], cli: Cli, tmp_path: Path, engine: EngineSide
) -> None:
    """Its container and its folder; that of one that lives is not touched."""
    path = written(tmp_path, "p.sh", "echo begin; sleep 600")
    with contextlib.ExitStack() as stack:
        killed, killed_instance = started(stack, environment, path, tmp_path)
        alive, alive_instance = started(stack, environment, path, tmp_path)
        killed.kill()
        killed.wait(PATIENCE_S)
        engine.client.networks.create(f"agp-{killed_instance}", labels={"agp.instance": killed_instance})
        assert len(engine.containers(killed_instance, running=True)) == 1
        assert cli("run", written(tmp_path, "next.sh", "echo next")).stdout == "next\n"
        assert engine.containers(killed_instance) == engine.networks(killed_instance) == []
        assert len(engine.containers(alive_instance, running=True)) == 1
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        alive.send_signal(signal.SIGINT)
        assert alive.wait(PATIENCE_S) == 130


def started(
    stack: contextlib.ExitStack, environment: dict[str, str], path: Path, tmp_path: Path
) -> tuple["subprocess.Popen[bytes]", str]:
    """A run that printed ``begin``, ended in any case when the stack is; and its instance."""
    before = set((tmp_path / "tmp").glob("agp-run-*"))
    process = stack.enter_context(
        subprocess.Popen([COMMAND, "run", str(path)], env=environment, stdout=subprocess.PIPE)
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begin\n"
    (folder,) = set((tmp_path / "tmp").glob("agp-run-*")) - before
    return process, str(json.loads((folder / "agent.lock").read_text())["instance"])


@pytest.mark.usefixtures("nothing_left")
def test_run_works_beside_a_running_agent(cli: Cli, tmp_path: Path, dashboard: DashboardStub) -> None:
    """With a temporary state of its own; neither notices the other."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent:
        agent.accept_task("beside", "until [ -e /work/go ]; do sleep 0.05; done")
        container = agent.container_of("beside")
        ended = cli("run", written(tmp_path, "p.sh", "echo local"))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "local\n", "")
        agent.engine.let_go(container)
        assert dashboard.result("beside")["status"] == "completed"
        assert len(dashboard.deliveries()) == 1


def test_run_without_an_engine_is_69(cli: Cli, tmp_path: Path) -> None:
    """One sentence that says where it was looked for."""
    host = f"unix://{tmp_path}/no.sock"
    ended = cli("run", written(tmp_path, "p.sh", "echo"), DOCKER_HOST=host)
    assert (ended.returncode, ended.stdout) == (69, "")
    assert re.fullmatch(rf"agp-agent: .*{re.escape(host)}.*\n", ended.stderr)


def test_run_without_an_image_is_69(cli: Cli, tmp_path: Path) -> None:
    """The runner's image is part of what must be there."""
    catalog = "runners: {odd: {image: 'agp/none:1', pull: never, match: {suffixes: [.odd]}, command: ['{playbook}']}}"
    settings = {"AGP_CATALOG": written(tmp_path, "catalog.yaml", catalog)}
    ended = cli("run", written(tmp_path, "p.odd", "x"), **settings)
    assert (ended.returncode, ended.stdout) == (69, "")
    assert ended.stderr.startswith("agp-agent: image agp/none:1 is not available: ")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.sh", None, "missing.sh: cannot be read: No such file or directory.\n"),
        (".", None, ": cannot be read: Is a directory.\n"),
        ("latin.sh", b"echo \xe9\n", "latin.sh: is not UTF-8 text.\n"),
    ],
)
def test_run_of_what_is_no_playbook_is_2(
    cli: Cli, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    """A file that is not there, none at all, or not text."""
    path = tmp_path / name if content is None else written(tmp_path, name, content)
    ended = cli("run", path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("agp-agent: ")
    assert ended.stderr.endswith(sentence)


def test_run_of_an_empty_file_is_said(cli: Cli, tmp_path: Path) -> None:
    """What the wire would refuse is refused here too."""
    ended = cli("run", written(tmp_path, "p.sh", ""))
    assert ended.returncode in {1, 2}
    assert "content must not be empty" in ended.stderr


# --- the small commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(cli: Cli, command: tuple[str, ...]) -> None:
    """Each command says what it does, and what it needs."""
    ended = cli(*command, "--help")
    text = " ".join(re.sub("[│╭╰─╮╯]", " ", ended.stdout).split())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [word for word in COMMANDS[command] if word not in text] == []


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("serve", "--nonsense"), ("run",), ("token", "old"), ("serve", "--port", "x")]
)
def test_wrong_usage_is_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    """With the usage on stderr."""
    ended = cli(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Usage: agp-agent" in ended.stderr


def test_version(cli: Cli) -> None:
    """The project's own; nobody wrote into a checkout which commit it is."""
    assert cli("version").stdout == f"agp-agent {__version__}\n"
    told = json.loads(cli("version", "--json").stdout)
    assert told == {"version": __version__, "commit": None, "python": platform.python_version()}


def test_token_new_is_random_and_usable(cli: Cli) -> None:
    """256 bits in a form that goes into a header."""
    tokens = {cli("token", "new").stdout for _ in range(3)}
    assert len(tokens) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}\n", token) for token in tokens)


def test_healthcheck_asks_the_running_agent(cli: Cli, tmp_path: Path, dashboard: DashboardStub) -> None:
    """0 while it is alive, 1 with a sentence when it is not; no token is needed."""
    with AgentProcess(tmp_path / "agent", dashboard.url, dashboard.token) as agent:
        alive = cli("healthcheck", AGP_PORT=agent.port)
        assert (alive.returncode, alive.stdout) == (0, "healthy\n")
        ready = cli("healthcheck", "--ready", AGP_PORT=agent.port)
        assert (ready.returncode, ready.stdout) == (0, "ready\n")
        anywhere = cli("healthcheck", AGP_PORT=agent.port, AGP_HOST="0.0.0.0")  # noqa: S104  what it is asked for
        assert anywhere.returncode == 0
        port = agent.port
    absent = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    with AgentProcess(tmp_path / "waits", dashboard.url, dashboard.token, absent, ready=False) as agent:
        assert cli("healthcheck", AGP_PORT=agent.port).returncode == 0
        waits = cli("healthcheck", "--ready", AGP_PORT=agent.port)
        assert (waits.returncode, waits.stderr) == (1, f"agp-agent: 127.0.0.1 port {agent.port} answered 503\n")
    gone = cli("healthcheck", AGP_PORT=port)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert f"127.0.0.1 port {port}" in gone.stderr


def test_the_shell_completes_commands_and_options(environment: dict[str, str]) -> None:
    """As `--install-completion` sets it up for bash."""
    for words, expected in (
        ("agp-agent ta", "tasks"),
        ("agp-agent tasks s", "show"),
        ("agp-agent logs --fo", "--follow"),
    ):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        ended = command_line(environment | asked | {"_AGP_AGENT_COMPLETE": "complete_bash"})()
        assert ended.stdout.split() == [expected], ended
