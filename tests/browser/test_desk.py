"""The development dashboard in a real browser: what a newcomer does, what goes wrong, and what is hostile."""

import os
import re
import shlex
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from browser.pages import Desk, register, send, wait_status
from support.agent_process import AgentProcess

SCREENSHOTS = os.environ.get("AGP_SCREENSHOTS")
"""Where the pictures of the README are written to; `make screenshots` says."""
FAILING = """\
- name: Configure the web server
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Say hello
      ansible.builtin.debug: {msg: hello}
    - name: Render the config
      ansible.builtin.fail: {msg: the template has no port}
"""
HOSTILE = r"""
printf '<script>window.pwned = 1; alert(1)</script><img src=x onerror="window.pwned = 2">\n'
printf '\033]0;title\007\033[2J\033[H\033[1;31mred\033[0m \033[38;5;46mgreen\033[0m plain\n'
printf 'pretend\rover\n'
printf '\342\200\256txt.exe\n\001\n'
"""


def picture(page: Page, name: str) -> None:
    """Take one for the README, where they are wanted."""
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_a_newcomer_sends_a_sample_watches_it_and_gets_its_result(page: Page, agent: AgentProcess) -> None:
    """Register, choose, send; output comes while it runs, then the result from the agent's own delivery."""
    register(page, agent)
    expect(page.locator("#agents .light")).to_have_text("web1: ok")
    page.get_by_label("Sample").select_option("hello.sh")
    page.get_by_role("button", name="Send").click()
    output = page.locator("#output")
    expect(output).to_contain_text("step 1")
    expect(page.locator("#task")).to_have_attribute("data-status", "sent")
    expect(page.get_by_role("status").filter(has_text="live")).to_be_visible()
    picture(page, "dashboard-live")
    wait_status(page, "completed")
    expect(output).to_contain_text("hello from runner")
    expect(output).to_contain_text("step 5")
    expect(page.locator("#history a").first).to_contain_text("completed")
    assert [call.split(" ")[0] for call in page.locator("#task .call summary").all_inner_texts()] == ["→", "←"]


def test_ansibles_failures_and_recap_are_shown(page: Page, agent: AgentProcess) -> None:
    """The error names the task, and the table says how the hosts did."""
    register(page, agent)
    send(page, "site.yml", FAILING, "deploy 42")
    wait_status(page, "failed")
    sentence = 'exit code 2: task "Render the config" failed on localhost: the template has no port'
    expect(page.locator("#task .error").first).to_have_text(sentence)
    expect(page.locator("#recap tr").nth(1)).to_have_text("localhost1001000")
    page.emulate_media(color_scheme="dark")
    picture(page, "dashboard")


def test_a_running_task_is_cancelled(page: Page, agent: AgentProcess) -> None:
    """By the button; the agent's result says so."""
    register(page, agent)
    send(page, "long.sh", "echo begun; sleep 600", "long one")
    expect(page.locator("#output")).to_contain_text("begun")
    page.get_by_role("button", name="Cancel").click()
    wait_status(page, "failed")
    expect(page.locator("#task .error")).to_have_text("cancelled")


def test_an_agent_that_is_down_is_seen_and_told(page: Page, agent: AgentProcess) -> None:
    """By its light, and by what becomes of a task that is sent all the same."""
    register(page, agent)
    expect(page.locator("#agents .light")).to_have_text("web1: ok")
    agent.stop()
    expect(page.locator("#agents .light")).to_have_text("web1: down")
    send(page, "a.sh", "echo hi", "nobody")
    wait_status(page, "unanswered")
    expect(page.locator("#task .error")).to_contain_text("No answer")


def test_a_wrong_token_is_seen_and_told(page: Page, agent: AgentProcess) -> None:
    """As the agent puts it."""
    register(page, agent, token="wrong-token-wrong-token")
    expect(page.locator("#agents .light")).to_have_text("web1: wrong token")
    send(page, "a.sh", "echo hi", "unauthorized")
    wait_status(page, "refused")
    expect(page.locator("#task .error")).to_contain_text("401")


def test_what_was_refused_stays_to_be_read(page: Page, agent: AgentProcess) -> None:
    """The page looks for news every two seconds; that takes no message away, a success of one's own does."""
    register(page, agent)
    page.locator("#register summary").click()
    form = page.locator("#register-form")
    for label, value in (("Name", "web1"), ("Address", "http://127.0.0.1:1"), ("Its token", "t")):
        form.get_by_label(label).fill(value)
    form.get_by_role("button", name="Register").click()
    expect(page.get_by_role("alert")).to_contain_text("registered already")
    page.wait_for_timeout(5000)
    expect(page.get_by_role("alert")).to_contain_text("registered already")
    form.get_by_label("Name").fill("web2")
    form.get_by_role("button", name="Register").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_hostile_output_is_text(page: Page, agent: AgentProcess) -> None:
    """Live and as a result, in output, id and file name: nothing of it is HTML, or steers the page."""
    register(page, agent)
    name = "<b onmouseover=alert(2)>bold.sh"
    send(page, name, HOSTILE + "sleep 3\n", '<img src=x onerror="window.pwned=3">')
    output = page.locator("#output")
    for status in ("sent", "completed"):
        wait_status(page, status)
        expect(output).to_contain_text(
            '<script>window.pwned = 1; alert(1)</script><img src=x onerror="window.pwned = 2">'
        )
        expect(output).to_contain_text("red green plain\nover\n\\u202etxt.exe\n\\x01")
        expect(output).not_to_contain_text("pretend")
        expect(output.locator("span.b.f1")).to_have_text("red")
        expect(output.locator("span.f2")).to_have_text("green")
        assert page.evaluate("window.pwned") is None
        assert page.locator("#task img, #task script, #task b, #history img, #history b").count() == 0
    expect(page.locator("#history .what").first).to_contain_text('<img src=x onerror="window.pwned=3">')


def test_fifty_megabytes_of_output_do_not_drown_the_page(page: Page, agent: AgentProcess) -> None:
    """It keeps answering, shows the newest lines, and says how much it does not show."""
    register(page, agent)
    send(page, "flood.sh", "sleep 1; seq -f '%015.0f' 1 3276800; echo the end", "flood")
    wait_status(page, "completed")
    output = page.locator("#output")
    text = output.inner_text()
    assert text.endswith("the end\n")
    assert re.search(r"\[dashboard: \d+ bytes not shown here\]", text), "what is not shown is counted"
    assert len(text) < 1_200_000
    expect(page.get_by_role("link", name="whole output")).to_be_visible()
    page.get_by_label("Find").fill("flood")
    expect(page.locator("#history a")).to_have_count(1)


def test_what_runs_shows_no_more_than_a_page_can_hold(page: Page, agent: AgentProcess) -> None:
    """Live output gives way at its beginning."""
    register(page, agent)
    send(page, "flood.sh", "seq -f '%015.0f' 1 200000; echo still here; sleep 600", "live flood")
    output = page.locator("#output")
    text = ""
    while "still here" not in text:  # pytest's own time limit ends it; an expectation would print a million characters
        page.wait_for_timeout(500)
        text = output.inner_text()
    assert re.match(r"\[dashboard: \d+ characters before this are not shown\]", text), text[:200]
    assert len(text) < 1_100_000
    page.get_by_role("button", name="Cancel").click()
    wait_status(page, "failed")


class _Forgetful(BaseHTTPRequestHandler):
    """An agent whose journal was lost just after it took a task on."""

    def do_POST(self) -> None:
        """Alive, and takes every task."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_task = self.path == "/execute_task"
        self._answer(202 if is_task else 200, b'{"message":"m","task_id":"t","status":"running"}' if is_task else b"{}")

    def do_GET(self) -> None:
        """Knows none."""
        self._answer(404, b'{"detail":"There is no task with this id."}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_what_the_agent_does_not_know_is_told_and_not_asked_for_again(page: Page, agent: AgentProcess) -> None:
    """Its answer stands where its output would."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        register(page, agent, url=f"http://127.0.0.1:{server.server_port}")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        send(page, "a.sh", "echo x", "t")
        expect(page.get_by_text("the agent shows no output: 404: There is no task with this id.")).to_be_visible()
        page.wait_for_timeout(5000)  # a browser asks again after three seconds
        assert len([url for url in asked if url.endswith("/live")]) == 1
    finally:
        server.shutdown()
        server.server_close()


def test_a_delivery_that_was_refused_is_shown(page: Page, desk: Desk) -> None:
    """What the agent's operator needs to see where results do not come: the answer, and no token."""
    answer = httpx.post(
        f"{desk.url}/api/v1/agents/report_result",
        headers={"Authorization": "Bearer a-wrong-token-of-somebody", "Idempotency-Key": "k"},
        json={},
        trust_env=False,
    )
    assert answer.status_code == 401
    page.locator("#refusals > summary").click()
    call = page.locator("#turned-away .call")
    expect(call.locator("summary")).to_contain_text("← POST")
    call.locator("summary").click()
    expect(call).to_contain_text("idempotency-key: k")
    expect(call).to_contain_text("WWW-Authenticate: Bearer")
    expect(call).not_to_contain_text("a-wrong-token-of-somebody")
    expect(call.get_by_role("button")).to_be_disabled()


def test_the_task_that_is_shown_ends_whatever_the_history_is_filtered_by(page: Page, agent: AgentProcess) -> None:
    """It leaves the list of those that run, and its result is shown all the same."""
    register(page, agent)
    page.get_by_label("State").select_option("sent")
    send(page, "short.sh", "sleep 2; echo ended", "filtered")
    wait_status(page, "completed")
    expect(page.locator("#output")).to_have_text("ended\n")
    expect(page.locator("#history a")).to_have_count(0)


def test_what_is_not_kept_whole_is_not_offered_to_curl(page: Page, agent: AgentProcess) -> None:
    """A body with its middle left out would be another one; that of the answer does not matter."""
    register(page, agent)
    send(page, "long.sh", f"true\n{'#' * 40_000}\n", "long playbook")
    wait_status(page, "completed")
    page.locator("#task .call summary").first.click()
    expect(page.locator("#task .call button").first).to_be_disabled()


def test_a_progress_bar_takes_nothing_away(page: Page, agent: AgentProcess) -> None:
    """A line that is begun again and again, by more characters than the page holds: what stood before it stays."""
    register(page, agent)
    bar = "for i in $(seq 2500); do printf '%0999d\\r' $i; done"
    send(page, "bar.sh", f"echo before; sleep 1; {bar}; echo after; sleep 600", "progress bar")
    expect(page.locator("#output")).to_have_text(re.compile(r"before\n(0+\d+)?after"))
    page.get_by_role("button", name="Cancel").click()
    wait_status(page, "failed")


def test_a_call_can_be_repeated_with_curl(page: Page, agent: AgentProcess) -> None:
    """What is copied is a command that works; the token is not in it."""
    register(page, agent)
    page.locator("#heartbeats > summary").click()
    expect(page.locator("#beats .call summary")).to_have_text(f"→ POST http://127.0.0.1:{agent.port}/heartbeat · 200")
    send(page, "it's.sh", 'echo "it\'s"; sleep 600', "repeat it's")
    page.locator("#task .call summary").first.click()
    page.locator("#task").get_by_role("button", name="Copy as curl").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    assert agent.token not in command
    assert shlex.split(command)[0] == "curl"
    command += " --silent --noproxy '*'"
    variables = os.environ | {"TOKEN": agent.token}
    done = subprocess.run(("bash", "-c", command), env=variables, capture_output=True, text=True, check=True)
    assert "already" in done.stdout  # 409: it is the same task
    page.get_by_role("button", name="Cancel").click()
    wait_status(page, "failed")


def test_the_keyboard_is_enough(page: Page, agent: AgentProcess) -> None:
    """From the first field to the result: Tab, typing, Ctrl+Enter, and Enter on a line of the history."""
    register(page, agent)
    page.get_by_label("File name").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("keys.sh")
    page.keyboard.press("Tab")
    page.keyboard.type("by keys")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("echo typed")
    page.keyboard.press("Control+Enter")
    wait_status(page, "completed")
    expect(page.locator("#output")).to_have_text("typed\n")
    page.goto(page.url.partition("#")[0])
    page.locator("#history a").first.focus()
    page.keyboard.press("Enter")
    wait_status(page, "completed")
    expect(page.locator("#task")).to_be_focused()


def test_a_file_is_dropped_into_the_editor(page: Page, agent: AgentProcess) -> None:
    """Its name and its content are taken over; nothing is sent yet."""
    register(page, agent)
    transfer = page.evaluate_handle(
        "() => { const all = new DataTransfer(); all.items.add(new File(['echo dropped'], 'dropped.sh')); return all; }"
    )
    page.get_by_label("Playbook").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_label("File name")).to_have_value("dropped.sh")
    expect(page.get_by_label("Playbook")).to_have_value("echo dropped")
    expect(page.locator("#history a")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(page: Page, agent: AgentProcess, scheme: str) -> None:
    """Nothing is wider than the screen, by day and by night."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    register(page, agent)
    send(page, "wide.sh", f"echo {'x' * 500}", "w" * 200)
    wait_status(page, "completed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    back, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    bright = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (back, text)]
    assert (bright[0] > bright[1]) == (scheme == "light")


def test_the_link_opens_one_browser_and_the_next_link_another(chromium: Browser, page: Page, desk: Desk) -> None:
    """What was used is worth nothing; without a cookie nothing is told."""
    used = page.evaluate("performance.getEntriesByType('navigation')[0].name")
    other = chromium.new_context()
    stranger = other.new_page()
    stranger.goto(used)
    expect(stranger.locator("h1")).to_have_text("This page needs its link")
    assert httpx.get(f"{desk.url}/desk", trust_env=False).status_code == 401
    stranger.goto(next(desk.links))
    expect(stranger.locator("#send-form")).to_be_visible()
    other.close()


def test_the_history_is_filtered_and_outlives_a_reload(page: Page, agent: AgentProcess) -> None:
    """By words and by state; a percent sign is a percent sign."""
    register(page, agent)
    for task_id, content in (("one 100%", "true"), ("two", "exit 1")):
        send(page, "a.sh", content, task_id)
        wait_status(page, "failed" if task_id == "two" else "completed")
    page.reload()
    expect(page.locator("#history a")).to_have_count(2)
    page.get_by_label("Find").fill("0%")
    expect(page.locator("#history a")).to_have_count(1)
    page.get_by_label("Find").fill("")
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#history a")).to_have_count(1)
    expect(page.locator("#history .what")).to_have_text("two · web1")
