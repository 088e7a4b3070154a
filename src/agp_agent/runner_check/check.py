"""Runs each runner for real: through the same parts and the same path as a task of the dashboard."""

import asyncio
import json
import tempfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Final

from agp_agent.app import Agent
from agp_agent.caller import Caller
from agp_agent.catalog import Catalog, Runner
from agp_agent.catalog.runner import PLAYBOOK, Match
from agp_agent.dashboard import Answer, Headers, Meaning
from agp_agent.errors import EngineUnavailable
from agp_agent.lifecycle import Outcome
from agp_agent.local_run import contact
from agp_agent.models import TaskResult
from agp_agent.pool_sizes import NONE_WARM
from agp_agent.preflight import engine_of
from agp_agent.redaction import Masker
from agp_agent.runner_check import probe
from agp_agent.runner_check.report import NO_CONTRACT, Report
from agp_agent.settings import Settings
from agp_agent.state_dir import StateDir
from agp_agent.watch import LiveRun

_PROBE_TIMEOUT_S: Final = 60.0
_DRAIN_S: Final = 10.0


class _Results:
    """In the place of the dashboard: takes every result, and tells who waits for it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._results = {name: asyncio.get_running_loop().create_future() for name in names}

    async def report(self, result: TaskResult, headers: Headers) -> Answer:
        """Take it."""
        del headers
        if not (waiting := self._results[result.task_id]).done():
            waiting.set_result(result)
        return Answer(Meaning.ACKNOWLEDGED)

    async def of(self, name: str) -> TaskResult:
        """The result of a task, as soon as it is there."""
        result: TaskResult = await self._results[name]
        return result

    async def aclose(self) -> None:
        """Nothing to close."""


async def check_runners(runners: Iterable[Runner], settings: Settings, masker: Masker) -> list[Report]:
    """Try these runners of the settings' catalog, all at once, and tell what a playbook sees in each.

    Raises:
        EngineUnavailable: the engine did not answer within ten seconds.
        ConfigurationError: the settings or the catalog cannot be used.
    """
    runners = list(runners)
    results = _Results(runner.name for runner in runners)
    with tempfile.TemporaryDirectory(prefix="agp-check-") as folder, StateDir(Path(folder), "check") as state:
        runs: dict[str, LiveRun] = {}
        agent = Agent(settings, state, engine_of(settings), results, masker, runs.__setitem__, wish=NONE_WARM)
        agent.catalogs.replace(_with_probes(agent.catalogs.current, {runner.name for runner in runners}))
        async with agent.running():
            if (problem := await _no_image(agent)) is not None:
                return [Report(runner, error=problem) for runner in runners]
            reports = await asyncio.gather(*(_tried(agent, runner, results, runs) for runner in runners))
            await agent.drain(_DRAIN_S)  # the containers are removed before the state is
    return reports


async def _no_image(agent: Agent) -> str | None:
    """Wait for the engine. Where it has no image of any runner, nothing can be run at all: why that is."""
    try:
        await contact(agent)
    except EngineUnavailable:
        if (problem := agent.readiness.problems.get("runner images")) is None:
            raise
        return problem
    return None


def _with_probes(catalog: Catalog, tried: Container[str]) -> Catalog:
    """The runners that are tried, in all that a playbook sees, but each with the probe's interpreter.

    The others stay, for their images are of use; but nothing is proven of their networks, which takes its time.
    """
    probes = {
        name: runner.model_copy(
            update={
                "command": ("sh", PLAYBOOK),
                "match": Match(suffixes=(_suffix(catalog, runner),)),
                "timeout_s": _PROBE_TIMEOUT_S,
            }
            if name in tried
            else {"network": "none", "allow": ()}
        )
        for name, runner in catalog.runners.items()
    }
    return catalog.model_copy(update={"runners": probes})


def _suffix(catalog: Catalog, runner: Runner) -> str:
    """A name may hold what a suffix may not."""
    return f".probe{catalog.names.index(runner.name)}"


async def _tried(agent: Agent, runner: Runner, results: _Results, runs: Mapping[str, LiveRun]) -> Report:
    playbook = {"name": f"probe{_suffix(agent.catalogs.current, runner)}", "content": probe.script(runner)}
    body = json.dumps({"task_id": runner.name, "playbook": playbook}).encode()
    _, accepted = await agent.intake.accept(body, None, Caller("terminal"))
    result = await results.of(runner.name)
    verdict = await agent.journal.verdict(accepted.run_id)
    attempt = await agent.journal.attempt(accepted.run_id)
    digest = attempt.image_digest if attempt else None
    run = runs.get(accepted.run_id)
    if run is not None and not run.control.startswith(run.marker):
        return Report(runner, digest, error=NO_CONTRACT)
    if verdict is None or verdict.outcome is not Outcome.SUCCEEDED:
        return Report(runner, digest, error=_sentence(result))
    return Report(runner, digest, sight=probe.read(result.output))


def _sentence(result: TaskResult) -> str:
    """Why the probe did not run to its end."""
    error = result.error or "it ended without saying how"
    said = " ".join(result.output.split())
    return f"{error}; it printed: {said[:200]}" if said else error
