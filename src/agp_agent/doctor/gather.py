"""Gathers the facts at the walls: engine, files, clock, dashboard. Changes nothing that stays."""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agp_agent import catalog, preflight
from agp_agent.api.listening import listen
from agp_agent.catalog import Catalog, Runner
from agp_agent.docker_engine import Endpoint
from agp_agent.doctor.boxes import Boxes, open_boxes
from agp_agent.doctor.facts import Facts, Listening, RunnerFacts
from agp_agent.engine import ContainerEngine, PullPolicy
from agp_agent.errors import AgentError, ConfigurationError, EngineError, ImageUnavailable
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir

_DASHBOARD_S: Final = 5.0
_TIME_ERROR: Final = 5
"""What adjtimex(2) returns for a clock that nobody keeps right."""
_TIMEX_BYTES: Final = 256
_UNIX: Final = "http+unix://"


async def gather(settings: Settings, engine: ContainerEngine) -> Facts:
    """Everything the checks look at. Never raises for what is wrong: that is what it tells."""
    try:
        info, why = await engine.describe(), ""
    except EngineError as error:
        info, why = None, str(error)
    endpoint = Endpoint.from_environment(os.environ)
    agent_id, instance = await asyncio.to_thread(_identity, settings.state_dir)
    return Facts(
        configuration=await asyncio.to_thread(_configuration, settings),
        endpoint=str(endpoint),
        socket_mode=_mode(endpoint),
        engine=info,
        accepted=settings.accepted_lacks,
        engine_problem=why,
        clock_offset_s=info.clock_s - time.time() if info and info.clock_s else None,
        clock_synchronised=_synchronised(),
        state_dir=settings.state_dir,
        free_bytes=await asyncio.to_thread(_free, settings.state_dir),
        listening=await asyncio.to_thread(_listening, settings),
        dashboard_url=settings.dashboard_url,
        dashboard_problem=await _dashboard(settings),
        dashboard_proxy=_without_password(settings.dashboard_proxy),
        agent_id=agent_id,
        strangers=await _strangers(engine, agent_id, instance) if info else None,
        runners=await _runners(settings, engine) if info else {},
    )


def _configuration(settings: Settings) -> tuple[str, ...]:
    try:
        preflight.check_all(settings)
    except ConfigurationError as error:
        return error.problems
    return ()


def _mode(endpoint: Endpoint) -> int | None:
    if not endpoint.url.startswith(_UNIX):
        return None
    try:
        return Path("/" + endpoint.url.removeprefix(_UNIX).lstrip("/")).stat().st_mode & 0o777
    except OSError:
        return None


def _identity(state_dir: Path) -> tuple[str | None, str | None]:
    """Whose the state directory is, without taking it: its agent may be running."""
    try:
        known = json.loads((state_dir / "agent.lock").read_text())
        return str(known["agent_id"]), str(known["instance"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _free(state_dir: Path) -> int | None:
    """What is free where it is, or where it would be made; what an agent keeps in reserve there is free, too."""
    reserve = 0
    with contextlib.suppress(OSError):
        reserve = StateDir.reserve_of(state_dir).stat().st_size
    for place in (state_dir, *state_dir.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free + reserve
    return None


def _synchronised() -> bool | None:
    """What the kernel says of its clock; reading it needs no right."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def _listening(settings: Settings) -> Listening:
    problem = None
    try:
        listen(settings.host, 0, settings.interface).close()
    except ConfigurationError as error:
        problem = str(error)
    return Listening(settings.host, settings.interface, settings.tls_cert_file is not None, problem)


async def _dashboard(settings: Settings) -> str | None:
    """Why nothing answers at its address: a connection, and TLS where it has that; nothing is sent."""
    if settings.dashboard_url is None:
        return None
    parts = urlsplit(settings.dashboard_proxy or settings.dashboard_url)
    secure = parts.scheme == "https"
    try:
        context = ssl.create_default_context(cafile=settings.dashboard_ca_file) if secure else None
        async with asyncio.timeout(_DASHBOARD_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=context
            )
    except TimeoutError:
        return f"no answer within {_DASHBOARD_S:g} s"
    except (OSError, ssl.SSLError) as error:
        return error.strerror or str(error)
    writer.close()
    return None


def _without_password(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def _strangers(engine: ContainerEngine, agent_id: str | None, instance: str | None) -> tuple[str, ...] | None:
    if agent_id is None:
        return ()
    with contextlib.suppress(EngineError):
        owned = await engine.owned({"agp.agent_id": agent_id})
        return tuple(sorted(one.name for one in owned if one.labels.get("agp.instance") != instance))
    return None


async def _runners(settings: Settings, engine: ContainerEngine) -> dict[str, RunnerFacts]:
    try:
        known: Catalog = catalog.load(settings.catalog, preflight.mount_rules(settings))
    except ConfigurationError:
        return {}  # told by the check of the configuration
    found = {name: await _image(engine, runner) for name, runner in known.runners.items()}
    there = [known.runners[name] for name, facts in found.items() if facts.digest]
    if not there:
        return found
    try:
        async with open_boxes(settings, engine, there[0].image) as boxes:
            for runner in there:
                found[runner.name] = await _probe(boxes, runner, found[runner.name])
    except AgentError as error:
        for runner in there:
            found[runner.name] = _with_problem(found[runner.name], str(error))
    return found


async def _image(engine: ContainerEngine, runner: Runner) -> RunnerFacts:
    """What is on the engine; nothing is pulled."""
    try:
        image = await engine.image(runner.image, PullPolicy.NEVER)
    except ImageUnavailable:
        return RunnerFacts(runner.image, pulls=runner.pull is not PullPolicy.NEVER)
    except EngineError as error:
        return RunnerFacts(runner.image, problem=str(error))
    return RunnerFacts(runner.image, image.digest, outbound=runner.network == "outbound")


async def _probe(boxes: Boxes, runner: Runner, known: RunnerFacts) -> RunnerFacts:
    """Make a container of it, read it back, remove it; and try its fence from within, where it has a network."""
    try:
        async with boxes.prepared(runner.model_copy(update={"pull": PullPolicy.NEVER})):
            pass
        leak = await boxes.leak(runner)
    except EngineError as error:
        return _with_problem(known, str(error))
    return known if leak is None else _with_problem(known, leak)


def _with_problem(known: RunnerFacts, problem: str) -> RunnerFacts:
    return replace(known, problem=problem)
