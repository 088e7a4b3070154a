"""``agp-agent runners list|check``, as operators type them, on the real engine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agp_agent import __version__
from support.cli import Cli
from support.engine_side import EngineSide
from support.waiting import eventually

SECRET = "a-secret-that-nobody-may-see"
SHELL = f"agp/runner-shell:{__version__}"


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path, engine: EngineSide) -> Iterator[None]:
    """No container of a check and no temporary folder is there afterwards."""
    yield
    eventually(lambda: engine.containers("check", label="agp.agent_id") == [], "containers removed")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """An operator's catalog: a runner that is granted much, and one for each thing that can be wrong."""
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o600)
    for name, mode in (("inventory", 0o755), ("closed", 0o700), ("shared", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    base = {"image": SHELL, "command": ["agp-shell", "{playbook}"]}
    runners: dict[str, dict[str, Any]] = {
        "granted": {
            "match": {"suffixes": [".granted"]},
            "memory": "64MiB",
            "pids": 32,
            "tmpfs": {"/work": {"size": "16MiB", "exec": True}},
            "env": {"MODE": "value-of-a-variable"},
            "inventory": str(tmp_path / "inventory"),
            "mounts": [{"source": str(tmp_path / "shared"), "target": "/shared", "rw": True}],
            "secrets": [{"source": str(tmp_path / "key"), "name": "ssh_key"}],
        },
        "outbound": {"network": "outbound", "match": {"suffixes": [".outbound"]}},
        "plain": {"image": "debian:trixie-slim", "pull": "never"},
        "absent": {"image": "127.0.0.1:1/agp/nothing:1"},
        "no-command": {"command": ["no-such-program", "{playbook}"]},
        "closed": {"mounts": [{"source": str(tmp_path / "closed"), "target": "/closed"}]},
        "no-source": {"mounts": [{"source": str(tmp_path / "nowhere"), "target": "/nowhere"}]},
        "no-secret": {"secrets": [{"source": str(tmp_path / "no-key"), "name": "ssh_key"}]},
        "no-runtime": {"runtime": "no-such-runtime"},
    }
    path = tmp_path / "catalog.yaml"
    path.write_text(json.dumps({"runners": {name: base | more for name, more in runners.items()}}))  # JSON is YAML
    return path


def test_list_needs_no_engine(cli: Cli, catalog: Path) -> None:
    """It tells what the catalog says, for people and for programs."""
    nowhere = {"AGP_CATALOG": catalog, "DOCKER_HOST": "unix:///nowhere.sock"}
    listed, for_programs = cli("runners", "list", **nowhere), cli("runners", "list", "--json", **nowhere)
    assert (listed.returncode, for_programs.returncode) == (0, 0)
    names = ["shell", "python", "ansible", "granted", "outbound", "plain", "absent", "no-command", "closed"]
    assert [line.split()[0] for line in listed.stdout.splitlines()][1:10] == names
    assert [runner["name"] for runner in json.loads(for_programs.stdout)][:9] == names


def test_check_tries_the_built_in_runners(cli: Cli) -> None:
    """All of them are fine, and it says which programs a playbook finds."""
    checked = cli("runners", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    for name, tool in (("shell", "jq 1"), ("python", "python3 3.13"), ("ansible", "ansible-playbook 2.19")):
        (report,) = [
            part for part in checked.stdout.split("\n\n") if part.startswith(f"{name}: fine, agp/runner-{name}")
        ]
        assert tool in report
        assert "network      none (lo)" in report


def test_check_tells_what_a_playbook_sees_of_all_that_it_is_granted(cli: Cli, catalog: Path, tmp_path: Path) -> None:
    """By looking around in a container: limits, writable places, mounts, names of secrets and variables, no values."""
    checked = cli("runners", "check", "granted", AGP_CATALOG=catalog)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = dict(line.strip().split(None, 1) for line in checked.stdout.splitlines()[1:])
    assert lines["user"].endswith("home /work, no capabilities, none to gain")
    assert 20000 <= int(lines["user"].split()[0]) <= 20255
    assert set(lines["writable"].split(" · ")) == {
        "/work 16 MiB exec", "/shared of the host exec", "/run/secrets 1 MiB noexec",
    }  # fmt: skip
    assert lines["limits"].startswith("memory 64 MiB · 1 CPU · 32 processes · ")
    assert f"/shared writable ({tmp_path}/shared) · /inventory read-only ({tmp_path}/inventory)" == lines["mounts"]
    assert lines["secrets"] == "/run/secrets/ssh_key"
    assert {"MODE", "ANSIBLE_INVENTORY", "HOME"} <= set(lines["environment"].split(", "))
    assert SECRET not in checked.stdout
    assert "value-of-a-variable" not in checked.stdout
    assert list((tmp_path / "shared").iterdir()) == []


def test_check_tells_the_reach_of_a_runner_with_a_network(cli: Cli, catalog: Path) -> None:
    """Which the canary has proven before; where there is no fence, nothing of such a runner is started."""
    checked = cli("runners", "check", "outbound", AGP_CATALOG=catalog)
    assert (checked.returncode, checked.stderr) == (0, "")
    (network,) = [line for line in checked.stdout.splitlines() if line.startswith("  network ")]
    for seen in ("outbound (eth0, lo)", "gateway ", "resolver 127.0.0.11", "169.254.169.254:80 does not answer"):
        assert seen in network
    unfenced = cli("runners", "check", "outbound", AGP_CATALOG=catalog, AGP_FENCE_IMAGE="127.0.0.1:1/agp/no-fence:1")
    assert unfenced.returncode == 1
    assert "image 127.0.0.1:1/agp/no-fence:1 is not available" in unfenced.stdout
    assert "AGP_FENCE_IMAGE names it" in unfenced.stdout


@pytest.mark.parametrize(
    ("runner", "problem"),
    [
        ("plain", "its image does not keep the runner contract: its entry did not answer the agent's release; "),
        ("absent", "image 127.0.0.1:1/agp/nothing:1 is not available: "),
        ("no-command", "its command no-such-program is not in the image"),
        ("closed", "/closed is mounted, and the user of its playbooks cannot read it: give others the right to"),
        ("no-source", "nowhere"),
        ("no-secret", "secret ssh_key is not available: "),
        ("no-runtime", "the engine has no runtime no-such-runtime; it has "),
    ],
)
def test_check_tells_what_is_wrong(cli: Cli, catalog: Path, runner: str, problem: str) -> None:
    """In one sentence that names it, and with exit code 1."""
    checked = cli("runners", "check", runner, AGP_CATALOG=catalog)
    assert (checked.returncode, checked.stderr) == (1, "")
    assert checked.stdout.startswith(f"{runner}: not usable, ")
    (told,) = [line for line in checked.stdout.splitlines() if line.startswith("  problem ")]
    assert problem in told


def test_one_runner_that_is_not_usable_keeps_nobody_from_the_others(cli: Cli, catalog: Path) -> None:
    """All are tried, and each has its report; as JSON for programs."""
    checked = cli("runners", "check", "absent", "shell", "--json", AGP_CATALOG=catalog)
    absent, shell = json.loads(checked.stdout)
    assert checked.returncode == 1
    assert (absent["runner"], absent["sees"], len(absent["problems"])) == ("absent", None, 1)
    assert (shell["runner"], shell["problems"]) == ("shell", [])
    assert shell["image_digest"].startswith("sha256:")
    assert shell["sees"]["network"] == "none (lo)"


def test_an_engine_without_any_runners_image_is_told_of_each_runner(cli: Cli, tmp_path: Path) -> None:
    """As on a machine where nobody has built or pulled them yet."""
    absent = {"image": "agp/not-there:1", "pull": "never", "command": ["{playbook}"]}
    (tmp_path / "empty.yaml").write_text(json.dumps({"runners": dict.fromkeys(("shell", "python", "ansible"), absent)}))
    checked = cli("runners", "check", AGP_CATALOG=tmp_path / "empty.yaml")
    assert (checked.returncode, checked.stderr) == (1, "")
    assert checked.stdout.count("not usable") == 3
    assert "it is not on the engine, and its pull policy is never" in checked.stdout


def test_a_runner_that_is_not_in_the_catalog_is_wrong_usage(cli: Cli) -> None:
    """With the names of those that are."""
    checked = cli("runners", "check", "nobody")
    assert checked.returncode == 2
    assert "no runner nobody; the catalog has shell, python, ansible" in checked.stderr


def test_an_engine_that_does_not_answer_is_exit_code_69(cli: Cli) -> None:
    """As for every command that needs it."""
    checked = cli("runners", "check", "shell", DOCKER_HOST="unix:///nowhere.sock")
    assert checked.returncode == 69
    assert "the engine does not answer at unix:///nowhere.sock" in checked.stderr
