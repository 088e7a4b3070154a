"""The settings: frozen, read once at start, from the environment (``AGP_…``) or a YAML file.

Order: command line > environment > YAML file > default. Tokens may also stand in files (see ``agp_agent.tokens``), be
handed over by systemd, or lie in /etc/agp-agent (see ``agp_agent.system_places``).
"""

import os
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from agp_agent import __version__, lacks, system_places
from agp_agent.errors import ConfigurationError
from agp_agent.lacks import Lack
from agp_agent.setting_types import (
    Accepted,
    HttpUrl,
    Networks,
    Nodes,
    PlainUrl,
    Seconds,
    SecondsOrZero,
    Token,
    UidRange,
    split_list,
    split_networks,
)

PREFIX: Final = "AGP_"
_NOT_OURS: Final = re.compile(
    r"AGP_(CONFIG$|TEST_|CLUSTER_|TAILNET_"  # AGP_CONFIG is read by the command line
    r"|(\w+_)?SERVICE_(HOST|PORT)(_|$)|(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_|$))",  # Kubernetes' service links
)
_SERVICE_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://")


class Settings(BaseSettings):
    """All settings. The descriptions are the source of the README's table; units stand in the names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    token: Token | None = Field(None, description="Bearer token that the dashboard must send; or give AGP_TOKEN_FILE.")
    token_file: Path | None = Field(None, description="File with the accepted tokens, one a line; read again on change")
    dashboard_url: PlainUrl | None = Field(None, description="Base URL of the dashboard that receives results.")
    dashboard_token: Token | None = Field(None, description="Bearer token that the agent sends to the dashboard.")
    dashboard_token_file: Path | None = Field(None, description="File with that token; read again on change.")
    dashboard_ca_file: Path | None = Field(None, description="CA certificates that an https dashboard is verified by.")
    dashboard_proxy: HttpUrl | None = Field(None, description="HTTP proxy on the way to the dashboard.")
    agent_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name of this agent; by default the host name at the first start, kept in the state directory.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; every one only by 0.0.0.0 or ::.")
    port: int = Field(8470, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    interface: str | None = Field(
        None, max_length=15, description="Network device to listen on alone; waited for while it is not there."
    )
    max_strangers: int = Field(
        1024,
        ge=1,
        description="Connections over which no right token has come; at it, the one waited for longest gives way.",
    )
    tls_cert_file: Path | None = Field(None, description="Certificate chain of the agent's own API, PEM.")
    tls_key_file: Path | None = Field(None, description="Private key that belongs to it, PEM.")
    tailscale_socket: Path | None = Field(
        None, description="Socket of the tailscaled that is asked who a peer is; what it does not know is refused."
    )
    tailscale_allow: Nodes | None = Field(
        None, description="Who may come in then: tags, full names or stable ids of nodes, with commas between."
    )
    state_dir: Path = Field(
        default_factory=system_places.state_dir,
        description="Directory of journal, audit log, spool and slots. Default: /var/lib/agp-agent as root, else the "
        "XDG state folder.",
    )
    engine_state_dir: Path | None = Field(
        None,
        description="Path of the state directory on the engine's host, where it is another one and is not found.",
    )
    catalog: Path | None = Field(None, description="YAML file with the runners; without it the built-in ones.")
    max_running: int | None = Field(
        None,
        ge=1,
        description="Tasks that run at once. Default: 4 a core of the engine's host, fewer where their memory would "
        "not fit.",
    )
    max_queued: int = Field(1000, ge=0, description="Tasks that wait; above it a task is refused with 503.")
    queue_timeout_s: SecondsOrZero = Field(0, description="Longest wait in the queue; 0 is no limit.")
    task_timeout_s: Seconds = Field(3600, description="Longest run of a task, where its runner sets none.")
    pull_timeout_s: Seconds = Field(600, description="Longest pull of a runner's image.")
    stop_grace_s: SecondsOrZero = Field(10, description="Time between TERM and KILL.")
    rerun_after_s: SecondsOrZero = Field(
        0, description="An identical task is refused for this long after its result was acknowledged."
    )
    output_limit_bytes: int = Field(4 * 2**20, ge=1024, le=64 * 2**20, description="Output kept of one task.")
    playbook_limit_bytes: int = Field(2**20, ge=1, le=64 * 2**20, description="Largest playbook accepted.")
    drain_timeout_s: SecondsOrZero = Field(30, description="Time that running tasks are given at SIGTERM.")
    result_retention_s: Seconds = Field(
        14 * 86400,
        description="Acknowledged results are kept this long; one not acknowledged by then becomes a dead letter.",
    )
    audit_retention_s: Seconds = Field(
        365 * 86400,
        description="Full files of the audit trail are kept this long, and the newest 8 at most; what is still open in "
        "one that goes is carried forward.",
    )
    journal_limit_bytes: int = Field(
        4 * 2**30,
        ge=2**20,
        description="Size of the journal from which on acknowledged results are forgotten early, oldest first; where "
        "others fill it, new tasks are refused with 503.",
    )
    uid_range: UidRange = Field(
        "20000-20255", description="User ids of task containers; each prepared container has one of its own."
    )
    warm: int = Field(
        1,
        ge=0,
        le=1000,
        description="Containers of each runner that are started ahead and wait for a task, where its key `warm` says "
        "nothing; 0 is none.",
    )
    warm_max_age_s: Seconds = Field(3600, description="No container waits longer; then it is replaced.")
    warm_before_ready: bool = Field(default=False, description="Be ready only once they wait, or were tried.")
    fence_image: str = Field(
        f"agp/fence:{__version__}",
        min_length=1,
        description="Image of the helper that fences in the network of runners that have one.",
    )
    outbound_deny: Networks | None = Field(
        None,
        description="IPv4 addresses and networks, separated by commas, that runners with a network may not reach, "
        "unless their `allow` names them: the public addresses of the engine's host.",
    )
    accept_degraded: Accepted = Field(
        "",
        description="What the engine may be unable to do, of swap, memory, pids, cpus, log-driver, with commas between "
        "them; containers that lack anything else are refused.",
    )
    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="Address of an OpenTelemetry collector (OTLP over HTTP) that gets a trace of each task; needs the "
        "extra `otel`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  replaced by one that knows Kubernetes' service links
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  nothing is read from the current folder
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  tokens have …_FILE settings of their own
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: what the caller passes, then the environment; YAML is passed in by ``load``."""
        return init_settings, _Environment(settings_cls)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for one, other in (("token", "token_file"), ("dashboard_token", "dashboard_token_file")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"only one of {PREFIX}{one.upper()} and {PREFIX}{other.upper()}")
        for one, other in (("tls_cert_file", "tls_key_file"), ("tailscale_socket", "tailscale_allow")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{PREFIX}{one.upper()} and {PREFIX}{other.upper()} together")
        return self

    @property
    def local_host(self) -> str:
        """Where the agent's own machine reaches it: a wildcard is asked on loopback."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  nothing listens by this

    @property
    def is_asked_by_socket(self) -> bool:
        """Whether its own machine reaches it by the socket in its state directory alone.

        So it is where only a device's neighbours come in, or only peers of the tailnet: nobody on this machine is one.
        """
        return self.interface is not None or self.tailscale_socket is not None

    @property
    def accepted_lacks(self) -> frozenset[Lack]:
        """What containers may lack."""
        return lacks.parse(self.accept_degraded)

    @property
    def tailscale_nodes(self) -> tuple[str, ...]:
        """Who may come in, where a tailscaled is asked."""
        return split_list(self.tailscale_allow or "")

    @property
    def uids(self) -> range:
        """The user ids of task containers."""
        first, last = self.uid_range.split("-")
        return range(int(first), int(last) + 1)

    @property
    def outbound_denied(self) -> tuple[IPv4Network, ...]:
        """What runners with a network may not reach beside what is not public."""
        return tuple(split_networks(self.outbound_deny or ""))


class _Environment(EnvSettingsSource):
    """The environment without what Kubernetes puts there for services whose name begins with ``agp``."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        links = {name.lower() for name, value in os.environ.items() if _SERVICE_LINK_VALUE.match(value)}
        return {name: value for name, value in super()._load_env_vars().items() if name.lower() not in links}


def load(config_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings of this process.

    Args:
        config_file: a YAML file that must exist; None reads ``AGP_CONFIG`` or the default file where it exists.
        overrides: values from the command line; None means not given.

    Raises:
        ConfigurationError: every problem at once, each with its key, where the value stands, and what was expected.
    """
    path = config_file or _config_file_of_environment()
    from_file = _read_yaml(path) if path else {}
    given = {key: value for key, value in overrides.items() if value is not None}
    handed_over = _token_files_for(from_file)
    in_environment = set(_Environment(Settings)())
    unknown = list(_unknown_in_environment())
    try:
        lower = {key: value for key, value in from_file.items() if key not in in_environment}
        settings = Settings(**(handed_over | lower | given))
    except ValidationError as error:
        wrong = [_describe(problem, path, from_file, given, in_environment) for problem in error.errors()]
        raise ConfigurationError(*unknown, *wrong) from None
    if unknown:
        raise ConfigurationError(*unknown)
    return settings


def load_with_problems(config_file: Path | None = None, **overrides: Any) -> tuple[Settings | None, list[str]]:
    """As ``load``, but return the problems, and settings with defaults in the place of what is wrong.

    So the rest can be checked too. None: the file cannot be read, or values contradict each other.
    """
    try:
        return load(config_file, **overrides), []
    except ConfigurationError as error:
        problems = list(error.problems)
    wrong = {name for problem in problems if (name := name_in(problem))}
    defaults = {key: Settings.model_fields[key].get_default(call_default_factory=True) for key in wrong}
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        path = config_file or _config_file_of_environment()
        from_file = {
            key: value for key, value in (_read_yaml(path) if path else {}).items() if key in Settings.model_fields
        }
        read = _token_files_for(from_file) | from_file | _Environment(Settings)()
        return Settings(**(read | given | defaults)), problems
    except (ConfigurationError, ValidationError):
        return None, problems


def source_of(name: str, settings: Settings, config_file: Path | None = None) -> str:
    """Where the value of a setting comes from, for people: environment, file or default."""
    path = config_file or _config_file_of_environment()
    if name in _Environment(Settings)():
        return f"environment, {PREFIX}{name.upper()}"
    handed_over = system_places.token_files().get(name)
    if handed_over is not None and getattr(settings, name) == handed_over:
        return f"found in {handed_over.parent}"
    return str(path) if name in settings.model_fields_set else "default"


def name_in(problem: str) -> str | None:
    """The setting that a problem begins with, as a key of ``Settings``."""
    match = re.match(rf"(?:--|{PREFIX})?([\w-]+)(?: \(|: )", problem)
    name = match[1].lower().replace("-", "_") if match else ""
    return name if name in Settings.model_fields else None


def with_source(problem: str, settings: Settings, config_file: Path | None = None) -> str:
    """A problem that begins with a setting's name, with where its value stands."""
    match = re.match(rf"{PREFIX}(\w+): ", problem)
    name = match[1].lower() if match else ""
    if match is None or name not in Settings.model_fields:
        return problem
    source = source_of(name, settings, config_file).partition(",")[0]
    return f"{PREFIX}{match[1]} ({source}): {problem[match.end() :]}"


def _token_files_for(from_file: Mapping[str, Any]) -> dict[str, Path]:
    """The files of tokens that need no setting, but those for which another way is given."""
    named = set(from_file) | set(_Environment(Settings)())
    files = system_places.token_files().items()
    return {setting: path for setting, path in files if not named & {setting, setting.removesuffix("_file")}}


def _config_file_of_environment() -> Path | None:
    named = os.environ.get("AGP_CONFIG")
    return Path(named) if named else system_places.config_file()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = YamlConfigSettingsSource(Settings, yaml_file=path)() if path.is_file() else None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        where = f"line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else "the file"
        raise ConfigurationError(f"{path}: {where} is not valid YAML; expected lines of `key: value`.") from None
    if document is None:
        raise ConfigurationError(f"{path}: no such file; give an existing one with --config or AGP_CONFIG.")
    return {str(key): value for key, value in document.items()}


def _unknown_in_environment() -> Iterator[str]:
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or _NOT_OURS.match(name) or _SERVICE_LINK_VALUE.match(value):
            continue
        if name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            yield f"{name} (environment): is not a setting of the agent; `agp-agent config show` lists all."


def _describe(
    problem: Any, path: Path | None, from_file: dict[str, Any], given: dict[str, Any], in_environment: set[str]
) -> str:
    key = str(problem["loc"][0]) if problem["loc"] else ""
    if key in given:
        source = f"--{key.replace('_', '-')} (command line)"
    elif key in in_environment:
        source = f"{PREFIX}{key.upper()} (environment)"
    elif key in from_file:
        source = f"{key} ({path})"
    else:
        source = "settings"
    if problem["type"] == "extra_forbidden":
        return f"{source}: is not a setting of the agent; `agp-agent config show` lists all."
    return f"{source}: expected {_expectation(problem)}."


def _expectation(problem: Any) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    text = str(problem["msg"]).removeprefix("Input should be ")
    return f"a value {text}" if text.startswith(("less", "greater")) else text[0].lower() + text[1:]
