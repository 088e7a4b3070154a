"""The agent as a service: its sockets, its signals, and what it tells the one that started it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import structlog

from agp_agent import __version__, descriptors, local_socket
from agp_agent.api import Access, AgentServer, Entrance, create_api
from agp_agent.api.listening import listen
from agp_agent.app import Agent
from agp_agent.errors import ConfigurationError
from agp_agent.preflight import check, dashboard_of, engine_of
from agp_agent.readiness import Readiness
from agp_agent.redaction import Masker
from agp_agent.service_manager import ServiceManager
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir
from agp_agent.tailnet import Tailnet
from agp_agent.token_watch import TokenWatch
from agp_agent.tokens import Tokens
from agp_agent.tracing import OtlpTracer

log = structlog.get_logger(__name__)


async def serve(settings: Settings, tokens: Tokens, masker: Masker) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: something the operator wrote cannot be used.
    """
    check(settings)
    tokens.check()
    descriptors.raise_limit()
    dashboard = dashboard_of(settings, tokens)
    with StateDir(settings.state_dir, settings.agent_id) as state:
        entrance = _entrance(settings)
        listeners = [] if entrance else [listen(settings.host, settings.port, None)]
        port = entrance.port if entrance else listeners[0].getsockname()[1]  # of several free ones, this
        if settings.is_asked_by_socket:
            listeners.append(local_socket.listen(state.path))
        settings = settings.model_copy(update={"port": port})
        engine = engine_of(settings)
        agent = Agent(settings, state, engine, dashboard, masker, configured=tokens.fingerprints)
        if settings.otlp_endpoint:
            agent.stages.tracer = OtlpTracer(settings.otlp_endpoint, agent.identity.agent_id)
        await _serve(agent, tokens, listeners, entrance)


def _entrance(settings: Settings) -> Entrance | None:
    """The device to listen on, where it is to be that alone."""
    if settings.interface is None:
        return None
    entrance = Entrance(settings.host, settings.port, settings.interface)
    if not entrance.port:
        raise ConfigurationError(
            f"AGP_PORT: 0 takes a free port only where AGP_INTERFACE ({settings.interface}) is there at the start; "
            "give a port."
        )
    return entrance


async def _serve(agent: Agent, tokens: Tokens, listeners: list[socket.socket], entrance: Entrance | None) -> None:
    signals: asyncio.Queue[None] = asyncio.Queue()
    settings = agent.settings
    manager = ServiceManager()
    async with _tailnet(settings, agent.readiness) as tailnet, agent.running():
        access = Access(tokens.inbound.current, agent.auth_failures, tailnet)
        server = AgentServer(
            create_api(
                agent.intake,
                agent.journal,
                agent.following,
                agent.operating,
                agent.readiness,
                agent.overview,
                access,
                agent.metrics,
            ),
            lambda: signals.put_nowait(None),
            tls_cert_file=settings.tls_cert_file,
            tls_key_file=settings.tls_key_file,
            max_strangers=settings.max_strangers,
            entrance=entrance,
        )
        identity = {"agent_id": agent.identity.agent_id, "version": __version__}
        if entrance is None:
            host, port = listeners[0].getsockname()[:2]
            log.info("listening", host=host, port=port, **identity)
        else:
            entrance.hear = lambda problem: _tell_device(agent.readiness, problem)
            log.info("started", interface=settings.interface, **identity)
        background = [asyncio.create_task(agent.remove_leftovers()), asyncio.create_task(manager.run())]
        background.append(asyncio.create_task(_tell_condition(manager, agent.readiness)))
        manager.ready(_condition(agent.readiness))
        await _until_stopped(
            agent, server, listeners, signals, TokenWatch(tokens, agent.audit, agent.readiness), manager
        )
        for task in background:
            task.cancel()


async def _until_stopped(
    agent: Agent,
    server: AgentServer,
    listeners: list[socket.socket],
    signals: "asyncio.Queue[None]",
    watch: TokenWatch,
    manager: ServiceManager,
) -> None:
    serving = asyncio.create_task(server.serve(sockets=listeners))
    stopping = asyncio.create_task(_stop(agent, signals, manager))
    watching = asyncio.create_task(watch.run())
    await asyncio.wait({serving, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
    agent.following.close()
    server.should_exit = True
    await serving
    if watching.done():
        watching.result()  # it ends by an error only
    for task in (stopping, watching):
        task.cancel()
    watch.look()


def _tell_device(readiness: Readiness, problem: str | None) -> None:
    """A device that is not there keeps no task from starting; but nobody can bring one."""
    if readiness.warn("network device", problem) and problem:
        log.warning("nobody can come in: the network device or its address is not there; waiting for it", why=problem)


async def _tell_condition(manager: ServiceManager, readiness: Readiness) -> None:
    """Keep the line that ``systemctl status`` shows true."""
    changed = readiness.subscribe()
    while True:
        await changed.wait()
        changed.clear()
        manager.status(_condition(readiness))


def _condition(readiness: Readiness) -> str:
    """One line: what keeps tasks from starting, else what is not well beside it."""
    for problem in readiness.problems.values():
        return f"Waiting: {problem}"
    if readiness.paused:
        return "Paused: tasks are taken on and wait"
    ready = f"Ready: up to {readiness.max_running} tasks at once"
    return "; ".join([ready, *list(readiness.warnings.values())[:1]])


@contextlib.asynccontextmanager
async def _tailnet(settings: Settings, readiness: Readiness) -> AsyncIterator[Tailnet | None]:
    """The tailscaled that is asked who a peer is, where one is to be asked."""
    if settings.tailscale_socket is None:
        yield None
        return

    def hear(problem: str | None) -> None:
        if readiness.warn("tailscaled", problem) and problem:
            log.error("nobody can be let in: tailscaled is not there, or not in the tailnet", why=problem)

    tailnet = Tailnet(settings.tailscale_socket, settings.tailscale_nodes, hear)
    looking = asyncio.create_task(tailnet.run())
    try:
        yield tailnet
    finally:
        looking.cancel()
        await tailnet.aclose()


async def _stop(agent: Agent, signals: "asyncio.Queue[None]", manager: ServiceManager) -> None:
    """The first signal drains, the second ends at once."""
    drain_timeout_s = agent.settings.drain_timeout_s
    await signals.get()
    manager.stopping(f"Stopping: running tasks are given {drain_timeout_s:g} s")
    log.info("stopping: no new tasks; a second signal ends at once", drain_timeout_s=drain_timeout_s)
    drained = asyncio.create_task(agent.drain(drain_timeout_s))
    again = asyncio.create_task(signals.get())
    await asyncio.wait({drained, again}, return_when=asyncio.FIRST_COMPLETED)
    for task in (drained, again):
        task.cancel()
