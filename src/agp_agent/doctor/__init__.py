"""What ``agp-agent doctor`` finds out: the engine, this machine, and whether the lockdown of tasks holds."""

import sys
from typing import Final

from agp_agent import catalog, preflight
from agp_agent.doctor import report
from agp_agent.doctor.boxes import open_boxes
from agp_agent.doctor.checks import Finding, examine
from agp_agent.doctor.escape import SAFE_ATTEMPTS, attempt_all
from agp_agent.doctor.gather import gather
from agp_agent.engine import ContainerEngine
from agp_agent.settings import Settings

__all__ = ["doctor"]

_CALL_TIMEOUT_S: Final = 10.0
"""An engine that takes longer for one answer is ill, and somebody is waiting for the doctor."""
_NOTHING_GRANTED: Final[dict[str, object]] = {
    "network": "none",
    "allow": (),
    "mounts": (),
    "inventory": None,
    "secrets": (),
    "seccomp": None,
}
"""The attempts are made in the lockdown as it is by default."""


async def doctor(settings: Settings, *, as_json: bool, escape: bool) -> bool:
    """Examine all, print it, and say whether all is well but for warnings.

    Raises:
        EngineError: the attempts to escape could not be made.
    """
    engine = preflight.engine_of(settings, _CALL_TIMEOUT_S)
    try:
        findings = examine(await gather(settings, engine))
        if not as_json:
            report.show_findings(findings, sys.stdout)
        tried = await _escape(settings, engine) if escape else None
    finally:
        await engine.aclose()
    _print(findings, tried, as_json=as_json)
    return not report.is_bad(findings, tried or ())


async def _escape(settings: Settings, engine: ContainerEngine) -> list[report.Tried]:
    """The lockdown as it is by default: the catalog's Python runner, without what the operator gave it beside."""
    granted = catalog.load(settings.catalog, preflight.mount_rules(settings)).runners["python"]
    runner = granted.model_copy(update=_NOTHING_GRANTED)
    await engine.open()
    await engine.image(runner.image, runner.pull)
    async with open_boxes(settings, engine, runner.image) as boxes:
        tried = []
        with report.progress("attempts to escape", len(SAFE_ATTEMPTS), sys.stderr) as step:
            async for one in attempt_all(boxes, engine, runner, SAFE_ATTEMPTS):
                tried.append(one)
                step()
        return tried


def _print(findings: list[Finding], tried: list[report.Tried] | None, *, as_json: bool) -> None:
    if as_json:
        print(report.as_json(findings, tried))  # noqa: T201  it is what the command is for
        return
    if tried is not None:
        report.show_attempts(tried, sys.stdout)
    print(report.summary(findings, tried))  # noqa: T201
