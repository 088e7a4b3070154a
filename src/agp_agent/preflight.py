"""What the settings name, made: tokens, dashboard, engine, mount rules; and whether all of it can be used."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from agp_agent import catalog, free_memory, tracing
from agp_agent.api.listening import check_address, check_tls
from agp_agent.catalog_watch import unusable
from agp_agent.dashboard import HttpDashboard
from agp_agent.docker_engine import DockerEngine, Endpoint
from agp_agent.errors import ConfigurationError
from agp_agent.mount_rules import MountRules
from agp_agent.pool_sizes import Wish, room_of_users
from agp_agent.settings import Settings
from agp_agent.tokens import Tokens, TokenSource


def tokens_of(settings: Settings) -> Tokens:
    """The tokens that the settings name; no file is read yet."""
    return Tokens(
        TokenSource("AGP_TOKEN", settings.token, settings.token_file),
        TokenSource("AGP_DASHBOARD_TOKEN", settings.dashboard_token, settings.dashboard_token_file),
    )


def mount_rules(settings: Settings) -> MountRules:
    """What no catalog may mount into a container: the agent's own files, and what reaches the engine."""
    engine = None
    with contextlib.suppress(ConfigurationError):  # that is told by whoever needs the engine
        engine = Endpoint.from_environment(os.environ).socket
    own: dict[Path | None, str] = {
        settings.state_dir: "the agent's state",
        settings.engine_state_dir: "the agent's state",
        settings.token_file: "the agent's token",
        settings.dashboard_token_file: "the agent's token",
        settings.tls_key_file: "the agent's private key",
        settings.tailscale_socket: "the socket of tailscaled",
        _docker_config(): "Docker's configuration with the registries' credentials",
        engine: "the engine's socket, which is root on its host",
        Path("/var/run/docker.sock"): "the engine's socket, which is root on its host",
    }
    believed: dict[Path | None, str] = {
        settings.catalog: "the agent's catalog",
        settings.dashboard_ca_file: "what the dashboard is verified by",
        settings.tls_cert_file: "the agent's certificate",
    }
    return MountRules(_given(own), _given(believed))


def _given(paths: dict[Path | None, str]) -> dict[Path, str]:
    return {path: what for path, what in paths.items() if path is not None}


def _docker_config() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder or Path(os.environ.get("HOME", "/")) / ".docker") / "config.json"


def check(settings: Settings) -> None:
    """Find out whether ``serve`` could use these settings, without starting or writing anything.

    Raises:
        ConfigurationError: every problem at once.
    """
    problems: list[str] = []
    looks: tuple[Callable[[], object], ...] = (
        tokens_of(settings).check,
        lambda: dashboard_of(settings, tokens_of(settings)),
        lambda: _check_catalog(settings),
        lambda: check_address(settings.host),
        lambda: check_tls(settings.tls_cert_file, settings.tls_key_file),
        lambda: Endpoint.from_environment(os.environ),
        tracing.check_installed if settings.otlp_endpoint else lambda: None,
    )
    for look in looks:
        try:
            look()
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)


def _check_catalog(settings: Settings) -> None:
    """The catalog, and whether there are users for the warm containers of its runners."""
    loaded = catalog.load(settings.catalog, mount_rules(settings))
    wish = Wish(settings.warm, is_asked="warm" in settings.model_fields_set)
    room_of_users(len(settings.uids)).check(loaded, wish)


def check_all(settings: Settings) -> None:
    """As ``check``, and find out whether each runner could use what it is granted: its secrets and mounts.

    Raises:
        ConfigurationError: every problem at once.
    """
    check(settings)
    runners = catalog.load(settings.catalog, mount_rules(settings)).runners.values()
    found = [(runner.name, problem) for runner in runners for problem in unusable(runner)]
    if found:
        raise ConfigurationError(*(f"AGP_CATALOG: {settings.catalog}: runner {name}: {why}." for name, why in found))


def dashboard_of(settings: Settings, tokens: Tokens) -> HttpDashboard:
    """The dashboard that the settings name. Raises ``ConfigurationError``."""
    if settings.dashboard_url is None:
        raise ConfigurationError("AGP_DASHBOARD_URL (not set): expected the URL that results are delivered to.")
    return HttpDashboard(
        settings.dashboard_url,
        tokens.outbound,
        ca_file=settings.dashboard_ca_file,
        proxy=settings.dashboard_proxy,
    )


def memory_left() -> Callable[[], float | None]:
    """How to learn what memory is left where the containers are: nobody here knows that of an engine elsewhere."""
    is_here = Endpoint.from_environment(os.environ).socket is not None
    return free_memory.available_share if is_here else lambda: None


def engine_of(settings: Settings, call_timeout_s: float = 30.0) -> DockerEngine:
    """The engine that the environment names, used as the settings say."""
    return DockerEngine.from_environment(
        os.environ,
        timeout_s=call_timeout_s,
        pull_timeout_s=settings.pull_timeout_s,
        accepted=settings.accepted_lacks,
    )
