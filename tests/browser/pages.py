"""What a newcomer does on the page."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from playwright.sync_api import Page, expect

from support.agent_process import AgentProcess
from support.waiting import PATIENCE_S

REPORT_TOKEN: Final = "token-of-this-agent-s-results"
PATIENCE_MS: Final = PATIENCE_S * 1000


@dataclass(frozen=True)
class Desk:
    """A dashboard that was started, and the links that it printed, one after the other."""

    process: "subprocess.Popen[str]"
    url: str
    links: Iterator[str]


def register(page: Page, agent: AgentProcess, *, token: str | None = None, url: str | None = None) -> None:
    """Register the agent on the page, as a newcomer does."""
    form = page.locator("#register-form")
    form.get_by_label("Name").fill("web1")
    form.get_by_label("Address").fill(url or f"http://127.0.0.1:{agent.port}")
    form.get_by_label("Its token").fill(agent.token if token is None else token)
    form.get_by_label("Token of its results").fill(REPORT_TOKEN)
    form.get_by_role("button", name="Register").click()
    page.locator("#agents .light").wait_for()


def send(page: Page, name: str, content: str, task_id: str) -> None:
    """Send a playbook from the page."""
    form = page.locator("#send-form")
    form.get_by_label("File name").fill(name)
    form.get_by_label("Task id").fill(task_id)
    form.get_by_label("Playbook").fill(content)
    form.get_by_role("button", name="Send").click()
    page.locator("#task h2", has_text=task_id).first.wait_for()


def wait_status(page: Page, status: str) -> None:
    """Wait until the task that is shown has this status."""
    expect(page.locator("#task")).to_have_attribute("data-status", status)
