"""The settings: where they come from, and what an operator is told."""

import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agp_agent.errors import ConfigurationError
from agp_agent.lacks import Lack
from agp_agent.settings import Settings, load, load_with_problems, source_of, with_source

TOKEN = "t0ken-of-the-tests-1"
OTHER = "t0ken-of-the-tests-2"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where a configuration file may be written."""
    return tmp_path / "agent.yaml"


def problems(config: Path | None = None, **overrides: Any) -> list[str]:
    """Return the sentences with which the settings are refused."""
    with pytest.raises(ConfigurationError) as caught:
        load(config, **overrides)
    return list(caught.value.problems)


def test_without_anything_given_the_defaults_hold() -> None:
    """Those of DESIGN."""
    found = load()
    assert (found.host, found.port, found.max_queued, found.max_running) == ("127.0.0.1", 8470, 1000, None)
    assert (found.output_limit_bytes, found.playbook_limit_bytes) == (4 * 2**20, 2**20)
    assert (found.task_timeout_s, found.stop_grace_s, found.drain_timeout_s) == (3600, 10, 30)
    assert (found.rerun_after_s, found.queue_timeout_s) == (0, 0)
    assert found.uids == range(20000, 20256)
    assert found.token is None


def test_the_state_directory_depends_on_who_runs_the_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root has one of the system's, others one of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    expected = Path("/var/lib/agp-agent") if os.geteuid() == 0 else tmp_path / "agp-agent"
    assert load().state_dir == expected


def test_command_line_goes_before_environment_before_file_before_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source overrules the next."""
    config.write_text("port: 1\nmax_queued: 1\nstop_grace_s: 1\n")
    monkeypatch.setenv("AGP_PORT", "2")
    monkeypatch.setenv("AGP_MAX_QUEUED", "2")
    found = load(config, port=3, host=None)
    assert (found.port, found.max_queued, found.stop_grace_s, found.host) == (3, 2, 1, "127.0.0.1")


def test_people_are_told_where_a_value_comes_from(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, file or default."""
    config.write_text("port: 1\nmax_queued: 1\n")
    monkeypatch.setenv("AGP_PORT", "2")
    found = load(config)
    assert source_of("port", found, config) == "environment, AGP_PORT"
    assert source_of("max_queued", found, config) == str(config)
    assert source_of("host", found, config) == "default"


def test_the_environment_names_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AGP_CONFIG is not a setting itself; one given on the command line goes before it."""
    config.write_text("port: 1\n")
    monkeypatch.setenv("AGP_CONFIG", str(config))
    assert load().port == 1
    other = config.with_name("other.yaml")
    other.write_text("port: 2\n")
    assert load(other).port == 2


def test_an_empty_file_says_nothing(config: Path) -> None:
    """It is no error."""
    config.write_text("# nothing yet\n")
    assert load(config).port == 8470


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TOKEN", "short", "expected a token of at least 16 characters (agp-agent token new makes one)."),
        (
            "DASHBOARD_URL",
            "dashboard.example",
            "expected an http:// or https:// URL without query, such as https://dashboard.example.",
        ),
        ("DASHBOARD_URL", "http://x/?a=b", None),
        ("DASHBOARD_URL", "http://x/#a", None),
        ("DASHBOARD_URL", "http:///x", None),
        (
            "DASHBOARD_URL",
            "http://h:99999",
            "expected a URL whose host is a name or an address, and whose port is at most 65535.",
        ),
        ("DASHBOARD_URL", "http://a..b", None),
        ("DASHBOARD_PROXY", "socks5://x", None),
        ("AGENT_ID", "-x", None),
        ("AGENT_ID", "x" * 129, None),
        ("HOST", "", None),
        ("PORT", "65536", "expected a value less than or equal to 65535."),
        ("PORT", "-1", "expected a value greater than or equal to 0."),
        ("PORT", "http", None),
        ("INTERFACE", "x" * 16, None),
        ("MAX_RUNNING", "0", "expected a value greater than or equal to 1."),
        ("MAX_QUEUED", "-1", None),
        ("TASK_TIMEOUT_S", "0", "expected a value greater than 0."),
        ("TASK_TIMEOUT_S", "inf", "expected a finite number."),
        ("TASK_TIMEOUT_S", "nan", None),
        ("STOP_GRACE_S", "-0.1", None),
        ("OUTPUT_LIMIT_BYTES", "1023", "expected a value greater than or equal to 1024."),
        ("OUTPUT_LIMIT_BYTES", "67108865", None),
        ("PLAYBOOK_LIMIT_BYTES", "0", None),
        ("RESULT_RETENTION_S", "0", None),
        ("UID_RANGE", "0-10", "expected two user ids from 1000 to 65535, such as 20000-20255."),
        ("UID_RANGE", "20010-20000", None),
        ("UID_RANGE", "20000-65536", None),
        ("UID_RANGE", "20000", None),
        (
            "OUTBOUND_DENY",
            "203.0.113.7,host.example",
            "expected IPv4 addresses and networks, separated by commas, such as 203.0.113.7,198.51.100.0/24.",
        ),
        ("OUTBOUND_DENY", "203.0.113.7/24", None),
        ("OUTBOUND_DENY", "fd00::/8", None),
        ("FENCE_IMAGE", "", None),
        ("LOG_LEVEL", "loud", "expected 'debug', 'info', 'warning' or 'error'."),
    ],
)
def test_a_wrong_value_names_key_source_and_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, config: Path, name: str, value: str, expected: str | None
) -> None:
    """From the environment, from the file and from the command line alike."""
    key = name.lower()
    (from_command_line,) = problems(None, **{key: value})
    assert from_command_line.startswith(f"--{key.replace('_', '-')} (command line): expected ")
    config.write_text(f'{key}: "{value}"\n')
    (from_file,) = problems(config)
    assert from_file.startswith(f"{key} ({config}): expected ")
    monkeypatch.setenv(f"AGP_{name}", value)
    (from_environment,) = problems()
    assert from_environment.startswith(f"AGP_{name} (environment): expected ")
    if expected is not None:
        for found in (from_command_line, from_file, from_environment):
            assert found.endswith(f": {expected}")


def test_all_problems_come_at_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all sources, unknown names among them."""
    config.write_text("max_queued: -1\nunknown_key: 1\n")
    monkeypatch.setenv("AGP_PORT", "x")
    monkeypatch.setenv("AGP_SPEED", "fast")
    found = problems(config, stop_grace_s=-1)
    assert {one.partition(":")[0] for one in found} == {
        "AGP_SPEED (environment)",
        "AGP_PORT (environment)",
        "--stop-grace-s (command line)",
        f"max_queued ({config})",
        f"unknown_key ({config})",
    }
    assert len(found) == 5


def test_the_rest_can_be_checked_where_something_is_wrong(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong has its default, everything else what was given; the problems are those of a load."""
    config.write_text("max_queued: -1\nhost: 127.0.0.2\nunknown_key: 1\n")
    monkeypatch.setenv("AGP_PORT", "x")
    found, wrong = load_with_problems(config, stop_grace_s=3, task_timeout_s=None)
    assert wrong == problems(config, stop_grace_s=3)
    assert found is not None
    assert (found.port, found.max_queued, found.host, found.stop_grace_s) == (8470, 1000, "127.0.0.2", 3)


def test_right_settings_have_no_problems(config: Path) -> None:
    """They are as a load gives them."""
    config.write_text("port: 1\n")
    assert load_with_problems(config) == (load(config), [])


@pytest.mark.parametrize("text", ["- 1\n", "tls_cert_file: /x\n"])
def test_where_nothing_can_be_checked_there_are_only_problems(config: Path, text: str) -> None:
    """The file is no mapping, or values contradict each other."""
    config.write_text(text)
    assert load_with_problems(config) == (None, problems(config))


def test_a_problem_found_later_tells_its_source_too(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it begins with a setting; any other sentence stays as it is."""
    config.write_text("host: x\n")
    monkeypatch.setenv("AGP_PORT", "2")
    found = load(config)
    assert with_source("AGP_PORT: is taken.", found, config) == "AGP_PORT (environment): is taken."
    assert with_source("AGP_HOST: is nowhere.", found, config) == f"AGP_HOST ({config}): is nowhere."
    assert with_source("AGP_MAX_QUEUED: is low.", found, config) == "AGP_MAX_QUEUED (default): is low."
    for other in ("AGP_NOTHING: is.", "the engine: is away.", "AGP_HOST, AGP_PORT: are taken."):
        assert with_source(other, found, config) == other


def test_an_unknown_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip of the pen must not pass in silence."""
    monkeypatch.setenv("AGP_PROT", "8470")
    assert problems() == ["AGP_PROT (environment): is not a setting of the agent; `agp-agent config show` lists all."]


def test_an_unknown_key_in_the_file_is_refused(config: Path) -> None:
    """The same in the file."""
    config.write_text("prot: 1\n")
    assert problems(config) == [f"prot ({config}): is not a setting of the agent; `agp-agent config show` lists all."]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGP_AGENT_SERVICE_HOST", "10.0.0.1"),
        ("AGP_AGENT_SERVICE_PORT", "8470"),
        ("AGP_AGENT_SERVICE_PORT_HTTP", "8470"),
        ("AGP_SERVICE_HOST", "10.0.0.1"),
        ("AGP_AGENT_PORT", "tcp://10.0.0.1:8470"),
        ("AGP_AGENT_PORT_8470_TCP", "tcp://10.0.0.1:8470"),
        ("AGP_AGENT_PORT_8470_TCP_ADDR", "10.0.0.1"),
        ("AGP_AGENT_PORT_8470_TCP_PROTO", "tcp"),
        ("AGP_PORT", "tcp://10.0.0.1:8470"),
        ("AGP_HOST", "udp://10.0.0.1:8470"),
        ("AGP_TEST_LOAD_IMAGE", "x"),
        ("AGP_CLUSTER_NAME", "x"),
        ("AGP_TAILNET_KEY", "x"),
    ],
)
def test_what_is_not_ours_is_ignored(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Kubernetes' service links, one named like a setting among them, and names reserved for tests."""
    monkeypatch.setenv(name, value)
    found = load()
    assert (found.port, found.host) == (8470, "127.0.0.1")


@pytest.mark.parametrize("text", ["port: [", "- port", "just text", "a: b: c", "port: 1\n\tx: 2\n"])
def test_a_file_that_is_no_mapping_is_one_sentence(config: Path, text: str) -> None:
    """It names the file and what was expected."""
    config.write_text(text)
    (found,) = problems(config)
    assert found.startswith(f"{config}: ")
    assert found.endswith(" is not valid YAML; expected lines of `key: value`.")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    """Missing, or no text."""
    assert problems(tmp_path / "x") == [
        f"{tmp_path / 'x'}: no such file; give an existing one with --config or AGP_CONFIG."
    ]
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (found,) = problems(tmp_path / "binary")
    assert "the file is not valid YAML" in found


@pytest.mark.parametrize("pair", [("TOKEN", "TOKEN_FILE"), ("DASHBOARD_TOKEN", "DASHBOARD_TOKEN_FILE")])
def test_a_token_is_given_in_one_way_only(monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]) -> None:
    """Two would leave open which is right."""
    monkeypatch.setenv(f"AGP_{pair[0]}", TOKEN)
    monkeypatch.setenv(f"AGP_{pair[1]}", "/some/file")
    assert problems() == [f"settings: expected only one of AGP_{pair[0]} and AGP_{pair[1]}."]


@pytest.mark.parametrize("name", ["AGP_TLS_CERT_FILE", "AGP_TLS_KEY_FILE"])
def test_certificate_and_key_come_together(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One alone is of no use."""
    monkeypatch.setenv(name, "/some/file")
    assert problems() == ["settings: expected AGP_TLS_CERT_FILE and AGP_TLS_KEY_FILE together."]


def test_a_problem_never_quotes_a_secret(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    """Neither a short token nor one in a wrong place."""
    monkeypatch.setenv("AGP_TOKEN", "hunter2")
    config.write_text("dashboard_token: hunter2\nhunter: hunter2\nport: hunter2\n")
    assert "hunter2" not in "\n".join(problems(config))


def test_settings_do_not_show_tokens_and_do_not_change() -> None:
    """Printed or logged, a token is stars."""
    found = load(token=TOKEN)
    assert TOKEN not in repr(found)
    with pytest.raises(ValidationError, match="frozen"):
        found.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("url", ["https://user:hunter2@d.example", "http://token@d.example/base"])
def test_a_url_of_the_dashboard_holds_no_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """URLs are printed and logged; the token has its own place."""
    monkeypatch.setenv("AGP_DASHBOARD_URL", url)
    (problem,) = problems()
    assert problem == (
        "AGP_DASHBOARD_URL (environment): expected a URL without user and password; the token goes into "
        "AGP_DASHBOARD_TOKEN_FILE."
    )


@pytest.mark.parametrize(
    ("allow", "nodes"),
    [
        ("tag:dashboard", ("tag:dashboard",)),
        (
            " tag:a , dash.example.ts.net,nKpbP5gfWJ11CNTRL ,5",
            ("tag:a", "dash.example.ts.net", "nKpbP5gfWJ11CNTRL", "5"),
        ),
    ],
)
def test_nodes_of_the_tailnet_are_listed_with_commas(allow: str, nodes: tuple[str, ...]) -> None:
    """Tags, full names, stable ids."""
    assert load(tailscale_socket=Path("/x"), tailscale_allow=allow).tailscale_nodes == nodes


@pytest.mark.parametrize(
    "allow", ["", ",", "dashboard", "tag:", "tag:a,", "*", "tag:a;tag:b", "100.64.0.5/32", "a b.c"]
)
def test_what_is_no_node_is_refused(monkeypatch: pytest.MonkeyPatch, allow: str) -> None:
    """A slip would lock everybody out, or nobody."""
    monkeypatch.setenv("AGP_TAILSCALE_SOCKET", "/x")
    monkeypatch.setenv("AGP_TAILSCALE_ALLOW", allow)
    (problem,) = problems()
    assert problem.startswith("AGP_TAILSCALE_ALLOW (environment): expected tags, full names or stable ids of nodes")


@pytest.mark.parametrize("name", ["AGP_TAILSCALE_SOCKET", "AGP_TAILSCALE_ALLOW"])
def test_socket_and_nodes_of_the_tailnet_come_together(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One alone would look like a check that is none; and a slip in a name is an error, never a check that is off."""
    monkeypatch.setenv(name, "tag:x")
    assert problems() == ["settings: expected AGP_TAILSCALE_SOCKET and AGP_TAILSCALE_ALLOW together."]
    monkeypatch.setenv("AGP_TAILSCALE_SOKET", "/x")
    assert "AGP_TAILSCALE_SOKET (environment): is not a setting of the agent" in problems()[0]


def test_a_url_loses_its_last_slash() -> None:
    """Paths are appended to it."""
    assert load(dashboard_url="https://d.example/base/").dashboard_url == "https://d.example/base"


def test_what_outbound_runners_may_not_reach_is_a_list() -> None:
    """Addresses and networks; without it there is nothing beside what is not public."""
    assert load().outbound_denied == ()
    found = load(outbound_deny="203.0.113.7, 198.51.100.0/24,").outbound_denied
    assert found == (IPv4Network("203.0.113.7/32"), IPv4Network("198.51.100.0/24"))


def test_every_setting_says_what_it_means() -> None:
    """The README's table is made of it."""
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_what_containers_may_lack_is_a_list_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo is told with all names that there are."""
    assert load().accepted_lacks == frozenset()
    monkeypatch.setenv("AGP_ACCEPT_DEGRADED", "swap, log-driver")
    assert load().accepted_lacks == {Lack.SWAP, Lack.LOG_DRIVER}
    monkeypatch.setenv("AGP_ACCEPT_DEGRADED", "everything")
    (problem,) = problems()
    assert problem.startswith(
        "AGP_ACCEPT_DEGRADED (environment): expected some of swap, memory, pids, cpus, log-driver"
    )
    assert problem.endswith(", and everything is none of them.")
