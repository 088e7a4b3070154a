"""What ``agp-agent config`` and ``serve`` say of settings, right and wrong."""

import json
from pathlib import Path

import pytest

from support.cli import Cli, written

SECRETS = {"AGP_TOKEN": "secret-of-the-inbound-side", "AGP_DASHBOARD_TOKEN": "secret-of-the-outbound-side"}


def test_config_show_tells_values_and_sources(cli: Cli, tmp_path: Path) -> None:
    """Environment, file or default; tokens are masked in both forms."""
    config = written(tmp_path, "my.yaml", "max_queued: 7\ndashboard_url: https://one.example/\n")
    arguments = ("config", "show", "--config", config)
    ended = cli(*arguments, **SECRETS, AGP_MAX_RUNNING=3, AGP_DASHBOARD_URL="https://two.example")
    assert ended.returncode == 0
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in ended.stdout.splitlines()}
    assert lines["max_queued"] == f"7 ({config})"
    assert lines["dashboard_url"] == "https://two.example (environment, AGP_DASHBOARD_URL)"
    assert lines["max_running"] == "3 (environment, AGP_MAX_RUNNING)"
    assert lines["port"] == "8470 (default)"
    assert lines["token"] == "[redacted] (environment, AGP_TOKEN)"
    as_json = cli(*arguments, "--json", **SECRETS)
    document = json.loads(as_json.stdout)
    assert document["max_queued"] == {"value": 7, "source": str(config)}
    assert document["token"] == {"value": "[redacted]", "source": "environment, AGP_TOKEN"}
    assert not any(secret in ended.stdout + as_json.stdout for secret in SECRETS.values())


def test_config_schema_is_that_of_the_settings_file(cli: Cli) -> None:
    """Every key with what it means; unknown ones are refused."""
    document = json.loads(cli("config", "schema").stdout)
    assert document["additionalProperties"] is False
    assert document["properties"]["max_queued"]["description"].startswith("Tasks that wait")


def test_config_check_finds_nothing_wrong(cli: Cli, tmp_path: Path) -> None:
    """It says what would be used, starts nothing and makes nothing."""
    state = tmp_path / "state"
    ended = cli("config", "check", **SECRETS, AGP_DASHBOARD_URL="http://dashboard.example", AGP_STATE_DIR=state)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (f"The settings are fine. Runners: shell, python, ansible. State directory: {state}.\n")
    assert not state.exists()


@pytest.mark.parametrize("command", [("config", "check"), ("serve",)], ids=" ".join)
def test_wrong_settings_are_78_with_all_problems_at_once(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Each line has the key, where its value stands and what was expected, and no value of a secret."""
    config = written(tmp_path, "my.yaml", "max_queued: many\nnonsense: 1\nport: 80\n")
    ended = cli(
        *command,
        AGP_CONFIG=config,
        AGP_TOKEN="short-secret",
        AGP_PORT="70000",
        AGP_DASHBOARD_URL="ftp://dashboard.example",
        AGP_TASK_TIMEOUT_S="0",
        AGP_NONSENSE="1",
        AGP_UID_RANGE="0-5",
    )
    assert (ended.returncode, ended.stdout) == (78, "")
    lines = ended.stderr.splitlines()
    assert all(line.startswith("agp-agent: ") and line.endswith(".") for line in lines)
    for expected in (
        "AGP_NONSENSE (environment): is not a setting of the agent",
        f"nonsense ({config}): is not a setting of the agent",
        f"max_queued ({config}): expected",
        "AGP_TOKEN (environment): expected a token of at least 16 characters",
        "AGP_PORT (environment): expected a value less than or equal to 65535",
        "AGP_DASHBOARD_URL (environment): expected an http:// or https:// URL",
        "AGP_TASK_TIMEOUT_S (environment): expected a value greater than 0",
        "AGP_UID_RANGE (environment): expected two user ids",
        "AGP_DASHBOARD_TOKEN (not set): expected a token",
    ):
        assert len([line for line in lines if expected in line]) == 1, expected
    assert len(lines) == 9
    assert "short-secret" not in ended.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("serve",)], ids=" ".join)
def test_what_only_use_finds_out_is_told_at_once_too(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Missing tokens, a missing dashboard and a broken catalog."""
    catalog = written(tmp_path, "catalog.yaml", "runners:\n  odd: {image: x, command: [y], size: 3}\n")
    ended = cli(*command, AGP_CATALOG=catalog, AGP_STATE_DIR=tmp_path / "state")
    assert (ended.returncode, ended.stdout) == (78, "")
    for expected in (
        "AGP_TOKEN (not set): expected a token",
        "AGP_DASHBOARD_TOKEN (not set): expected a token",
        "AGP_DASHBOARD_URL (not set): expected the URL",
        f'{catalog}: runner odd, command: expected a list of words, one of them "{{playbook}}".',
        f"AGP_CATALOG (environment): {catalog}: runner odd, size: is not a known key.",
    ):
        assert len([line for line in ended.stderr.splitlines() if expected in line]) == 1, expected
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"AGP_DASHBOARD_TOKEN": SECRETS["AGP_TOKEN"]}, "expected two different tokens, one for each direction"),
        ({"AGP_CONFIG": "/nowhere/agent.yaml"}, "/nowhere/agent.yaml: no such file"),
        ({"AGP_TOKEN_FILE": "/nowhere/token"}, "only one of AGP_TOKEN and AGP_TOKEN_FILE"),
        ({"AGP_TLS_KEY_FILE": "/nowhere/key"}, "AGP_TLS_CERT_FILE and AGP_TLS_KEY_FILE together"),
        ({"AGP_HOST": "no-such-host.invalid"}, "AGP_HOST (environment): no-such-host.invalid is not an address"),
        ({"AGP_HOST": "192.0.2.1"}, "AGP_HOST, AGP_PORT: cannot listen on 192.0.2.1 port 0"),
        ({"AGP_STATE_DIR": "/proc/agp"}, "/proc/agp: the state directory cannot be used"),
        ({"DOCKER_HOST": "ssh://elsewhere"}, "DOCKER_HOST is 'ssh://elsewhere', expected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_serve_with_one_thing_wrong_is_78(cli: Cli, tmp_path: Path, wrong: dict[str, str], expected: str) -> None:
    """One sentence each."""
    settings = {"AGP_DASHBOARD_URL": "http://127.0.0.1:1", "AGP_STATE_DIR": str(tmp_path / "state"), "AGP_PORT": "0"}
    ended = cli("serve", **(SECRETS | settings | wrong))
    assert ended.returncode == 78, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert expected in ended.stderr


@pytest.mark.parametrize("command", ["config schema", "config show", "runners list", "--help"])
def test_output_for_which_there_is_no_room_is_a_sentence(cli: Cli, command: str) -> None:
    """And a failure: whoever reads the file must not take it for whole."""
    ended = cli(*command.split(), wrapper=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    assert (ended.returncode, ended.stderr) == (
        1,
        "agp-agent: what this prints cannot be written: no space is left where it goes.\n",
    )
