"""A real browser, the development dashboard as a process of its own, and a real agent."""

import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from browser.pages import PATIENCE_MS, REPORT_TOKEN, Desk
from support.agent_process import AgentProcess


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module. As root it has no sandbox of its own, and sees nothing but these pages.

    No longer: while it is there an event loop runs in this thread, and no test that has its own could.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "the tests of the page need chromium: run .ci/test-tools"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A dashboard on a free port, its history in a file."""
    token = tmp_path / "dashboard-token"
    token.write_text(secrets.token_urlsafe(32))
    token.chmod(0o600)
    options = ("--port", "0", "--token-file", str(token), "--db", str(tmp_path / "desk.db"))
    command = (sys.executable, "-m", "agp_agent", "dashboard", *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        found = (re.search(r"(http://\S+/)\?key=\S+", line) for line in iter(process.stdout.readline, ""))
        links = (link[0] for link in found if link)
        first = next(links)
        yield Desk(process, first.partition("/?")[0], _chained(first, links))
        process.terminate()
        assert process.wait(20) == 0


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


@pytest.fixture
def agent(desk: Desk, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that delivers to that dashboard, with a token of its own."""
    with AgentProcess(tmp_path / "agent", desk.url, REPORT_TOKEN) as running:
        yield running


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A window without a past, in the light."""
    made = chromium.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light", permissions=["clipboard-read", "clipboard-write"]
    )
    made.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, desk: Desk) -> Iterator[Page]:
    """The page, opened by its link. No script of it may fail, and nothing may be against its own policy."""
    wrong: list[str] = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    opened.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    opened.goto(next(desk.links))
    yield opened
    assert wrong == []
