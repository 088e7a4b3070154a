"""Starts a dashboard and an agent on this machine, sends playbooks over HTTP, and shows the results that arrive.

Everything it starts it stops, everything it creates it removes.
"""

import asyncio
import contextlib
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agp_agent.dev_dashboard.client import send_task
from agp_agent.models import Playbook, Task

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PLAYBOOKS = ("disk.sh", "primes.py", "facts.yml", "failing.yml", "escape.sh")
EXPECTED_FAILURES = {"failing.yml"}
AGENT_DEADLINE_S = 60.0
RESULT_DEADLINE_S = 120.0
LINES_SHOWN = 6
console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Arrival:
    """A result at the dashboard, and how long it took from the POST."""

    name: str
    result: dict[str, Any]
    seconds: float


class DemoFailed(Exception):
    """The demonstration did not show what it promises."""


async def main() -> int:
    """Run the demonstration; exit code 0 if every playbook ended as it should."""
    agent_token, dashboard_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="agp-demo-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AGP_")}
        environment |= {"AGP_DASHBOARD_TOKEN": dashboard_token, "NO_COLOR": "1"}
        logs = Path(folder)
        async with _process(["dashboard", "--port", "0"], environment, logs / "dashboard.log") as dashboard:
            dashboard_url = await _line_after(dashboard, "AGP_DASHBOARD_URL=", logs / "dashboard.log")
            console.print(f"[bold]1.[/] A dashboard listens at {dashboard_url}")
            environment |= {
                "AGP_TOKEN": agent_token,
                "AGP_DASHBOARD_URL": dashboard_url,
                "AGP_STATE_DIR": str(logs / "state"),
            }
            async with _process(["serve", "--port", "0"], environment, logs / "agent.log") as agent:
                port = await _line_after(agent, '"port": ', logs / "agent.log")
                agent_url = f"http://127.0.0.1:{port}"
                await _until_ready(agent_url, logs / "agent.log")
                console.print(f"[bold]2.[/] The agent listens at {agent_url}, and found the container engine")
                console.print(f"[bold]3.[/] Sending {len(PLAYBOOKS)} playbooks to POST {agent_url}/execute_task")
                arrivals = await _send_all(agent_url, agent_token, dashboard_url, dashboard_token)
    _show(arrivals)
    return 0 if all(_as_expected(arrival) for arrival in arrivals) else 1


async def _send_all(agent_url: str, agent_token: str, dashboard_url: str, dashboard_token: str) -> list[Arrival]:
    sent: dict[str, float] = {}
    for name in PLAYBOOKS:
        task = Task(task_id=f"demo-{name}", playbook=Playbook(name=name, content=(EXAMPLES / name).read_text()))
        sent[task.task_id] = time.monotonic()
        answer = await asyncio.to_thread(send_task, agent_url, agent_token, task)
        console.print(f"   {name:12} → {answer.status} {answer.body}", highlight=False)
        if answer.status != httpx.codes.ACCEPTED:
            raise DemoFailed(f"the agent did not accept {name}")
    console.print("[bold]4.[/] Waiting for the results at the dashboard")
    arrivals: list[Arrival] = []
    headers = {"Authorization": f"Bearer {dashboard_token}"}
    async with httpx.AsyncClient(base_url=dashboard_url, headers=headers, trust_env=False) as client:
        deadline = time.monotonic() + RESULT_DEADLINE_S
        while sent:
            if time.monotonic() > deadline:
                raise DemoFailed(f"no result of {', '.join(sent)} within {RESULT_DEADLINE_S:g} s")
            for result in (await client.get("/api/v1/results")).json()["results"]:
                if (since := sent.pop(result["task_id"], None)) is not None:
                    arrivals.append(Arrival(result["task_id"].removeprefix("demo-"), result, time.monotonic() - since))
                    console.print(f"   {arrivals[-1].name:12} ← {result['status']}", highlight=False)
            await asyncio.sleep(0.02)
    return arrivals


def _as_expected(arrival: Arrival) -> bool:
    return (arrival.result["status"] == "failed") is (arrival.name in EXPECTED_FAILURES)


def _show(arrivals: list[Arrival]) -> None:
    table = Table(title="\nWhat the dashboard received", title_justify="left", show_lines=True, expand=False)
    for heading in ("playbook", "status", "after", "output (last lines) and error"):
        table.add_column(heading, overflow="fold")
    for arrival in sorted(arrivals, key=lambda one: PLAYBOOKS.index(one.name)):
        result = arrival.result
        lines = [line for line in result["output"].splitlines() if line.strip()]
        said = Text("\n".join(re.sub(r"\*{5,}", "***", line) for line in lines[-LINES_SHOWN:]))
        if result["error"]:
            said.append(f"\nerror: {result['error']}", style="bold red")
        colour = "green" if result["status"] == "completed" else "red"
        table.add_row(arrival.name, Text(result["status"], style=colour), f"{arrival.seconds:.1f} s", said)
    console.print(table)
    console.print(
        "Each ran in a container of its own: without root, network or a writable image; and they are gone again.\n"
        "failing.yml fails on purpose.\n\n"
        "Next:  .venv/bin/agp-agent run docs/examples/facts.yml     one playbook here and now, its output live\n"
        "       .venv/bin/agp-agent dashboard                       a dashboard to develop against, with a web page\n"
        "       README.md                                           how to point the agent at a real dashboard",
        highlight=False,
        markup=False,
    )


@contextlib.asynccontextmanager
async def _process(
    arguments: list[str], environment: dict[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command of the agent, its output in ``log``; ended by SIGTERM, which it obeys."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agp_agent", *arguments, env=environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _line_after(process: asyncio.subprocess.Process, marker: str, log: Path) -> str:
    """The word that follows ``marker`` in a process's log, once it is there."""
    deadline = time.monotonic() + AGENT_DEADLINE_S
    while time.monotonic() < deadline and process.returncode is None:
        _, found, rest = log.read_text().partition(marker)
        if found and "\n" in rest:
            return rest.split()[0].strip(",")
        await asyncio.sleep(0.05)
    raise DemoFailed(f"it did not start; its log:\n{log.read_text()}")


async def _until_ready(agent_url: str, log: Path) -> None:
    deadline = time.monotonic() + AGENT_DEADLINE_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while (await client.get(f"{agent_url}/readyz")).status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                raise DemoFailed(f"the agent did not become ready; its log:\n{log.read_text()}")
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    try:
        code = asyncio.run(main())
    except DemoFailed as failure:
        console.print(f"demo: {failure}", style="red", markup=False)
        code = 1
    sys.exit(code)
